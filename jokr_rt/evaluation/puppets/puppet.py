"""What puppets of every family have: a place in the frame, true joints and a picture of each pose."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from jokr_rt.evaluation.puppets.backgrounds import BACKGROUNDS
from jokr_rt.evaluation.puppets.drawing import Canvas
from jokr_rt.evaluation.puppets.motion import Floats, Motion


@dataclass(frozen=True)
class Puppet(ABC):
    """A puppet's place in the frame; its proportions and colours are those of its family.

    degrees, scale, shift: the affine map from the common stage to this puppet's frame, in half-widths. mirrored:
    all that about the frame's middle, so that it faces left. background: which of BACKGROUNDS.
    """

    JOINTS: ClassVar[tuple[str, ...]]
    """Names; from the first to the second is a body's length."""

    degrees: float = 0.0
    scale: float = 1.0
    shift: tuple[float, float] = (0.0, 0.0)
    mirrored: bool = False
    background: int = 0

    @staticmethod
    @abstractmethod
    def program(frames: int, seed: int, gait: float) -> Motion:
        """What the family's puppets go through."""

    @abstractmethod
    def stage(self, motion: Motion) -> Floats:
        """Joints (T, J, 2) as (x, y) on the common stage, in the order of JOINTS."""

    @abstractmethod
    def draw(self, canvas: Canvas, pose: Floats) -> None:
        """Draw one pose (J, 2), given in the puppet's frame."""


def joints(puppet: Puppet, motion: Motion) -> Floats:
    """True joints (T, J, 2) as (x, y) in [-1, 1] of the puppet's frame, in the order of its JOINTS."""
    return puppet.stage(motion) @ placement(puppet)[:, :2].T + placement(puppet)[:, 2]


def body_length(poses: Floats) -> Floats:
    """From the first joint to the second in poses (T, J, 2): (T,), in half-widths of the frame."""
    return np.asarray(np.linalg.norm(poses[:, 1] - poses[:, 0], axis=-1))


def placement(puppet: Puppet) -> Floats:
    """The affine map (2, 3) from the common stage to the puppet's frame."""
    angle = np.radians(puppet.degrees)
    turn = puppet.scale * np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    place = np.concatenate([turn, np.array(puppet.shift)[:, None]], axis=1)
    return place * [[-1], [1]] if puppet.mirrored else place


def true_theta(source: Puppet, target: Puppet) -> Floats:
    """The map (2, 3) from the target's frame to the source's: what an ideal spatial transformer predicts.

    Its determinant is negative where one of the two is mirrored.
    """
    there, here = placement(source), placement(target)
    linear = there[:, :2] @ np.linalg.inv(here[:, :2])
    return np.concatenate([linear, (there[:, 2] - linear @ here[:, 2])[:, None]], axis=1)


def render(puppet: Puppet, pose: Floats, size: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Draw one pose (J, 2), anti-aliased: RGB (size, size, 3) before a background, mask (size, size), both uint8."""
    canvas = Canvas(BACKGROUNDS[puppet.background], size)
    puppet.draw(canvas, pose)
    return canvas.finish()
