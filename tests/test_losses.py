"""Each loss against a value worked out by hand, at its minimum and away from it."""

import math

import pytest
import torch

from jokr_rt.training import losses

IDENTITY = torch.eye(2, 3).expand(3, 2, 3)


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


def test_there_and_back_is_the_identity():
    half, double = IDENTITY * 0.5, IDENTITY * 2
    assert losses.identity_loss(half, double) == 0
    assert losses.identity_loss(half, IDENTITY).item() == pytest.approx(2 * 0.25 / 6)


def test_affine_prefers_the_identity_and_one_map_for_all():
    assert losses.affine_loss(IDENTITY) == 0
    shifted = IDENTITY.clone()
    shifted[..., 2] = 0.3
    assert losses.affine_loss(shifted).item() == pytest.approx(2 * 0.09 / 6)
    wavering = IDENTITY.clone()
    wavering[0, 0, 0] += 0.3
    assert losses.affine_loss(wavering).item() == pytest.approx(0.09 / 18 + 0.09 * (2 / 9) / 6)


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


def test_diversity_pushes_apart_only_what_is_close():
    apart = torch.tensor([[[0.0, 0.0], [0.35, 0.0], [0.0, 0.5]]])
    assert losses.diversity_loss(apart).item() == pytest.approx(0, abs=1e-7)
    together = torch.zeros(2, 3, 2)
    assert losses.diversity_loss(together).item() == pytest.approx(0.35**2)


def test_temporal_is_the_squared_step():
    before = torch.zeros(1, 2, 2)
    after = torch.tensor([[[0.3, 0.4], [0.0, 0.0]]])
    assert losses.temporal_loss(before, after).item() == pytest.approx(0.125)


def test_the_published_weights_are_the_defaults():
    weights = losses.LossWeights()
    assert (weights.confusion, weights.reconstruction, weights.cycle, weights.adversarial, weights.affine) == (
        1,
        10,
        10,
        1,
        1,
    )
