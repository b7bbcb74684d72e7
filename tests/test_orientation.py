"""Which way creatures face, on puppets: both walk to the right."""

import numpy as np
import pytest
import torch

from jokr_rt.evaluation.puppets import BLUE, BROWN, Motion, Puppet, joints, render
from jokr_rt.training.data import Clip
from jokr_rt.training.orientation import SURE, Facing, facing

SIZE = 128
PIXELS = 0.03  # of a cosine: turning and cutting out at whole pixels is not the same from the left as from the right


def clip(puppet: Puppet) -> Clip:
    pictures = [np.dstack(render(puppet, pose, SIZE)) for pose in joints(puppet, Motion.walk(4))]
    return Clip("puppet", torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).contiguous(), has_masks=True)


def mirrored(creature: Clip) -> Clip:
    return Clip("mirrored", creature.frames.flip(-1), has_masks=True)


@pytest.fixture(scope="module")
def brown() -> Clip:
    return clip(BROWN)


def test_different_creatures_that_face_the_same_way_or_opposite_ways(brown: Clip) -> None:
    blue = clip(BLUE)
    same, opposite = facing(brown, blue), facing(brown, mirrored(blue))
    assert same.sure
    assert not same.opposite
    assert opposite.sure
    assert opposite.opposite
    assert opposite.margin == pytest.approx(-same.margin, abs=PIXELS)


def test_a_creature_faces_as_it_does_and_its_mirror_image_does_not(brown: Clip) -> None:
    assert facing(brown, brown).margin == pytest.approx(1, abs=1e-5)
    assert facing(brown, mirrored(brown)).margin == pytest.approx(-1, abs=PIXELS)


def test_a_creature_that_turns_about_halfway_leaves_no_one_sure(brown: Clip) -> None:
    turning = Clip("turning", torch.cat([brown.frames, mirrored(brown).frames]), has_masks=True)
    assert not facing(brown, turning).sure


def test_frames_without_the_creature_are_not_looked_at(brown: Clip) -> None:
    empty = torch.cat([torch.full((4, 3, SIZE, SIZE), 200), torch.zeros(4, 1, SIZE, SIZE)], dim=1).to(torch.uint8)
    apart = Clip("away at first", torch.cat([empty, brown.frames]), has_masks=True)
    assert facing(brown, apart).margin == pytest.approx(1, abs=1e-5)


def test_sure_is_a_margin_either_way() -> None:
    assert [Facing(margin).sure for margin in (-SURE, 0.9 * SURE, SURE)] == [True, False, True]
    assert [Facing(margin).opposite for margin in (-SURE, 0.0, SURE)] == [True, False, False]
