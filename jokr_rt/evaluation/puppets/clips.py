"""Puppets as clips on a disk."""

from fractions import Fraction
from pathlib import Path

import numpy as np

from jokr_rt.evaluation.puppets.motion import Motion
from jokr_rt.evaluation.puppets.puppet import Puppet, joints, render
from jokr_rt.frame import Frame
from jokr_rt.video import VideoWriter, write_png

RATE = Fraction(10)


def write_clip(folder: Path, puppet: Puppet, motion: Motion, size: int) -> None:
    """Write `frames/00000.png` ... and `masks/00000.png` ... below `folder`."""
    for name in ("frames", "masks"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    for index, pose in enumerate(joints(puppet, motion)):
        picture, mask = render(puppet, pose, size)
        write_png(folder / "frames" / f"{index:05d}.png", picture)
        write_png(folder / "masks" / f"{index:05d}.png", np.repeat(mask[..., None], 3, axis=2))


def write_video(path: Path, puppet: Puppet, motion: Motion, size: int) -> None:
    """Write the motion as one video, without masks."""
    with VideoWriter(path, width=size, height=size, time_base=1 / RATE, rate=RATE, overwrite=True) as writer:
        for index, pose in enumerate(joints(puppet, motion)):
            writer.write(Frame(render(puppet, pose, size)[0], index, 1 / RATE))
