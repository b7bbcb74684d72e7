"""Puppets with ground truth: data sets that tests, demo and evaluation share.

The two puppets of a family differ in proportions, texture, scale and orientation, and go through the same motion
program, so the true partner of every frame, the true joints and the true affine map are known.
"""

from collections.abc import Mapping
from dataclasses import replace

from jokr_rt.evaluation.puppets.clips import RATE, write_clip, write_video
from jokr_rt.evaluation.puppets.flower import DAISY, TULIP
from jokr_rt.evaluation.puppets.motion import PROBE, TEST, TRAINING, Floats, Motion, Walk
from jokr_rt.evaluation.puppets.puppet import Puppet, body_length, joints, placement, render, true_theta
from jokr_rt.evaluation.puppets.quadruped import BLUE, BROWN, JOINTS
from jokr_rt.evaluation.puppets.walker import GNOME, SAILOR

__all__ = [
    "BLUE", "BROWN", "FAMILIES", "JOINTS", "PROBE", "PUPPETS", "RATE", "TEST", "TRAINING",
    "Family", "Floats", "Motion", "Puppet", "Walk",
    "body_length", "family_of", "joints", "placement", "render", "true_theta", "write_clip", "write_video",
]  # fmt: skip

Family = Mapping[str, Puppet]
"""Two creatures of one class by their names; no other family has both names."""

PUPPETS: Family = {"brown": BROWN, "blue": BLUE}
FAMILIES: dict[str, Family] = {
    "quadruped": PUPPETS,
    "walker": {"sailor": SAILOR, "gnome": GNOME},
    "flower": {"daisy": DAISY, "tulip": TULIP},
}


def _mirrored(family: Family) -> Family:
    """The same with the second creature facing the other way."""
    (first, puppet), (second, other) = family.items()
    return {first: puppet, f"{second}-mirrored": replace(other, mirrored=True)}


FAMILIES |= {f"{name}-mirrored": _mirrored(family) for name, family in FAMILIES.items()}


def family_of(names: tuple[str, str]) -> Family:
    """The family whose two creatures have these names; the four-legged one where there is none."""
    return next((family for family in FAMILIES.values() if set(family) == set(names)), PUPPETS)
