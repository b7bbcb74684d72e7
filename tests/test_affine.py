"""Maps of the plane: algebra against numpy, and images and points move alike."""

import numpy as np
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st

from jokr_rt.training.affine import (
    MIN_DETERMINANT,
    SmoothWarp,
    compose,
    determinant,
    inverse,
    random_affine,
    transform,
    warp,
)
from jokr_rt.training.networks import affine_grid_sample, cell_centres, render_heatmaps, soft_argmax

entries = st.floats(-0.4, 0.4)
maps = st.lists(entries, min_size=6, max_size=6).map(
    lambda values: torch.tensor(values, dtype=torch.float64).reshape(1, 2, 3) + torch.eye(2, 3, dtype=torch.float64)
)
points = st.lists(st.floats(-1, 1), min_size=6, max_size=6).map(
    lambda values: torch.tensor(values, dtype=torch.float64).reshape(1, 3, 2)
)


seeds = st.integers(0, 2**31)


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def homogeneous(theta: torch.Tensor) -> np.ndarray:
    return np.vstack([theta[0].numpy(), [0, 0, 1]])


@given(maps, maps, points)
def test_composition_applies_the_inner_map_first(outer, inner, places):
    torch.testing.assert_close(transform(compose(outer, inner), places), transform(outer, transform(inner, places)))
    np.testing.assert_allclose(homogeneous(compose(outer, inner)), homogeneous(outer) @ homogeneous(inner), atol=1e-12)


signs = st.sampled_from([1.0, -1.0])


def signed(theta: torch.Tensor, sign: float) -> torch.Tensor:
    """The map after x was mirrored, where `sign` is negative."""
    mirroring = torch.eye(2, 3, dtype=torch.float64)[None].clone()
    mirroring[0, 0, 0] = sign
    return compose(theta, mirroring)


@given(maps, signs)
def test_the_determinant_is_the_change_of_areas_negative_where_it_mirrors(theta, sign):
    theta = signed(theta, sign)
    assert determinant(theta).shape == (1,)
    assert determinant(theta).item() == pytest.approx(np.linalg.det(theta[0, :, :2].numpy()))
    assert determinant(theta).sign() == sign


@given(maps, points, signs)
def test_the_inverse_undoes_a_map_mirroring_or_not(theta, places, sign):
    theta = signed(theta, sign)
    np.testing.assert_allclose(homogeneous(inverse(theta)), np.linalg.inv(homogeneous(theta)), atol=1e-9)
    torch.testing.assert_close(transform(inverse(theta), transform(theta, places)), places)


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_the_inverse_of_a_nearly_collapsed_map_is_bounded_and_mirrors_where_it_does(sign):
    assert inverse(torch.zeros(1, 2, 3)).isfinite().all()
    flat = torch.tensor([[[0.5, 0.0, 0.0], [0.0, sign * 0.001, 0.0]]])
    found = inverse(flat)
    expected = torch.tensor([[[0.001, 0, 0], [0, sign * 0.5, 0]]]) / MIN_DETERMINANT
    torch.testing.assert_close(found, expected)
    assert determinant(found).sign() == sign


def test_points_that_are_not_numbers_stay_so_and_their_gradient_is_one():
    """It ended the process, in `grid_sample`."""
    places = torch.full((2, 5, 2), float("nan"), requires_grad=True)
    moved = smooth_warp(0).transform(places)
    assert moved.isnan().all()
    moved.sum().backward()
    assert places.grad is not None


@given(seeds)
def test_random_maps_keep_up_up_and_have_the_spread_asked_for(seed):
    theta = random_affine(4000, seeded(seed), degrees=15, scale=0.15, shift=0.15)
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


def pixel_places(size: int) -> torch.Tensor:
    """Coordinates (size * size, 2) of the pixels' centres, row by row."""
    ys, xs = torch.meshgrid(*[cell_centres(size, torch.zeros(0))] * 2, indexing="ij")
    return torch.stack([xs, ys], dim=-1).flatten(0, 1)


def smooth_warp(seed: int, count: int = 2) -> SmoothWarp:
    random = seeded(seed)
    return SmoothWarp(random_affine(count, random, degrees=15, scale=0.15), random)


@given(seeds)
def test_a_smoothly_warped_image_shows_at_p_what_stood_at_the_mapped_p(seed):
    size = 32
    smooth, places = smooth_warp(seed), pixel_places(size)
    ramps = places.T.unflatten(1, (size, size)).expand(2, -1, -1, -1)  # every pixel's colour is its place
    shown = smooth.warp(ramps).flatten(2).transpose(1, 2)
    mapped = smooth.transform(places.expand(2, -1, -1))
    inside = mapped.abs().amax(-1) < 1 - 1 / size
    torch.testing.assert_close(shown[inside], mapped[inside], atol=1e-5, rtol=0)
    assert inside.float().mean() > 0.3
    assert (shown[mapped.abs().amax(-1) > 1 + 1 / size] == 0).all()


@given(seeds, st.integers(32, 95), st.integers(32, 95))
def test_a_bright_dot_is_warped_to_where_the_map_leads_from(seed, row, column):
    smooth = smooth_warp(seed, count=1)
    place = pixel_places(128)[None, 128 * row + column, None]
    source = smooth.transform(place)
    assume(source.abs().max() < 1 - 1 / 128)
    dot = render_heatmaps(source, 128)
    assert smooth.warp(dot)[0, 0, row, column] == pytest.approx(1, abs=0.02)


@given(seeds)
def test_a_smooth_warp_without_bend_is_its_affine_map(seed):
    random = seeded(seed)
    theta, images, places = random_affine(3, random), torch.rand(3, 2, 16, 16), torch.rand(3, 5, 2) * 2 - 1
    smooth = SmoothWarp(theta, random, amount=0)
    assert torch.equal(smooth.transform(places), transform(theta, places))
    torch.testing.assert_close(smooth.warp(images), warp(images, theta), atol=1e-5, rtol=0)


def test_the_bend_has_the_spread_asked_for():
    identity = torch.eye(2, 3).expand(4000, 2, 3)
    corner = -torch.ones(4000, 1, 2)  # a knot; between knots the displacements average out
    moved = SmoothWarp(identity, seeded(0), amount=0.08).transform(corner) - corner
    assert moved.std().item() == pytest.approx(0.08, rel=0.05)
    assert moved.mean().item() == pytest.approx(0, abs=0.005)
