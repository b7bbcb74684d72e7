"""The same model in 16 bits: its convolutions, between float32 islands where so few bits are too few.

Islands: keypoint logits, softmax and expectation (a tenth of a logit's unit moves a keypoint), theta, all coordinates
(a grid of 16 bits moves values by 4 percent), heatmaps until they are rendered, the means that looks are read off, the
last tanh. Every change of dtype is a cast of its own, as TensorRT's strongly typed networks want it, and each stage's
inputs and outputs stay as they are: stages of several precisions fit each other, and one set of parity samples.
"""

import copy

import torch
from torch import Tensor, nn

from jokr_rt.training.networks import Model, SpatialTransformer, affine_grid_sample, render_heatmaps


class Cast(nn.Module):
    """To another dtype."""

    def __init__(self, dtype: torch.dtype) -> None:
        super().__init__()
        self.dtype = dtype

    def forward(self, tensor: Tensor) -> Tensor:
        return tensor.to(self.dtype)


class Halved(nn.Module):
    """A module in 16 bits for float32 inputs. What it gives has 16 bits too, unless its own last layers cast that."""

    def __init__(self, module: nn.Module, dtype: torch.dtype) -> None:
        super().__init__()
        self.module = module.to(dtype)
        self.dtype = dtype

    def forward(self, *inputs: Tensor) -> Tensor | tuple[Tensor, ...]:
        return self.module(*(tensor.to(self.dtype) for tensor in inputs))


class HalvedTransformer(nn.Module):
    """Samples in 16 bits; renders and places in float32."""

    def __init__(self, transformer: SpatialTransformer, dtype: torch.dtype) -> None:
        super().__init__()
        self.transformer = transformer
        self.dtype = dtype

    def forward(self, keypoints: Tensor) -> tuple[Tensor, Tensor]:
        theta = self.transformer.locate(keypoints)
        heatmaps = render_heatmaps(keypoints, self.transformer.config.heatmap_size)
        return theta, affine_grid_sample(heatmaps.to(self.dtype), theta).float()


def halved(model: Model, dtype: torch.dtype = torch.float16) -> Model:
    """A copy of a model in eval mode that computes nearly the same in 16 bits. For `jokr_rt.training.stages`."""
    model = copy.deepcopy(model).eval()
    extractor, generator = model.extractor, model.generator
    parts = {
        "extractor": Halved(extractor, dtype),
        "generator": Halved(generator, dtype),
        "stn_a2b": HalvedTransformer(model.stn_a2b, dtype),
        "stn_b2a": HalvedTransformer(model.stn_b2a, dtype),
    }
    to_float = Cast(torch.float32)
    heads: dict[tuple[nn.Module, str], list[nn.Module]] = {
        (extractor, "keypoint_head"): [to_float, extractor.keypoint_head.float()],
        (extractor.looks, "layers"): [extractor.looks.layers, to_float],
    }
    extractor.looks.head.float()
    for name in {"head", "colours", "mask"} & dict(generator.named_children()).keys():  # export makes two of the one
        heads[generator, name] = [getattr(generator, name), to_float]
    for name, part in parts.items():
        setattr(model, name, part)
    for (parent, name), layers in heads.items():
        setattr(parent, name, nn.Sequential(*layers))
    return model
