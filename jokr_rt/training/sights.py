"""What a step showed, in a few figures that tell a healthy run from a broken one, whatever stage it belongs to."""

from dataclasses import dataclass

import torch
from torch import Tensor

from jokr_rt.training import distributed


@dataclass(frozen=True)
class Sights:
    """Of each video's views in a step, A's first.

    spread: mean distance of a frame's keypoints from their centre, in half-widths. silhouette: share of the picture
    that the drawn silhouettes fill, and true_silhouette: that the masks do. contrast: standard deviation of the drawn
    pictures, over pixels and views, as a share of the true ones'.
    """

    spread: tuple[float, float]
    silhouette: tuple[float, float]
    true_silhouette: tuple[float, float]
    contrast: tuple[float, float]


@torch.no_grad()
def measure_sights(keypoints: Tensor, silhouettes: Tensor, masks: Tensor, images: Tensor, targets: Tensor) -> Tensor:
    """(4, 2) numbers in the order of `Sights`, the mean over the processes.

    keypoints (2n, K, 2), silhouettes and masks (2n, 1, H, W) in [0, 1], images and targets (2n, 3, H, W), all of them
    first n views of video A, then n of B.
    """

    def each(values: Tensor) -> Tensor:
        return values.float().unflatten(0, (2, -1)).flatten(1)

    spread = (keypoints - keypoints.mean(1, keepdim=True)).norm(dim=-1)
    contrast = each(images).std(1) / each(targets).std(1).clamp(min=1e-6)
    figures = [each(spread).mean(1), each(silhouettes).mean(1), each(masks).mean(1), contrast]
    return distributed.mean(torch.stack(figures))
