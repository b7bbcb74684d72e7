"""The contact sheet: what the model sees and draws, at a glance."""

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from jokr_rt.keypoints import draw_keypoints
from jokr_rt.training.data import Clip, on_black
from jokr_rt.training.networks import Model, render_heatmaps, soft_argmax
from jokr_rt.video import write_png

COLUMNS = 6


def save_sheet(path: Path, model: Model, clips: tuple[Clip, Clip]) -> None:
    """Write a PNG. For each video four rows: source, keypoints, reconstruction, the other object in that pose.

    Columns are frames spread over the video, each drawn in the looks of the first of them.
    """
    training = [module for module in model.modules() if module.training]
    rows = sheet_rows(model.eval(), clips)
    for module in training:
        module.training = True
    write_png(path, np.concatenate([np.concatenate(list(row), axis=1) for row in rows]))


@torch.inference_mode()
def sheet_rows(model: Model, clips: tuple[Clip, Clip]) -> list[NDArray[np.uint8]]:
    """Rows of the sheet, each (COLUMNS, size, size, 3) uint8."""
    device = next(model.parameters()).device
    sources, keypoints, looks = [], [], []
    for clip in clips:
        picked = torch.linspace(0, len(clip.frames) - 1, COLUMNS).round().long()
        frames = clip.frames[picked].to(device).float() / 255
        sources.append(frames[:, :3] * 2 - 1)
        keypoints.append(soft_argmax(model.extractor(sources[-1])[0])[0])
        looks.append(model.extractor(on_black(frames[:1]))[1].expand(COLUMNS, -1, -1, -1))
    rows = []
    for side, direction in enumerate(("a2b", "b2a")):
        heatmaps = render_heatmaps(keypoints[side], model.config.heatmap_size)
        _, warped = model.stn(direction)(keypoints[side])
        source = _pixels(sources[side])
        dotted = [draw_keypoints(rgb, xy) for rgb, xy in zip(source, keypoints[side].cpu().numpy(), strict=True)]
        rows += [
            source,
            np.stack(dotted),
            _pixels(model.generator(heatmaps, looks[side])[0]),
            _pixels(model.generator(warped, looks[1 - side])[0]),
        ]
    return rows


def _pixels(images: torch.Tensor) -> NDArray[np.uint8]:
    levels = ((images + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)
    return levels.permute(0, 2, 3, 1).cpu().numpy()
