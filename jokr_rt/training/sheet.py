"""The contact sheet: what the model sees and draws, at a glance."""

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from jokr_rt.keypoints import draw_keypoints
from jokr_rt.training.affine import inverse, transform
from jokr_rt.training.data import Clip, on_black
from jokr_rt.training.networks import Model, SilhouetteDrawer, render_heatmaps, soft_argmax
from jokr_rt.training.stages import GeneratorStage
from jokr_rt.video import write_png

COLUMNS = 6


def save_sheet(path: Path, model: Model, clips: tuple[Clip, Clip]) -> None:
    """Write a PNG. For each video four rows: source, keypoints, reconstruction, the other object in that pose.

    Columns are frames spread over the video, at the model's size, each drawn in the looks of the first of them.
    """
    write_png(path, _sheet(sheet_rows(model, clips)))


def save_geometry_sheet(path: Path, model: Model, drawer: SilhouetteDrawer, clips: tuple[Clip, Clip]) -> None:
    """The same with silhouettes in place of pictures."""
    write_png(path, _sheet(geometry_rows(model, drawer, clips)))


def _sheet(rows: list[NDArray[np.uint8]]) -> NDArray[np.uint8]:
    return np.concatenate([np.concatenate(list(row), axis=1) for row in rows])


@torch.inference_mode()
def sheet_rows(model: Model, clips: tuple[Clip, Clip]) -> list[NDArray[np.uint8]]:
    """Rows of the sheet, each (COLUMNS, size, size, 3) uint8."""
    generator = GeneratorStage(model)
    device = next(model.parameters()).device
    shown = [_Shown(model, clip) for clip in clips]
    looks = [
        model.extractor(on_black(_picked(clip, model.config.size)[:1].to(device)))[1].expand(COLUMNS, -1, -1, -1)
        for clip in clips
    ]
    rows = []
    for side, direction in enumerate(("a2b", "b2a")):
        heatmaps = render_heatmaps(shown[side].keypoints, model.config.heatmap_size)
        _, warped = model.stn(direction)(shown[side].keypoints)
        drawn = [generator(heatmaps, looks[side])[0], generator(warped, looks[1 - side])[0]]
        rows += [*shown[side].rows, *(images.cpu().numpy() for images in drawn)]
    return rows


@torch.inference_mode()
def geometry_rows(model: Model, drawer: SilhouetteDrawer, clips: tuple[Clip, Clip]) -> list[NDArray[np.uint8]]:
    """Rows of the sheet, each (COLUMNS, size, size, 3) uint8."""
    rows = []
    for side, direction in enumerate(("a2b", "b2a")):
        shown = _Shown(model, clips[side])
        moved = transform(inverse(model.stn(direction).locate(shown.keypoints)), shown.keypoints)
        for pose, creature in ((shown.keypoints, side), (moved, 1 - side)):
            silhouettes = torch.sigmoid(drawer(render_heatmaps(pose, model.config.extractor_map_size)))[:, creature]
            large = F.interpolate(silhouettes[:, None], model.config.size)[:, 0]
            grey = (large * 255).round().byte().cpu().numpy()
            rows.append(np.repeat(grey[..., None], 3, axis=-1))
        rows[-2:-2] = shown.rows
    return rows


class _Shown:
    """Frames of a clip, and the same with keypoints, each row (COLUMNS, size, size, 3) uint8."""

    def __init__(self, model: Model, clip: Clip) -> None:
        picked = _picked(clip, model.config.size)
        frames = picked[:, :3].to(next(model.parameters()).device) * 2 - 1
        self.keypoints = soft_argmax(model.extractor.find(frames))[0]
        source = (picked[:, :3] * 255).round().byte().permute(0, 2, 3, 1).numpy()
        dotted = [draw_keypoints(rgb, xy) for rgb, xy in zip(source, self.keypoints.cpu().numpy(), strict=True)]
        self.rows = [source, np.stack(dotted)]


def _picked(clip: Clip, size: int) -> Tensor:
    """COLUMNS frames spread over a clip, (COLUMNS, 4, size, size) in [0, 1]."""
    picked = clip.frames[torch.linspace(0, len(clip.frames) - 1, COLUMNS).round().long()]
    return F.adaptive_avg_pool2d(picked.float(), size) / 255
