"""A model's stages with the names, shapes and dtypes of `jokr_rt.bundle.signatures`: what is exported, and what it is
measured against."""

import torch
from torch import Tensor, nn

from jokr_rt.bundle import DIRECTIONS
from jokr_rt.training.networks import Model, soft_argmax


class ExtractorStage(nn.Module):
    """frame (N, size, size, 3) uint8 -> keypoints (N, K, 2), confidence (N, K), appearance (N, 3, size/2, size/2)."""

    def __init__(self, model: Model) -> None:
        super().__init__()
        self.extractor = model.extractor

    def forward(self, frame: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        # First the cast, then the transposition: TensorRT moves no uint8.
        logits, appearance = self.extractor(frame.float().permute(0, 3, 1, 2) / 127.5 - 1)
        keypoints, confidence, _ = soft_argmax(logits)
        return keypoints, confidence, appearance


class TransformerStage(nn.Module):
    """keypoints (N, K, 2) -> theta (N, 2, 3), warped (N, K, size/2, size/2)."""

    def __init__(self, transformer: nn.Module) -> None:
        super().__init__()
        self.transformer = transformer  # its weight is named as its output, which a graph does not allow

    def forward(self, keypoints: Tensor) -> tuple[Tensor, Tensor]:
        theta, warped = self.transformer(keypoints)
        return theta, warped


class GeneratorStage(nn.Module):
    """warped (N, K, size/2, size/2), appearance (N, 3, size/2, size/2) -> image (N, size, size, 3) uint8."""

    def __init__(self, model: Model) -> None:
        super().__init__()
        self.generator = model.generator

    def forward(self, warped: Tensor, appearance: Tensor) -> tuple[Tensor]:
        image, _ = self.generator(warped, appearance)
        levels = ((image + 1) * 127.5).clamp(0, 255).round()
        return (levels.permute(0, 2, 3, 1).to(torch.uint8),)


def stages(model: Model) -> dict[str, nn.Module]:
    """A module for each graph, in the order a frame passes them."""
    transformers = {f"stn-{direction}": TransformerStage(model.stn(direction)) for direction in DIRECTIONS}
    return {"extractor": ExtractorStage(model), **transformers, "generator": GeneratorStage(model)}
