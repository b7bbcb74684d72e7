"""Two-legged walkers, seen from the side: a sailor and a gnome."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from jokr_rt.evaluation.puppets.drawing import Canvas, Colour, Paint, dotted, plain, striped, tapered
from jokr_rt.evaluation.puppets.motion import Floats, Motion, towards
from jokr_rt.evaluation.puppets.puppet import Puppet

SHOULDER = 0.86  # how far up the trunk arms hang
TRUNK = 0.5  # length of a trunk on the common stage, in half-widths of the frame
SIDES = ("near", "far")
Line = tuple[tuple[float, float], ...]


@dataclass(frozen=True)
class Walker(Puppet):
    """Proportions in trunk lengths: of thigh and shin, upper and lower arm each; head is a radius, as is thickness.

    hat, beard: middle lines of points, forward and upward of the middle of the head, in its radii; hat_thickness too.
    waist, hat_taper: shares of its thickness that the trunk has lost at the neck, the hat at its tip.
    """

    JOINTS: ClassVar[tuple[str, ...]] = (
        "hip", "neck", "head", "nose",
        *(f"{side} {joint}" for joint in ("elbow", "hand", "knee", "ankle", "toe") for side in SIDES),
    )  # fmt: skip

    leg: float = 0.66
    arm: float = 0.5
    head: float = 0.37
    foot: float = 0.24
    trunk_thickness: float = 0.24
    waist: float = 0.0
    limb_thickness: float = 0.115
    skin: Colour = (0.96, 0.76, 0.6)
    coat: Paint = dotted((0.93, 0.94, 0.96), (0.2, 0.35, 0.68), 5, 0)
    sleeve: Paint = dotted((0.93, 0.94, 0.96), (0.2, 0.35, 0.68), 1, 0)
    trousers: Paint = plain((0.22, 0.28, 0.46))
    shoe: Colour = (0.5, 0.28, 0.16)
    hair: Colour = (0.8, 0.42, 0.14)
    hat: Line = ((-0.55, 0.86), (0.5, 0.92))
    hat_thickness: float = 0.36
    hat_taper: float = 0.0
    hat_paint: Paint = plain((0.97, 0.97, 0.98))
    brim: Colour = (0.16, 0.3, 0.62)
    beard: Line = ()

    @staticmethod
    def program(frames: int, seed: int, gait: float) -> Motion:
        """See `Motion.stroll`."""
        return Motion.stroll(frames, seed, gait)

    def stage(self, motion: Motion) -> Floats:
        """See `Puppet.stage`."""
        a = motion.angles
        up, down = np.pi / 2 - a["trunk"], a["trunk"] * 0 - np.pi / 2
        found = {"hip": np.stack([a["x"] - 0.05, a["y"] + 0.3], axis=-1)}
        found["neck"] = towards(found["hip"], up, 1)
        found["head"] = towards(found["neck"], up + a["neck"], 0.12 + self.head)
        found["nose"] = towards(found["head"], up + a["neck"] - np.pi / 2, self.head)
        shoulder = towards(found["hip"], up, SHOULDER)
        for side in SIDES:
            arm, thigh = down + a[side + " arm"], down + a[side + " thigh"]
            elbow = found[side + " elbow"] = towards(shoulder, arm, self.arm)
            found[side + " hand"] = towards(elbow, arm + a[side + " elbow"], self.arm)
            shin = thigh - a[side + " knee"]
            knee = found[side + " knee"] = towards(found["hip"], thigh, self.leg)
            ankle = found[side + " ankle"] = towards(knee, shin, self.leg)
            found[side + " toe"] = towards(ankle, shin + 1.4 + a[side + " foot"], self.foot)
        return np.stack([found[name] for name in self.JOINTS], axis=1) * TRUNK

    def draw(self, canvas: Canvas, pose: Floats) -> None:
        """See `Puppet.draw`."""
        at = dict(zip(self.JOINTS, pose, strict=True))
        unit = TRUNK * self.scale
        self._arm(canvas, at, "far", 0.65)
        self._leg(canvas, at, "far", 0.65)
        self._leg(canvas, at, "near", 1)
        thickness = self.trunk_thickness * unit
        canvas.limb(np.stack([at["neck"], at["head"]]), 0.14 * unit, plain(self.skin), light=0.85)
        canvas.limb(np.stack([at["hip"], self._shoulder(at)]), thickness, self.coat, tapered(self.waist))
        self._face(canvas, at["head"], at["nose"], at["neck"])
        self._arm(canvas, at, "near", 1)

    def _leg(self, canvas: Canvas, at: dict[str, Floats], side: str, light: float) -> None:
        thickness = self.limb_thickness * TRUNK * self.scale
        knee, ankle = at[side + " knee"], at[side + " ankle"]
        canvas.limb(np.stack([ankle, at[side + " toe"]]), thickness, plain(self.shoe), light=light)
        canvas.limb(np.stack([at["hip"], knee, ankle]), 1.25 * thickness, self.trousers, tapered(0.25), light)

    def _arm(self, canvas: Canvas, at: dict[str, Floats], side: str, light: float) -> None:
        thickness = self.limb_thickness * TRUNK * self.scale
        elbow, hand = at[side + " elbow"], at[side + " hand"]
        wrist = elbow + 0.75 * (hand - elbow)
        canvas.disc(hand, 0.95 * thickness, plain(self.skin), light=light)
        canvas.limb(np.stack([self._shoulder(at), elbow, wrist]), thickness, self.sleeve, tapered(0.15), light)

    def _shoulder(self, at: dict[str, Floats]) -> Floats:
        return np.asarray(at["hip"] + SHOULDER * (at["neck"] - at["hip"]))

    def _face(self, canvas: Canvas, head: Floats, nose: Floats, neck: Floats) -> None:
        front = nose - head  # of the head's radius
        up = (head - neck) * float(np.linalg.norm(front) / np.linalg.norm(head - neck))
        radius = self.head * TRUNK * self.scale

        def line(*points: tuple[float, float]) -> Floats:
            return np.stack([head + forward * front + upward * up for forward, upward in points])

        canvas.limb(line((-0.3, 0.15), (-0.5, -0.4)), 0.85 * radius, plain(self.hair), tapered(0.4))
        canvas.disc(line((0.08, -0.02))[0], 0.94 * radius, plain(self.skin))
        if self.beard:
            fleece = striped(self.hair, (0.76, 0.78, 0.84), 2)
            canvas.limb(line(*self.beard), 0.66 * radius, fleece, tapered(0.7))
        canvas.disc(line((1.0, -0.08))[0], 0.26 * radius, plain((0.95, 0.6, 0.47)))
        canvas.disc(line((0.5, 0.04))[0], 0.2 * radius, plain((0.97, 0.97, 0.97)))
        canvas.disc(line((0.58, 0.04))[0], 0.12 * radius, plain((0.22, 0.15, 0.12)))
        canvas.limb(line(*self.hat), self.hat_thickness * radius, self.hat_paint, tapered(self.hat_taper))
        canvas.limb(line((-0.8, 0.42), (0.8, 0.5)), 0.17 * radius, plain(self.brim))


SAILOR = Walker(background=2)
GNOME = Walker(
    leg=0.54, arm=0.48, head=0.42, foot=0.3, trunk_thickness=0.4, waist=0.4, limb_thickness=0.14,
    coat=dotted((0.2, 0.55, 0.32), (0.95, 0.85, 0.4), 2.5, 2), sleeve=plain((0.95, 0.8, 0.42)),
    trousers=striped((0.55, 0.36, 0.62), (0.75, 0.58, 0.8), 5), shoe=(0.45, 0.25, 0.14), hair=(0.95, 0.95, 0.97),
    hat=((-0.05, 0.85), (-0.3, 1.9), (-0.95, 2.5)), hat_thickness=0.7, hat_taper=0.85,
    hat_paint=striped((0.85, 0.16, 0.16), (0.95, 0.5, 0.3), 3.5), brim=(0.95, 0.95, 0.97),
    beard=((0.35, -0.62), (0.45, -1.2), (0.3, -1.9)), degrees=12.0, scale=0.8, shift=(0.04, 0.1), background=3,
)  # fmt: skip
