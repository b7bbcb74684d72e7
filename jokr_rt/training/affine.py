"""Affine maps of the plane as (N, 2, 3) tensors theta: p -> theta @ (p, 1), with p = (x, y) in [-1, 1].

An image warped by theta shows at p what stood at theta(p), so a point at k moves to inverse(theta)(k).
"""

import copy
import math

import torch
import torch.nn.functional as F
from torch import Tensor

from jokr_rt.training import distributed

MIN_DETERMINANT = 0.05


def transform(theta: Tensor, points: Tensor) -> Tensor:
    """Apply maps (N, 2, 3) to points (N, K, 2)."""
    return points @ theta[:, :, :2].transpose(1, 2) + theta[:, None, :, 2]


def compose(outer: Tensor, inner: Tensor) -> Tensor:
    """The map p -> outer(inner(p)), all (N, 2, 3)."""
    shift = outer[:, :, :2] @ inner[:, :, 2:] + outer[:, :, 2:]
    return torch.cat([outer[:, :, :2] @ inner[:, :, :2], shift], dim=2)


def inverse(theta: Tensor) -> Tensor:
    """The inverse maps (N, 2, 3), by Cramer's rule; of a mirroring map, whose determinant is negative, a mirroring one.

    A determinant of a size below MIN_DETERMINANT counts as that, so that none blows up.
    """
    a, b, c, d = theta[:, 0, 0], theta[:, 0, 1], theta[:, 1, 0], theta[:, 1, 1]
    adjugate = torch.stack([d, -b, -c, a], dim=1).unflatten(1, (2, 2))
    area = determinant(theta)
    linear = adjugate / area.abs().clamp(min=MIN_DETERMINANT).copysign(area)[:, None, None]
    return torch.cat([linear, -linear @ theta[:, :, 2:]], dim=2)


def determinant(theta: Tensor) -> Tensor:
    """Of the maps' linear parts, (N,): their change of areas; negative where they mirror."""
    return theta[:, 0, 0] * theta[:, 1, 1] - theta[:, 0, 1] * theta[:, 1, 0]


def random_affine(
    count: int, random: torch.Generator, *, degrees: float = 8, scale: float = 0.1, shift: float = 0.1
) -> Tensor:
    """Random maps (count, 2, 3), on the generator's device.

    Rotation, log-scale, log-aspect (half as wide) and shift are normal with these stds.
    Rotation is clipped at two stds, so that no creature stands on its head.
    """
    angle, size, aspect, dx, dy = torch.randn(5, count, generator=random, device=random.device).clamp(-2, 2)
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


class SmoothWarp:
    """Random smooth maps of the plane, one for each image: p -> theta @ (p, 1) + bend(p).

    The bend is a cubic interpolation of CELLS x CELLS random displacements of std `amount`, in half-widths.
    """

    CELLS = 5
    FIELD = 32  # cells of the interpolated bend

    def __init__(self, theta: Tensor, random: torch.Generator, amount: float = 0.05) -> None:
        self.theta = theta
        knots = torch.randn(len(theta), 2, self.CELLS, self.CELLS, generator=random, device=random.device) * amount
        self._bend = F.interpolate(knots, self.FIELD, mode="bicubic", align_corners=True)

    def share(self, count: int) -> "SmoothWarp":
        """This process's maps of those of `count` views of each video, see `distributed.share`."""
        mine = copy.copy(self)
        mine.theta, mine._bend = distributed.share(self.theta, count), distributed.share(self._bend, count)
        return mine

    def transform(self, points: Tensor) -> Tensor:
        """Apply to points (N, K, 2)."""
        known = points.nan_to_num()  # the gradient of `grid_sample` reads outside its memory at NaN
        bend = F.grid_sample(self._bend, known[:, :, None], align_corners=True, padding_mode="border")
        return transform(self.theta, points) + bend[..., 0].transpose(1, 2)

    def warp(self, images: Tensor) -> Tensor:
        """Images (N, C, H, W) that show at p what stood at the mapped p; zeros outside."""
        height, width = images.shape[2:]
        pixels = F.affine_grid(torch.eye(2, 3, device=images.device)[None], [1, 1, height, width], align_corners=False)
        points = pixels.flatten(1, 2).expand(len(images), -1, -1)
        return F.grid_sample(images, self.transform(points).unflatten(1, (height, width)), align_corners=False)
