"""The contact sheet: what the model sees and draws, at a glance."""

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from jokr_rt.keypoints import draw_keypoints
from jokr_rt.training.data import Clip, on_black
from jokr_rt.training.networks import Model, render_heatmaps, soft_argmax
from jokr_rt.training.stages import GeneratorStage
from jokr_rt.video import write_png

COLUMNS = 6


def save_sheet(path: Path, model: Model, clips: tuple[Clip, Clip]) -> None:
    """Write a PNG. For each video four rows: source, keypoints, reconstruction, the other object in that pose.

    Columns are frames spread over the video, at the model's size, each drawn in the looks of the first of them.
    """
    rows = sheet_rows(model.eval(), clips)  # every step sets its own mode
    write_png(path, np.concatenate([np.concatenate(list(row), axis=1) for row in rows]))


@torch.inference_mode()
def sheet_rows(model: Model, clips: tuple[Clip, Clip]) -> list[NDArray[np.uint8]]:
    """Rows of the sheet, each (COLUMNS, size, size, 3) uint8."""
    device = next(model.parameters()).device
    generator = GeneratorStage(model)
    sources, keypoints, looks = [], [], []
    for clip in clips:
        picked = clip.frames[torch.linspace(0, len(clip.frames) - 1, COLUMNS).round().long()]
        picked = F.adaptive_avg_pool2d(picked.float(), model.config.size).round().byte()
        sources.append(picked[:, :3].permute(0, 2, 3, 1).numpy())
        frames = picked.to(device).float() / 255
        keypoints.append(soft_argmax(model.extractor(frames[:, :3] * 2 - 1)[0])[0])
        looks.append(model.extractor(on_black(frames[:1]))[1].expand(COLUMNS, -1, -1, -1))
    rows = []
    for side, direction in enumerate(("a2b", "b2a")):
        heatmaps = render_heatmaps(keypoints[side], model.config.heatmap_size)
        _, warped = model.stn(direction)(keypoints[side])
        dotted = [draw_keypoints(rgb, xy) for rgb, xy in zip(sources[side], keypoints[side].cpu().numpy(), strict=True)]
        drawn = [generator(heatmaps, looks[side])[0], generator(warped, looks[1 - side])[0]]
        rows += [sources[side], np.stack(dotted), *(images.cpu().numpy() for images in drawn)]
    return rows
