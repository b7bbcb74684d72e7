"""Flowers that sway: a daisy and a tulip."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from jokr_rt.evaluation.puppets.drawing import Canvas, Paint, bulging, dotted, plain, streaked, striped, tapered, veined
from jokr_rt.evaluation.puppets.motion import Floats, Motion, towards
from jokr_rt.evaluation.puppets.puppet import Puppet

STEM = 1.0  # length of a stem on the common stage, in half-widths of the frame
STALK = ("root", "low", "middle", "high", "blossom")


@dataclass(frozen=True)
class Flower(Puppet):
    """Proportions in lengths of the stage's stem.

    petals: an odd number, from the left one over the top one to the right one. spread: degrees from the top
    one to either, where "open" is 1.
    """

    JOINTS: ClassVar[tuple[str, ...]] = (
        "root", "blossom", "low", "middle", "high", "left leaf", "left tip", "right leaf", "right tip",
        "left petal", "top petal", "right petal",
    )  # fmt: skip

    stem: float = 1.02
    leaf: float = 0.27
    leaf_thickness: float = 0.11
    petal: float = 0.37
    petals: int = 11
    spread: float = 125.0
    petal_thickness: float = 0.088
    heart: float = 0.16
    stalk_paint: Paint = striped((0.36, 0.58, 0.25), (0.5, 0.7, 0.32), 7)
    leaf_paint: Paint = veined((0.33, 0.57, 0.22), (0.6, 0.78, 0.4), 2.5)
    petal_paint: Paint = streaked((0.97, 0.97, 0.99), (0.75, 0.78, 0.95), 0.8)
    heart_paint: Paint = dotted((0.95, 0.72, 0.15), (0.8, 0.45, 0.1), 3, 3)

    @staticmethod
    def program(frames: int, seed: int, gait: float) -> Motion:
        """See `Motion.sway`."""
        return Motion.sway(frames, seed, gait)

    def stage(self, motion: Motion) -> Floats:
        """See `Puppet.stage`."""
        a = motion.angles
        up = a["low"] * 0 + np.pi / 2
        found = {"root": np.stack([0 * up, 0 * up + 0.74], axis=-1)}
        direction = up
        for below, joint in zip(STALK[:-1], STALK[1:], strict=True):
            direction = direction + a[joint]
            found[joint] = towards(found[below], direction, self.stem / 4)
            for side, sign, base in (("left", 1, "low"), ("right", -1, "middle")):
                if joint == base:
                    leaf = direction + sign * a[side + " leaf"]
                    found[side + " leaf"] = towards(found[base], leaf, self.leaf)
                    found[side + " tip"] = towards(found[side + " leaf"], leaf + sign * a[side + " tip"], self.leaf)
        spread = np.radians(self.spread) * a["open"]
        for petal, sign in (("left petal", 1), ("top petal", 0), ("right petal", -1)):
            found[petal] = towards(found["blossom"], direction + a["nod"] + sign * spread, self.petal)
        return np.stack([found[name] for name in self.JOINTS], axis=1) * STEM

    def draw(self, canvas: Canvas, pose: Floats) -> None:
        """See `Puppet.draw`."""
        at = dict(zip(self.JOINTS, pose, strict=True))
        unit = STEM * self.scale
        curve = _smooth(np.stack([at[name] for name in STALK]))
        canvas.limb(curve, 0.055 * unit, self.stalk_paint, tapered(0.35))
        for side, base in (("left", "low"), ("right", "middle")):
            blade = np.stack([at[base], at[side + " leaf"], at[side + " tip"]])
            canvas.limb(_smooth(blade), self.leaf_thickness * unit, self.leaf_paint, bulging(0.3, 0.3))
        self._blossom(canvas, at, unit)

    def _blossom(self, canvas: Canvas, at: dict[str, Floats], unit: float) -> None:
        middle, top = at["blossom"], at["top petal"] - at["blossom"]
        canvas.disc(middle - 0.12 * top, 0.8 * self.heart * unit, self.stalk_paint)
        angle = _angle(top, at["left petal"] - middle)
        shares = np.linspace(-1, 1, self.petals)
        for share in sorted(shares, key=abs, reverse=True):
            turn = angle * share
            tip = middle + np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]]) @ top
            canvas.limb(np.stack([middle, tip]), self.petal_thickness * unit, self.petal_paint, bulging(0.5, 0.5))
        canvas.disc(middle, self.heart * unit, self.heart_paint)


def _angle(first: Floats, second: Floats) -> float:
    """From the first (2,) to the second, radians."""
    return float(np.arctan2(first[0] * second[1] - first[1] * second[0], first @ second))


def _smooth(points: Floats, steps: int = 4) -> Floats:
    """A Catmull-Rom curve through points (N, 2), `steps` pieces between two neighbours."""
    ends = np.concatenate([2 * points[:1] - points[1:2], points, 2 * points[-1:] - points[-2:-1]])
    before, here, there, after = (ends[index : index + len(points) - 1, None] for index in range(4))
    t = np.linspace(0, 1, steps, endpoint=False)[:, None]
    bend = t**2 * (2 * before - 5 * here + 4 * there - after) + t**3 * (3 * here - before - 3 * there + after)
    return np.concatenate([(here + (t * (there - before) + bend) / 2).reshape(-1, 2), points[-1:]])


DAISY = Flower(scale=0.95, shift=(0.0, 0.02), background=4)
TULIP = Flower(
    stem=0.84, leaf=0.34, leaf_thickness=0.09, petal=0.44, petals=3, spread=30.0, petal_thickness=0.19, heart=0.07,
    stalk_paint=striped((0.3, 0.5, 0.36), (0.42, 0.6, 0.46), 9),
    leaf_paint=striped((0.28, 0.5, 0.38), (0.5, 0.7, 0.55), 3),
    petal_paint=streaked((0.88, 0.18, 0.25), (0.98, 0.75, 0.25), 0.9), heart_paint=plain((0.3, 0.5, 0.36)),
    degrees=13.0, scale=0.85, shift=(0.04, 0.05), background=5,
)  # fmt: skip
