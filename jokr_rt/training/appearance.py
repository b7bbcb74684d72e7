"""The looks of a target, read once off one of its frames and kept in the bundle."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from jokr_rt.training.networks import Model, render_heatmaps
from jokr_rt.training.stages import ExtractorStage


@torch.no_grad()
def choose_appearance(model: Model, references: NDArray[np.uint8]) -> NDArray[np.float32]:
    """The appearance (1, 3, size/2, size/2) of the reference frame that best redraws the others, by mean L1.

    references: frames (R, size, size, 3) of the object on black; one frame is taken as it is.
    """
    frames = torch.from_numpy(references)
    extractor = ExtractorStage(model)
    stages = [extractor(frame[None]) for frame in frames]
    heatmaps = [render_heatmaps(keypoints, model.config.heatmap_size) for keypoints, _, _ in stages]
    targets = [frame.float().permute(2, 0, 1)[None] / 127.5 - 1 for frame in frames]
    candidates: list[Tensor] = [appearance for _, _, appearance in stages]

    def redrawing_error(candidate: int) -> float:
        others = [index for index in range(len(frames)) if index != candidate]
        drawn = ((model.generator(heatmaps[index], candidates[candidate])[0], targets[index]) for index in others)
        return sum(float((image - target).abs().mean()) for image, target in drawn)

    best = min(range(len(frames)), key=redrawing_error)
    return candidates[best].numpy()
