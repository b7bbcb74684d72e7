"""The data set with ground truth must be true."""

import subprocess
import sys
from itertools import combinations

import numpy as np
import pytest

from jokr_rt.evaluation import metrics
from jokr_rt.evaluation.puppets import (
    BLUE,
    BROWN,
    FAMILIES,
    JOINTS,
    PUPPETS,
    TEST,
    TRAINING,
    Motion,
    body_length,
    family_of,
    joints,
    placement,
    render,
    true_theta,
    write_clip,
)
from jokr_rt.video import open_masks, open_video
from tests.perfect import twins
from tests.process import ROOT
from tests.tolerances import EXACT

SIZE = 64
CREATURES = {name: puppet for family in FAMILIES.values() for name, puppet in family.items()}
every_creature = pytest.mark.parametrize("puppet", CREATURES.values(), ids=CREATURES)
every_family = pytest.mark.parametrize("family", FAMILIES)


@every_creature
def test_the_same_seed_moves_the_same_way_and_another_does_not(puppet):
    first, again, other = (joints(puppet, puppet.program(20, seed, 1.0)) for seed in (5, 5, 6))
    assert np.array_equal(first, again)
    assert np.abs(first - other).max() > 0.1
    assert first.shape == (20, len(puppet.JOINTS), 2)


@every_creature
@pytest.mark.parametrize("gait", [0.6, 1.0, 1.5])
def test_puppets_stay_in_the_frame(puppet, gait):
    assert np.abs(joints(puppet, puppet.program(300, 9, gait))).max() < 1


def test_a_bone_keeps_its_length_in_the_puppets_own_scale():
    motion = Motion.walk(30, seed=2)
    for puppet in PUPPETS.values():
        pose = joints(puppet, motion)
        body = np.linalg.norm(pose[:, JOINTS.index("hip")] - pose[:, JOINTS.index("shoulder")], axis=-1)
        np.testing.assert_allclose(body, 0.78 * puppet.scale, rtol=1e-9)
        assert np.array_equal(body, body_length(pose))
    for puppet in FAMILIES["walker"].values():
        np.testing.assert_allclose(
            body_length(joints(puppet, Motion.stroll(30, seed=2))), 0.5 * puppet.scale, rtol=1e-9
        )
    for puppet in FAMILIES["flower"].values():  # a stem bends, and is shorter then
        length = body_length(joints(puppet, Motion.sway(30, seed=2)))
        assert 0.9 * puppet.stem * puppet.scale < length.min() < length.max() < puppet.stem * puppet.scale


def test_the_four_legged_puppets_are_those_that_models_were_trained_on():
    expected = {
        "brown": ((0.8686698266289212, -0.29351656993584196), 139.11775716145834, 39.418212890625),
        "blue": ((0.7024246305018844, -0.4327550174630485), 108.560791015625, 20.18017578125),
    }
    for name, puppet in PUPPETS.items():
        pose = joints(puppet, TRAINING.motion())[100]
        assert pose[JOINTS.index("head")] == pytest.approx(expected[name][0], abs=1e-9)
        picture, mask = render(puppet, pose, SIZE)
        # Where a processor rounds another way, a pixel may differ by a level.
        assert picture.mean() == pytest.approx(expected[name][1], abs=1e-3)
        assert mask.mean() == pytest.approx(expected[name][2], abs=1e-3)


def test_the_true_map_takes_the_target_frame_to_the_source_frame():
    motion = Motion.walk(10, seed=3)
    # The hips of both puppets come from the same place on the common stage.
    here, there = (joints(puppet, motion)[:, JOINTS.index("hip")] for puppet in (BLUE, BROWN))
    theta = true_theta(BROWN, BLUE)
    np.testing.assert_allclose(here @ theta[:, :2].T + theta[:, 2], there, atol=1e-12)
    assert np.degrees(np.arctan2(theta[1, 0], theta[0, 0])) == pytest.approx(20)
    assert np.sqrt(np.linalg.det(theta[:, :2])) == pytest.approx(1 / 0.75)
    np.testing.assert_allclose(true_theta(BROWN, BROWN), np.eye(2, 3), atol=1e-12)
    assert placement(BLUE).shape == (2, 3)


@every_family
def test_the_true_map_takes_every_joint_to_its_partner_where_proportions_are_equal(family):
    first, second = twins(family).values()
    here, there = (joints(puppet, TEST.motion(puppet.program)) for puppet in (second, first))
    theta = true_theta(first, second)
    np.testing.assert_allclose(here @ theta[:, :2].T + theta[:, 2], there, atol=EXACT)
    assert (np.linalg.det(theta[:, :2]) < 0) == family.endswith("-mirrored")


@every_creature
def test_joints_lie_on_the_mask(puppet):
    poses = joints(puppet, TEST.motion(puppet.program))[::8]
    masks = np.stack([render(puppet, pose, SIZE)[1] for pose in poses])
    assert metrics.share_on(masks > 127, poses) == 1
    assert 0.05 < (masks > 127).mean() < 0.3


@every_creature
def test_the_mask_is_where_the_puppet_is(puppet):
    pose = joints(puppet, puppet.program(1, 4, 1.0))[0]
    picture, mask = render(puppet, pose, SIZE)
    assert mask[0, 0] == 0
    elsewhere, nothing = render(puppet, pose + 10, SIZE)  # the background alone
    assert not nothing.any()
    assert np.array_equal(picture[mask == 0], elsewhere[mask == 0])
    assert (picture[mask == 255] != elsewhere[mask == 255]).any(-1).mean() > 0.99
    # All but pupils and the like can be told from black.
    assert metrics.silhouettes(picture[None])[0][mask == 255].mean() > 0.99


@every_family
def test_the_two_of_a_family_differ_in_proportions_looks_and_background(family):
    first, second = FAMILIES[family].values()
    poses = [joints(puppet, TEST.motion(puppet.program))[0] for puppet in (first, second)]
    theta = true_theta(first, second)
    assert np.abs(poses[1] @ theta[:, :2].T + theta[:, 2] - poses[0]).max() > 0.05
    drawn = [render(puppet, pose, SIZE) for puppet, pose in zip((first, second), poses, strict=True)]
    colours = [picture[mask == 255].mean(0) for picture, mask in drawn]
    assert np.abs(colours[0] - colours[1]).max() > 20
    corners = [picture[0, 0].astype(int) for picture, _ in drawn]
    assert np.abs(corners[0] - corners[1]).max() > 10


@pytest.mark.parametrize("family", ["quadruped", "walker", "flower"])
def test_a_mirrored_puppet_is_the_mirror_picture(family):
    _, (name, puppet) = FAMILIES[family].items()
    mirrored = FAMILIES[f"{family}-mirrored"][f"{name}-mirrored"]
    motion = puppet.program(3, 1, 1.0)
    for pose, other in zip(joints(puppet, motion), joints(mirrored, motion), strict=True):
        np.testing.assert_allclose(other, pose * [-1, 1], atol=EXACT)
        (picture, mask), (flipped, flipped_mask) = render(puppet, pose, SIZE), render(mirrored, other, SIZE)
        assert np.abs(flipped_mask[:, ::-1].astype(int) - mask).max() <= 1  # rounding
        inside = mask == 255
        assert np.abs(flipped[:, ::-1].astype(int) - picture)[inside].max() <= 1


def test_a_family_is_told_by_the_names_of_its_two():
    assert all(family_of(tuple(family)[::-1]) is family for family in FAMILIES.values())
    assert family_of(("sailor", "daisy")) is PUPPETS
    pairs = [set(family) for family in FAMILIES.values()]
    assert all(one != other for one, other in combinations(pairs, 2))


def test_a_written_clip_reads_back(tmp_path):
    motion = Motion.walk(4, seed=1)
    write_clip(tmp_path, BLUE, motion, SIZE)
    with open_video(tmp_path / "frames") as frames, open_masks(tmp_path / "masks") as masks:
        for pose, frame, mask in zip(joints(BLUE, motion), frames, masks, strict=True):
            picture, matte = render(BLUE, pose, SIZE)
            assert np.array_equal(frame.rgb, picture)
            assert np.array_equal(mask, matte >= 128)


def test_the_example_writes_a_family_with_its_truth(tmp_path):
    arguments = [str(tmp_path), "--family", "walker-mirrored", "--frames", "3", "--size", "64", "--seed", "5"]
    subprocess.run([sys.executable, ROOT / "examples" / "puppets.py", *arguments], check=True)
    family = FAMILIES["walker-mirrored"]
    with np.load(tmp_path / "truth.npz") as truth:
        for name, puppet in family.items():
            poses = joints(puppet, puppet.program(3, 5, 1.0))
            np.testing.assert_allclose(truth[f"joints_{name}"], poses, atol=EXACT)
            with open_video(tmp_path / name / "frames") as frames:
                written = np.stack([frame.rgb for frame in frames])
            assert np.array_equal(written, np.stack([render(puppet, pose, 64)[0] for pose in poses]))
        np.testing.assert_allclose(truth["theta_a2b"], true_theta(*family.values()), atol=EXACT)
        np.testing.assert_allclose(truth["theta_b2a"], true_theta(*list(family.values())[::-1]), atol=EXACT)
