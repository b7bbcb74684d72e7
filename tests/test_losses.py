"""Each loss against a value worked out by hand, at its minimum and away from it."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from jokr_rt.training import losses


def test_reconstruction_counts_the_object_five_times():
    mask = torch.tensor([[[[1.0, 0.0]]]])
    target = torch.zeros(1, 3, 1, 2)
    on_object, off_object = target.clone(), target.clone()
    on_object[..., 0] += 0.6
    off_object[..., 1] += 0.6
    assert losses.reconstruction_loss(target, target, mask) == 0
    assert losses.reconstruction_loss(on_object, target, mask).item() == pytest.approx(0.5)
    assert losses.reconstruction_loss(off_object, target, mask).item() == pytest.approx(0.1)


def test_silhouette_is_the_mean_square():
    assert losses.silhouette_loss(torch.tensor([0.5, 1.0]), torch.tensor([0.0, 1.0])).item() == pytest.approx(0.125)


def test_adversarial_labels():
    assert losses.adversarial_loss(torch.tensor([0.9]), real=True).item() == pytest.approx(0)
    assert losses.adversarial_loss(torch.tensor([0.9]), real=False).item() == pytest.approx(0.81)


def test_confusion_is_least_where_the_classifier_cannot_tell():
    assert losses.confusion_loss(torch.zeros(4)).item() == pytest.approx(0, abs=1e-6)
    sure = losses.confusion_loss(torch.tensor([4.0, -4.0])).item()
    assert sure == pytest.approx(
        -0.5 * math.log(1 / (1 + math.exp(-4))) - 0.5 * math.log(1 / (1 + math.exp(4))) - math.log(2)
    )


def test_classification_is_cross_entropy():
    found = losses.classification_loss(torch.tensor([0.0, 0.0]), torch.tensor([0.0, 1.0]))
    assert found.item() == pytest.approx(math.log(2))


def test_keypoint_distance_is_euclidean_and_has_a_gradient_at_zero():
    first = torch.zeros(1, 2, 2, requires_grad=True)
    assert losses.keypoint_distance(first, torch.tensor([[[3.0, 4.0], [0.0, 0.0]]])).item() == pytest.approx(
        2.5005, abs=1e-3
    )
    losses.keypoint_distance(first, first.detach()).backward()
    assert first.grad is not None
    assert first.grad.isfinite().all()


def test_differences_are_of_edges_at_three_scales_and_not_of_colours():
    target = torch.zeros(1, 3, 8, 8)
    assert losses.differences_loss(target + 0.5, target) == 0
    edge = target.clone()
    edge[..., 4:] = 0.8  # one step in a row of 8, of 4 and of 2 pixels
    assert losses.differences_loss(edge, target).item() == pytest.approx(0.8 / 7 + 0.8 / 3 + 0.8)
    stripes = target.clone()
    stripes[..., 1::2, :] = 0.8  # gone at the next scale
    assert losses.differences_loss(target, stripes).item() == pytest.approx(0.8)


def test_feature_matching_is_the_mean_of_the_levels_means():
    drawn, real = [torch.zeros(2, 4), torch.zeros(1, 1)], [torch.full((2, 4), 0.5), torch.full((1, 1), -1.0)]
    assert losses.feature_matching_loss(drawn, real).item() == pytest.approx(0.75)


def walkers(count: int, length: float, seed: int) -> torch.Tensor:
    """Poses (count, 2, 2): a foot that goes about, and a head `length` above it, give or take 1 %."""
    random = torch.Generator().manual_seed(seed)
    feet = 0.3 * torch.randn(count, 1, 2, generator=random)
    bodies = torch.tensor([0.0, -length]) * (1 + 0.01 * torch.randn(count, 1, 1, generator=random))
    return torch.cat([feet, feet + bodies], dim=1)


def test_matching_by_hand():
    here, there = torch.zeros(2, 2, 2), torch.tensor([0.3, 0.4]).expand(3, 2, 2)[:2]
    still = math.sqrt(losses.EPSILON)
    # Two places half a unit apart; their difference, and poses of one video, not apart at all.
    assert losses.matching_loss(here, there).item() == pytest.approx(2 * (0.5 + 0.5 + still) / 3 - 2 * still, rel=1e-4)


def test_matching_is_zero_in_expectation_for_samples_of_one_distribution():
    found = torch.stack([losses.matching_loss(walkers(4, 0.5, 2 * i), walkers(4, 0.5, 2 * i + 1)) for i in range(500)])
    assert found.std() > 0.05
    assert abs(found.mean()) < 3 * found.std() / 500**0.5


def test_matching_grows_with_a_shift():
    poses = walkers(200, 0.5, 0)
    found = [losses.matching_loss(poses, walkers(200, 0.5, 1) + shift).item() for shift in (0.1, 0.2, 0.4, 0.8)]
    assert found == sorted(found)
    assert found[0] > 0.005
    assert found[3] > 10 * found[0]


def test_matching_sees_a_changed_length_that_hardly_varies():
    poses, longer = walkers(200, 0.5, 0), walkers(200, 0.6, 0)

    def seen(keypoints: slice) -> float:
        changed, same = (losses.matching_loss(poses[:, keypoints], other[:, keypoints]) for other in (longer, poses))
        return (changed - same).item()

    # Of the head's place alone a tenth is lost among the feet's 0.3; of the three points one is the length itself.
    assert seen(slice(1, 2)) < 0.02
    assert seen(slice(0, 2)) > 2 * 0.09 / 3


@given(st.integers(0, 1000), st.integers(0, 1000))
def test_matching_does_not_mind_which_comes_first(one, other):
    first, second = walkers(5, 0.5, one), walkers(5, 0.3, other)
    torch.testing.assert_close(losses.matching_loss(first, second), losses.matching_loss(second, first))


def test_sparsity_wants_the_mass_on_the_object():
    mass = torch.tensor([[[[0.25, 0.75]]]])
    assert losses.sparsity_loss(mass, torch.tensor([[[[1.0, 1.0]]]])).item() == pytest.approx(0, abs=1e-5)
    assert losses.sparsity_loss(mass, torch.tensor([[[[1.0, 0.0]]]])).item() == pytest.approx(-math.log(0.25), abs=1e-4)
    assert losses.sparsity_loss(mass, torch.zeros(1, 1, 1, 2)).isfinite()


def test_coverage_wants_a_keypoint_near_every_part_of_the_object():
    keypoints = torch.tensor([[[-0.5, 0.0], [0.5, 0.0]]])  # the centres of two cells
    both = torch.tensor([[[[1.0, 1.0]]]])
    assert losses.coverage_loss(keypoints, both).item() == pytest.approx(0, abs=1e-9)
    assert losses.coverage_loss(keypoints[:, :1], both).item() == pytest.approx(0.5)
    assert losses.coverage_loss(keypoints[:, :1], torch.tensor([[[[1.0, 0.0]]]])).item() == pytest.approx(0, abs=1e-9)


def test_coverage_counts_a_thin_limb_as_much_as_the_trunk():
    mask = torch.tensor([[[[1.0, 0, 0, 0, 1, 1, 1, 0]]]])
    limb, trunk = 1 / (0.1 + 1 / 25), 1 / (0.1 + 3 / 25)  # of the 5 x 5 cells about them, so many are the object
    on_trunk = torch.tensor([[[3 / 8, 0.0]]])  # the middle one of its cells, each 1/4 wide
    expected = (limb * 1.25**2 + trunk * 2 * 0.25**2) / (limb + 3 * trunk)
    assert losses.coverage_loss(on_trunk, mask).item() == pytest.approx(expected, rel=1e-5)
    both = torch.cat([on_trunk, torch.tensor([[[-7 / 8, 0.0]]])], dim=1)
    assert losses.coverage_loss(both, mask).item() == pytest.approx(trunk / 8 / (limb + 3 * trunk), rel=1e-5)
    assert losses.coverage_loss(both, torch.zeros_like(mask)) == 0


def test_diversity_pushes_apart_only_what_is_close():
    apart = torch.tensor([[[0.0, 0.0], [0.35, 0.0], [0.0, 0.5]]])
    assert losses.diversity_loss(apart).item() == pytest.approx(0, abs=1e-7)
    together = torch.zeros(2, 3, 2)
    assert losses.diversity_loss(together).item() == pytest.approx(0.15**2)
    one_pair = torch.tensor([[[0.0, 0.0], [0.1, 0.0], [0.0, 0.5]]])
    assert losses.diversity_loss(one_pair).item() == pytest.approx((0.15**2 - 0.1**2) / 3)
