"""Maps of the plane: algebra against numpy, fits against least squares, and images and points move alike."""

import numpy as np
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st

from jokr_rt.training.affine import SmoothWarp, compose, inverse, random_affine, registration, transform, warp
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


@given(maps, points)
def test_the_inverse_undoes_a_map(theta, places):
    np.testing.assert_allclose(homogeneous(inverse(theta)), np.linalg.inv(homogeneous(theta)), atol=1e-9)
    torch.testing.assert_close(transform(inverse(theta), transform(theta, places)), places)


def test_the_inverse_of_a_collapsed_map_is_finite():
    assert inverse(torch.zeros(1, 2, 3)).isfinite().all()


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


spread = st.lists(st.floats(-0.8, 0.8), min_size=16, max_size=16).map(
    lambda values: torch.cat(
        [torch.tensor(values, dtype=torch.float64).reshape(8, 2), torch.tensor([[-1, -1], [1, -1], [0, 1]])]
    )
)


@given(maps, spread)
def test_registration_recovers_an_affine_map_up_to_its_damping(theta, second):
    first = transform(theta, second[None])[0]
    torch.testing.assert_close(registration(first, second, damping=0), theta)
    # A pull of 0.01 against the least eigenvalue of the points' Gram matrix, which is above 1.
    assert (registration(first, second) - theta).abs().max() < 0.02
    pulled = registration(first, second, damping=1e6)
    torch.testing.assert_close(pulled, torch.eye(2, 3, dtype=torch.float64)[None], atol=1e-3, rtol=0)


@given(points)
def test_registration_of_points_that_coincide_is_the_identity(places):
    identity = torch.eye(2, 3, dtype=torch.float64)[None]
    torch.testing.assert_close(registration(places[0], places[0]), identity)
    together = places[0, :1].expand(5, 2)  # all in one spot: no affine map follows from it but by damping
    torch.testing.assert_close(registration(together, together), identity)


def noisy_pair() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """A rotation by 20 degrees at scale 0.75, and points (2000, 2), first and second, that follow it but for noise."""
    random = seeded(0)
    cosine, sine = 0.75 * np.cos(np.radians(20)), 0.75 * np.sin(np.radians(20))
    theta = torch.tensor([[[cosine, -sine, 0.2], [sine, cosine, -0.1]]])
    places = torch.rand(2000, 2, generator=random, dtype=torch.float64) - 0.5
    first, second = (
        clean + noise * torch.randn(2000, 2, generator=random, dtype=torch.float64)
        for clean, noise in ((transform(theta, places[None])[0], 0.075), (places, 0.1))
    )
    return theta, first, second


def scale_of(theta: torch.Tensor) -> float:
    return torch.linalg.det(theta[0, :, :2]).sqrt().item()


def one_way(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    known = torch.cat([second, torch.ones_like(second[:, :1])], dim=1)
    return torch.linalg.lstsq(known, first).solution.T[None]


def test_registration_of_noisy_points_does_not_shrink_as_least_squares_does():
    theta, first, second = noisy_pair()
    # Points of variance 1/12 with noise of 1/100: regression dilutes the slope by 0.893.
    assert scale_of(one_way(first, second)) == pytest.approx(0.75 * 0.893, rel=0.02)
    assert scale_of(registration(first, second)) == pytest.approx(0.75, rel=0.02)
    assert (registration(first, second) - theta).abs().max() < 0.02


def test_registrations_there_and_back_are_inverses_even_of_noisy_points():
    _, first, second = noisy_pair()
    identity = torch.eye(2, 3, dtype=torch.float64)

    def gap(fit) -> float:
        return (compose(fit(first, second), fit(second, first))[0] - identity).abs().max().item()

    assert gap(registration) < 0.02
    assert gap(one_way) > 0.15
