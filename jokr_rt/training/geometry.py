"""Affine maps of the plane as (N, 2, 3) tensors theta: p -> theta @ (p, 1), with p = (x, y) in [-1, 1].

An image warped by theta shows at p what stood at theta(p), so a point at k moves to inverse(theta)(k).
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor


def transform(theta: Tensor, points: Tensor) -> Tensor:
    """Apply maps (N, 2, 3) to points (N, K, 2)."""
    return points @ theta[:, :, :2].transpose(1, 2) + theta[:, None, :, 2]


def compose(outer: Tensor, inner: Tensor) -> Tensor:
    """The map p -> outer(inner(p)), all (N, 2, 3)."""
    shift = outer[:, :, :2] @ inner[:, :, 2:] + outer[:, :, 2:]
    return torch.cat([outer[:, :, :2] @ inner[:, :, :2], shift], dim=2)


def inverse(theta: Tensor) -> Tensor:
    """The inverse maps (N, 2, 3), by Cramer's rule. A determinant below 0.05 counts as 0.05, so that none blows up."""
    a, b, c, d = theta[:, 0, 0], theta[:, 0, 1], theta[:, 1, 0], theta[:, 1, 1]
    determinant = (a * d - b * c).clamp(min=0.05)
    adjugate = torch.stack([d, -b, -c, a], dim=1).unflatten(1, (2, 2))
    linear = adjugate / determinant[:, None, None]
    return torch.cat([linear, -linear @ theta[:, :, 2:]], dim=2)


def random_affine(count: int, like: Tensor, *, degrees: float = 8, scale: float = 0.12, shift: float = 0.12) -> Tensor:
    """Random maps (count, 2, 3): rotation, log-scale, log-aspect (half as wide) and shift, each normal with that std.

    Rotation is clipped at two stds, so that no creature stands on its head.
    """
    angle, size, aspect, dx, dy = torch.randn(5, count, dtype=like.dtype, device=like.device).clamp(-2, 2)
    angle = angle * math.radians(degrees)
    x = torch.exp(size * scale + aspect * scale / 2)
    y = torch.exp(size * scale - aspect * scale / 2)
    rows = [
        torch.cos(angle) * x,
        -torch.sin(angle) * y,
        dx * shift,
        torch.sin(angle) * x,
        torch.cos(angle) * y,
        dy * shift,
    ]
    return torch.stack(rows, dim=1).unflatten(1, (2, 3))


def warp(images: Tensor, theta: Tensor) -> Tensor:
    """Sample images (N, C, H, W) bilinearly at theta (N, 2, 3) of each pixel; zeros outside."""
    grid = F.affine_grid(theta, list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, align_corners=False)
