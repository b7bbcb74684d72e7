"""Affine maps: algebra against numpy, and images and points move alike."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from jokr_rt.training.geometry import compose, inverse, random_affine, transform, warp
from jokr_rt.training.networks import affine_grid_sample, render_heatmaps, soft_argmax

entries = st.floats(-0.4, 0.4)
maps = st.lists(entries, min_size=6, max_size=6).map(
    lambda values: torch.tensor(values, dtype=torch.float64).reshape(1, 2, 3) + torch.eye(2, 3, dtype=torch.float64)
)
points = st.lists(st.floats(-1, 1), min_size=6, max_size=6).map(
    lambda values: torch.tensor(values, dtype=torch.float64).reshape(1, 3, 2)
)


def homogeneous(theta: torch.Tensor) -> np.ndarray:
    return np.vstack([theta[0].numpy(), [0, 0, 1]])


@given(maps, maps, points)
def test_composition_applies_the_inner_map_first(outer, inner, places):
    torch.testing.assert_close(transform(compose(outer, inner), places), transform(outer, transform(inner, places)))
    np.testing.assert_allclose(homogeneous(compose(outer, inner)), homogeneous(outer) @ homogeneous(inner), atol=1e-12)


@given(maps, points)
def test_the_inverse_undoes_a_map(theta, places):
    np.testing.assert_allclose(homogeneous(inverse(theta)), np.linalg.inv(homogeneous(theta)), atol=1e-9)
    torch.testing.assert_close(transform(inverse(theta), transform(theta, places)), places)


def test_the_inverse_of_a_collapsed_map_is_finite():
    assert inverse(torch.zeros(1, 2, 3)).isfinite().all()


@given(st.integers(0, 2**31))
def test_random_maps_keep_up_up_and_have_the_spread_asked_for(seed):
    torch.manual_seed(seed)
    theta = random_affine(4000, torch.zeros(1), degrees=15, scale=0.15, shift=0.15)
    angles = torch.rad2deg(torch.atan2(theta[:, 1, 0], theta[:, 0, 0]))
    determinants = theta[:, 0, 0] * theta[:, 1, 1] - theta[:, 0, 1] * theta[:, 1, 0]
    assert angles.abs().max() <= 30.01
    assert 12 < angles.std() < 15.5
    assert np.exp(-0.61) < determinants.min() < determinants.max() < np.exp(0.61)
    assert 0.12 < theta[:, :, 2].std() < 0.155


@given(maps, st.lists(st.floats(-0.4, 0.4), min_size=4, max_size=4))
def test_a_heatmap_and_its_keypoint_move_alike(theta, place):
    keypoint = torch.tensor(place, dtype=torch.float64).reshape(1, 2, 2)
    warped = affine_grid_sample(render_heatmaps(keypoint, 64), theta)
    moved = transform(inverse(theta), keypoint)
    inside = (moved.abs() < 0.5).all(-1)
    peaks = soft_argmax(warped * 5)[0]
    assert (peaks - moved)[inside].abs().max().item() < 0.04 if inside.any() else True


def test_an_image_shows_at_p_what_stood_at_theta_of_p():
    image = torch.zeros(1, 1, 8, 8)
    image[0, 0, 2, 5] = 1  # x = 0.375, y = -0.375
    half_a_width_left = torch.tensor([[[1.0, 0, 0.5], [0, 1, 0]]])
    assert warp(image, half_a_width_left)[0, 0, 2, 3] == pytest.approx(1)
