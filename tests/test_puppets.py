"""The data set with ground truth must be true."""

import numpy as np
import pytest

from jokr_rt.evaluation.puppets import (
    BLUE,
    BROWN,
    JOINTS,
    PUPPETS,
    Motion,
    joints,
    placement,
    render,
    true_theta,
    write_clip,
)
from jokr_rt.video import open_masks, open_video

SIZE = 64


def test_the_same_seed_walks_the_same_way_and_another_does_not():
    first, again, other = (joints(BROWN, Motion.walk(20, seed)) for seed in (5, 5, 6))
    assert np.array_equal(first, again)
    assert np.abs(first - other).max() > 0.1
    assert first.shape == (20, len(JOINTS), 2)


@pytest.mark.parametrize("gait", [0.6, 1.0, 1.5])
def test_puppets_stay_in_the_frame(gait):
    for puppet in PUPPETS.values():
        assert np.abs(joints(puppet, Motion.walk(300, seed=9, gait=gait))).max() < 1


def test_a_bone_keeps_its_length_in_the_puppets_own_scale():
    motion = Motion.walk(30, seed=2)
    for puppet in PUPPETS.values():
        pose = joints(puppet, motion)
        body = np.linalg.norm(pose[:, JOINTS.index("hip")] - pose[:, JOINTS.index("shoulder")], axis=-1)
        np.testing.assert_allclose(body, 0.78 * puppet.scale, rtol=1e-9)


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


def test_the_mask_is_where_the_puppet_is():
    pose = joints(BROWN, Motion.walk(1, seed=4))[0]
    picture, mask = render(BROWN, pose, SIZE)
    column, row = ((pose[JOINTS.index("shoulder")] + 1) * SIZE / 2).astype(int)
    assert mask[row, column] == 255
    assert mask[0, 0] == 0
    assert 0.05 < (mask > 127).mean() < 0.3
    elsewhere, _ = render(BROWN, pose + 10, SIZE)  # the background alone
    assert np.array_equal(picture[mask == 0], elsewhere[mask == 0])
    assert (picture[mask == 255] != elsewhere[mask == 255]).any(-1).mean() > 0.99


def test_a_written_clip_reads_back(tmp_path):
    motion = Motion.walk(4, seed=1)
    write_clip(tmp_path, BLUE, motion, SIZE)
    with open_video(tmp_path / "frames") as frames, open_masks(tmp_path / "masks") as masks:
        for pose, frame, mask in zip(joints(BLUE, motion), frames, masks, strict=True):
            picture, matte = render(BLUE, pose, SIZE)
            assert np.array_equal(frame.rgb, picture)
            assert np.array_equal(mask, matte >= 128)
