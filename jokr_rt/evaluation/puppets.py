"""Two walking puppets with ground truth: a data set that tests, demo and evaluation share.

The brown puppet and the blue one differ in proportions, texture, scale and orientation, and walk through the same
motion program, so the true partner of every frame, the true joints and the true affine map are known.
"""

from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from jokr_rt.frame import Frame
from jokr_rt.video import VideoWriter, write_png

Floats = NDArray[np.float64]
RATE = Fraction(10)
BODY = 0.78  # length of a body on the common stage, in half-widths of the frame
JOINTS = (
    "hip", "shoulder", "neck", "head", "tail",
    "near fore knee", "near fore foot", "near hind knee", "near hind foot",
    "far fore knee", "far fore foot", "far hind knee", "far hind foot",
)  # fmt: skip
# Bones as (from, to, part of the body); far legs first, so that near ones are drawn over them.
BONES = (
    (1, 9, "far leg"), (9, 10, "far leg"), (0, 11, "far leg"), (11, 12, "far leg"), (0, 4, "tail"), (0, 1, "body"),
    (1, 2, "neck"), (2, 3, "head"), (1, 5, "leg"), (5, 6, "leg"), (0, 7, "leg"), (7, 8, "leg"),
)  # fmt: skip


@dataclass(frozen=True)
class Puppet:
    """Proportions in body lengths, colours as RGB in 0-1; then the puppet's place in the frame.

    degrees, scale, shift: the affine map from the common stage to this puppet's frame, in half-widths.
    """

    leg: float = 0.62
    neck: float = 0.34
    head: float = 0.26
    tail: float = 0.55
    thickness: dict[str, float] = field(
        default_factory=lambda: {"body": 0.21, "neck": 0.13, "head": 0.14, "leg": 0.09, "far leg": 0.085, "tail": 0.06}
    )
    colour: tuple[float, float, float] = (0.85, 0.5, 0.2)
    stripes: tuple[float, float, float] = (0.45, 0.2, 0.08)
    stripe_width: float = 0.11
    degrees: float = 0.0
    scale: float = 1.0
    shift: tuple[float, float] = (0.0, 0.0)
    background: int = 0


BROWN = Puppet()
BLUE = Puppet(
    leg=0.5, neck=0.42, head=0.34, tail=0.8,
    thickness={"body": 0.17, "neck": 0.1, "head": 0.12, "leg": 0.085, "far leg": 0.08, "tail": 0.11},
    colour=(0.35, 0.55, 0.85), stripes=(0.92, 0.94, 0.98), stripe_width=0.3,
    degrees=20.0, scale=0.75, shift=(0.1, 0.06), background=1,
)  # fmt: skip
PUPPETS = {"brown": BROWN, "blue": BLUE}


@dataclass(frozen=True)
class Motion:
    """A motion program: one row of joint angles a frame, radians, the same for every puppet."""

    angles: dict[str, Floats]

    @classmethod
    def walk(cls, frames: int, seed: int = 0, gait: float = 1.0) -> "Motion":
        """`frames` poses of a walk that speeds up, looks about and wags. gait: strides per 16 frames, about."""
        random = np.random.default_rng(seed)
        speed = gait * (1 + 0.35 * _drift(random, frames))
        phase = np.cumsum(2 * np.pi / 16 * speed) + random.uniform(0, 2 * np.pi)
        stride = 0.5 + 0.15 * _drift(random, frames)
        angles = {"body": 0.1 * np.sin(phase * 2) * 0.3 + 0.16 * _drift(random, frames)}
        for name, offset in (("near fore", 0.0), ("near hind", 0.55), ("far fore", 1.0), ("far hind", 1.55)):
            angles[name] = stride * np.sin(phase + np.pi * offset)
            angles[name + " knee"] = 0.75 * stride * (1 + np.cos(phase + np.pi * offset))
        angles["neck"] = 0.75 + 0.35 * _drift(random, frames)
        angles["head"] = 0.1 + 0.4 * _drift(random, frames)
        angles["tail"] = 2.4 + 0.5 * _drift(random, frames) + 0.25 * np.sin(phase)
        angles["x"] = 0.1 * _drift(random, frames)
        angles["y"] = 0.04 * np.sin(phase * 2) + 0.06 * _drift(random, frames)
        return cls(angles)

    def __len__(self) -> int:
        return len(self.angles["x"])


@dataclass(frozen=True)
class Walk:
    """Which motion program: its number of frames, its random seed and its speed; see `Motion.walk`."""

    frames: int
    seed: int
    gait: float

    def motion(self) -> Motion:
        return Motion.walk(self.frames, self.seed, self.gait)


TRAINING = Walk(192, seed=0, gait=1.0)
"""What `examples/puppets.py OUT --frames 192` writes, and models are trained on."""
TEST = Walk(96, seed=2026, gait=0.85)
"""Held out: what a trained model is measured on."""
PROBE = Walk(96, seed=7, gait=1.2)
"""Held out too: what fresh probes of a trained model, such as a domain classifier, are fitted on."""


def _drift(random: np.random.Generator, frames: int) -> Floats:
    """A smooth random curve within [-1, 1]."""
    time = np.arange(frames) / 40
    waves = [np.sin(2 * np.pi * (time * random.uniform(0.3, 1.4) + random.uniform())) for _ in range(3)]
    return np.asarray(np.mean(waves, axis=0))


def joints(puppet: Puppet, motion: Motion) -> Floats:
    """True joints (T, 13, 2) as (x, y) in [-1, 1] of the puppet's frame, in the order of JOINTS."""
    a = motion.angles

    def towards(start: Floats, angle: Floats, length: float) -> Floats:
        return start + length * np.stack([np.cos(angle), -np.sin(angle)], axis=-1)

    middle = np.stack([a["x"], a["y"] - 0.12], axis=-1)
    found = {"hip": towards(middle, a["body"] + np.pi, 0.5), "shoulder": towards(middle, a["body"], 0.5)}
    found["neck"] = towards(found["shoulder"], a["body"] + a["neck"], puppet.neck)
    found["head"] = towards(found["neck"], a["body"] + a["head"], puppet.head)
    found["tail"] = towards(found["hip"], a["body"] + a["tail"], puppet.tail)
    for leg, top, bend in (
        ("near fore", "shoulder", -1), ("near hind", "hip", 1), ("far fore", "shoulder", -1), ("far hind", "hip", 1),
    ):  # fmt: skip
        thigh = a[leg] - np.pi / 2
        found[leg + " knee"] = towards(found[top], thigh, puppet.leg * 0.55)
        found[leg + " foot"] = towards(found[leg + " knee"], thigh + bend * a[leg + " knee"] * 0.8, puppet.leg * 0.55)
    stage = np.stack([found[name] for name in JOINTS], axis=1) * BODY
    return stage @ placement(puppet)[:, :2].T + placement(puppet)[:, 2]


def body_length(poses: Floats) -> Floats:
    """From hip to shoulder in poses (T, 13, 2): (T,), in half-widths of the frame."""
    return np.asarray(np.linalg.norm(poses[:, JOINTS.index("shoulder")] - poses[:, JOINTS.index("hip")], axis=-1))


def placement(puppet: Puppet) -> Floats:
    """The affine map (2, 3) from the common stage to the puppet's frame."""
    angle = np.radians(puppet.degrees)
    turn = puppet.scale * np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    return np.concatenate([turn, np.array(puppet.shift)[:, None]], axis=1)


def true_theta(source: Puppet, target: Puppet) -> Floats:
    """The map (2, 3) from the target's frame to the source's: what an ideal spatial transformer predicts."""
    there, here = placement(source), placement(target)
    linear = there[:, :2] @ np.linalg.inv(here[:, :2])
    return np.concatenate([linear, (there[:, 2] - linear @ here[:, 2])[:, None]], axis=1)


def render(puppet: Puppet, pose: Floats, size: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Draw one pose (13, 2), anti-aliased: RGB (size, size, 3) before a background, mask (size, size), both uint8."""
    centres = (np.arange(size) * 2 + 1) / size - 1
    pixels = np.stack(np.meshgrid(centres, centres), axis=-1)
    unit = BODY * puppet.scale
    picture, mask = _background(puppet, pixels), np.zeros((size, size, 1))
    for start, end, part in BONES:
        thickness = puppet.thickness[part] * unit
        near = _window(pose[[start, end]], thickness, size)
        along, distance = _capsule(pixels[near], pose[start], pose[end])
        radius = thickness * (1 - 0.35 * along) if part in ("tail", "leg", "far leg") else thickness
        inside = np.clip((radius - distance) * size / 2 + 0.5, 0, 1)[..., None]
        length = float(np.linalg.norm(pose[end] - pose[start])) / unit
        band = np.sin(2 * np.pi * along * length / (2 * puppet.stripe_width))[..., None]
        striped = np.clip(band * 4 + 0.5, 0, 1) * (0.25 if part == "head" else 1)
        paint = np.array(puppet.colour) * (1 - striped) + np.array(puppet.stripes) * striped
        shade = (1 - 0.35 * (distance / np.maximum(radius, 1e-6)).clip(0, 1)[..., None] ** 2) * (
            0.6 if part == "far leg" else 1
        )
        picture[near] = picture[near] * (1 - inside) + paint * shade * inside
        mask[near] = np.maximum(mask[near], inside)
    return (picture * 255).round().astype(np.uint8), (mask[..., 0] * 255).round().astype(np.uint8)


def _window(ends: Floats, radius: float, size: int) -> tuple[slice, slice]:
    """Rows and columns of the pixels that a capsule may touch."""
    low, high = (ends.min(axis=0) - radius + 1) * size / 2 - 2, (ends.max(axis=0) + radius + 1) * size / 2 + 2
    (left, top), (right, bottom) = (np.clip(corner, 0, size).astype(int) for corner in (low, high))
    return slice(top, bottom), slice(left, right)


def _capsule(pixels: Floats, start: Floats, end: Floats) -> tuple[Floats, Floats]:
    """Per pixel: where along the bone its nearest point lies (0 to 1), and how far away that is."""
    bone = end - start
    along = np.clip(((pixels - start) @ bone) / max(float(bone @ bone), 1e-9), 0, 1)
    return along, np.linalg.norm(pixels - start - along[..., None] * bone, axis=-1)


def _background(puppet: Puppet, pixels: Floats) -> Floats:
    x, y = pixels[..., 0], pixels[..., 1]
    if puppet.background == 0:  # meadow under a sky
        ground = 1 / (1 + np.exp(-(y - 0.35 - 0.05 * np.sin(5 * x)) * 30))
        sky, grass = np.array([0.6, 0.75, 0.85]), np.array([0.3, 0.5, 0.25])
        return sky + (grass - sky) * ground[..., None] + 0.04 * np.sin(17 * x + 11 * y)[..., None]
    clouds = 0.5 + 0.25 * np.sin(3 * x + 2 * y) + 0.2 * np.sin(7 * y - 4 * x)
    return np.stack([0.35 + 0.25 * clouds, 0.32 + 0.2 * clouds, 0.25 + 0.15 * clouds], axis=-1)


def write_clip(folder: Path, puppet: Puppet, motion: Motion, size: int) -> None:
    """Write `frames/00000.png` ... and `masks/00000.png` ... below `folder`."""
    for name in ("frames", "masks"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    for index, pose in enumerate(joints(puppet, motion)):
        picture, mask = render(puppet, pose, size)
        write_png(folder / "frames" / f"{index:05d}.png", picture)
        write_png(folder / "masks" / f"{index:05d}.png", np.repeat(mask[..., None], 3, axis=2))


def write_video(path: Path, puppet: Puppet, motion: Motion, size: int) -> None:
    """Write the walk as one video, without masks."""
    with VideoWriter(path, width=size, height=size, time_base=1 / RATE, rate=RATE, overwrite=True) as writer:
        for index, pose in enumerate(joints(puppet, motion)):
            writer.write(Frame(render(puppet, pose, size)[0], index, 1 / RATE))
