"""Four-legged walkers: the brown puppet and the blue one."""

from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np

from jokr_rt.evaluation.puppets.drawing import Canvas, Colour, striped, tapered
from jokr_rt.evaluation.puppets.motion import Floats, Motion, towards
from jokr_rt.evaluation.puppets.puppet import Puppet

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
class Quadruped(Puppet):
    """Proportions in body lengths."""

    JOINTS: ClassVar[tuple[str, ...]] = JOINTS

    leg: float = 0.62
    neck: float = 0.34
    head: float = 0.26
    tail: float = 0.55
    thickness: dict[str, float] = field(
        default_factory=lambda: {"body": 0.21, "neck": 0.13, "head": 0.14, "leg": 0.09, "far leg": 0.085, "tail": 0.06}
    )
    colour: Colour = (0.85, 0.5, 0.2)
    stripes: Colour = (0.45, 0.2, 0.08)
    stripe_width: float = 0.11

    @staticmethod
    def program(frames: int, seed: int, gait: float) -> Motion:
        """See `Motion.walk`."""
        return Motion.walk(frames, seed, gait)

    def stage(self, motion: Motion) -> Floats:
        """See `Puppet.stage`."""
        a = motion.angles
        middle = np.stack([a["x"], a["y"] - 0.12], axis=-1)
        found = {"hip": towards(middle, a["body"] + np.pi, 0.5), "shoulder": towards(middle, a["body"], 0.5)}
        found["neck"] = towards(found["shoulder"], a["body"] + a["neck"], self.neck)
        found["head"] = towards(found["neck"], a["body"] + a["head"], self.head)
        found["tail"] = towards(found["hip"], a["body"] + a["tail"], self.tail)
        for leg in ("near fore", "near hind", "far fore", "far hind"):
            top, bend = ("shoulder", -1) if leg.endswith("fore") else ("hip", 1)
            thigh = a[leg] - np.pi / 2
            knee = found[leg + " knee"] = towards(found[top], thigh, self.leg * 0.55)
            found[leg + " foot"] = towards(knee, thigh + bend * a[leg + " knee"] * 0.8, self.leg * 0.55)
        return np.stack([found[name] for name in JOINTS], axis=1) * BODY

    def draw(self, canvas: Canvas, pose: Floats) -> None:
        """See `Puppet.draw`."""
        unit = BODY * self.scale
        for start, end, part in BONES:
            length = float(np.linalg.norm(pose[end] - pose[start])) / unit
            periods = length / (2 * self.stripe_width)
            paint = striped(self.colour, self.stripes, periods, 0.25 if part == "head" else 1)
            profile = tapered(0.35) if part in ("tail", "leg", "far leg") else None
            light = 0.6 if part == "far leg" else 1
            canvas.limb(pose[[start, end]], self.thickness[part] * unit, paint, profile, light)


BROWN = Quadruped()
BLUE = Quadruped(
    leg=0.5, neck=0.42, head=0.34, tail=0.8,
    thickness={"body": 0.17, "neck": 0.1, "head": 0.12, "leg": 0.085, "far leg": 0.08, "tail": 0.11},
    colour=(0.35, 0.55, 0.85), stripes=(0.92, 0.94, 0.98), stripe_width=0.3,
    degrees=20.0, scale=0.75, shift=(0.1, 0.06), background=1,
)  # fmt: skip
