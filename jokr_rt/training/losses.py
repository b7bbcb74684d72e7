"""The losses, each a pure function of tensors that returns a scalar. Sources: arXiv 2106.09679 unless another is named.

Keypoints are (N, K, 2) in [-1, 1], images (N, 3, H, W) in [-1, 1], masks (N, 1, H, W) in [0, 1], maps (N, 2, 3).
Where several processes each have a share of the views, the mean of what they return is the loss of all views.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from jokr_rt.training import distributed
from jokr_rt.training.networks import squared_distance_map

EPSILON = 1e-6  # inside every logarithm and root: without it training ends in NaN
REAL_LABEL = 0.9  # one-sided label smoothing (Salimans et al. 2016)
FOREGROUND = 4.0  # a pixel of the object counts 1 + this much


@dataclass(frozen=True)
class LossWeights:
    """Of the geometry, then of the texture, from trials: see benchmarks/NOTES.md. 0 switches a loss off."""

    silhouette: float = 100.0
    equivariance: float = 4.0
    confusion: float = 1.0
    matching: float = 5.0
    sparsity: float = 1.0
    coverage: float = 20.0
    diversity: float = 4.0
    temporal: float = 0.0

    reconstruction: float = 10.0
    differences: float = 10.0
    perceptual: float = 1.0
    mask: float = 5.0
    shape: float = 5.0
    cycle: float = 2.0
    adversarial: float = 0.1
    features: float = 1.0


def reconstruction_loss(image: Tensor, target: Tensor, mask: Tensor) -> Tensor:
    """mean(w |image - target|) / mean(w), with w = 1 + FOREGROUND on the object: L1 that does not forget thin legs."""
    weight = 1 + FOREGROUND * mask
    return (weight * (image - target).abs()).mean() / distributed.mean(weight.mean())


def differences_loss(image: Tensor, target: Tensor, scales: int = 3) -> Tensor:
    """Sum over scales, each half as large as the one before, of mean |d image - d target|, d being the difference of
    neighbours across and down: L1 of edges and fur, which L1 of colours alone smears (Mathieu et al. 2016, eq. 6)."""
    error, total = image - target, image.new_zeros(())
    for _ in range(scales):
        total = total + error.diff(dim=-1).abs().mean() + error.diff(dim=-2).abs().mean()
        error = F.avg_pool2d(error, 2)
    return total


def feature_matching_loss(drawn: Sequence[Tensor], real: Sequence[Tensor]) -> Tensor:
    """Mean over a critic's levels of mean |drawn - real| (Wang et al. 2018, eq. 4)."""
    return torch.stack([(some - other).abs().mean() for some, other in zip(drawn, real, strict=True)]).mean()


def silhouette_loss(drawn: Tensor, mask: Tensor) -> Tensor:
    """mean((drawn - mask)^2): what was drawn as a silhouette against the object's."""
    return F.mse_loss(drawn, mask)


def adversarial_loss(scores: Tensor, real: bool) -> Tensor:
    """Least squares GAN: mean((score - label)^2) with label 0.9 for real, 0 for drawn (Mao et al. 2017, eq. 2)."""
    return (scores - (REAL_LABEL if real else 0.0)).square().mean()


def classification_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Cross entropy of the domain classifier, logits and labels (N,); 1 is video B."""
    return F.binary_cross_entropy_with_logits(logits, labels)


def confusion_loss(logits: Tensor) -> Tensor:
    """Cross entropy against 1/2 (Tzeng et al. 2015, eq. 4) less its minimum: 0 where the classifier cannot tell."""
    return F.binary_cross_entropy_with_logits(logits, torch.full_like(logits, 0.5)) - torch.log(torch.tensor(2.0))


def matching_loss(first: Tensor, second: Tensor) -> Tensor:
    """Energy distance 2 E|x - y| - E|x - x'| - E|y - y'| of two sets of poses (Szekely and Rizzo 2013).

    Mean over each keypoint's place and each pair's difference, every one of them a point x in the plane: 0 in
    expectation only where the two videos put and arrange them alike. Domain confusion without an adversary; unlike the
    classifier it weighs what hardly moves, such as a body's length, as much as what moves a lot. Needs two poses each.
    """

    def features(poses: Tensor) -> Tensor:
        i, j = torch.triu_indices(poses.shape[1], poses.shape[1], offset=1, device=poses.device)
        return torch.cat([poses, poses[:, i] - poses[:, j]], dim=1)

    def apart(some: Tensor, others: Tensor) -> Tensor:
        return ((some[:, None] - others).square().sum(-1) + EPSILON).sqrt().mean(2)

    x, y = features(first), features(second)
    others = 1 - torch.eye(len(x), device=x.device)
    within = ((apart(x, x) + apart(y, y)) * others).sum() / others.sum()
    return 2 * apart(x, y).mean() - within


def keypoint_distance(first: Tensor, second: Tensor) -> Tensor:
    """mean sqrt(|first - second|^2 + epsilon): used for cycle consistency and equivariance."""
    return ((first - second).square().sum(-1) + EPSILON).sqrt().mean()


def sparsity_loss(mass: Tensor, mask: Tensor) -> Tensor:
    """-mean log(softmax mass on the object + epsilon); mass (N, K, h, w), mask (N, 1, h, w)."""
    return -(((mass * mask).sum((2, 3)) + EPSILON).log()).mean()


def coverage_loss(keypoints: Tensor, mask: Tensor) -> Tensor:
    """Weighted mean over the object's cells p of min_k |p - k|^2, as k-means has it; mask (N, 1, h, w).

    A cell weighs 1 / (0.1 + share of the object about it), so that thin limbs count as much as the trunk.
    Ours, not the paper's: it brings keypoints to legs and tails, which `sparsity` and `diversity` alone leave bare.
    """
    weight = mask / (0.1 + F.avg_pool2d(mask, kernel_size=5, stride=1, padding=2))
    nearest = squared_distance_map(keypoints, mask.shape[-2:]).amin(dim=1, keepdim=True)
    return (nearest * weight).sum() / (distributed.mean(weight.sum()) + EPSILON)


def diversity_loss(keypoints: Tensor, distance: float = 0.15) -> Tensor:
    """mean over pairs of max(0, distance^2 - |k_i - k_j|^2) (separation loss, section 3)."""
    count = keypoints.shape[1]
    squared = (keypoints[:, :, None] - keypoints[:, None]).square().sum(-1)
    close = (distance**2 - squared).clamp(min=0)
    return (close.sum((1, 2)) - distance**2 * count).mean() / (count * (count - 1))
