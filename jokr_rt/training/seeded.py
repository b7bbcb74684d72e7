"""A model that was never trained, for what does not depend on weights: its speed."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from jokr_rt.config import ModelConfig
from jokr_rt.evaluation.puppets import PUPPETS, TRAINING, joints, render
from jokr_rt.training.checkpoint import Checkpoint
from jokr_rt.training.networks import Model, render_heatmaps, soft_argmax

FRAMES = 8  # of each puppet


@torch.no_grad()
def seeded_checkpoint(config: ModelConfig, seed: int = 0) -> Checkpoint:
    """Weights that follow from a seed. References are frames of the puppets, and so are BatchNorm's statistics.

    It is no harder to compute with than a trained model. Every layer's values are of ordinary size, for a processor may
    be slow with tiny ones. And it can be quantised like that: its keypoints are means of broad maps, and it draws
    smooth shapes, which random weights of both signs do not.
    """
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = Model(config)
    model.extractor.keypoint_head.weight *= 0.1
    for layer in model.generator.modules():
        if isinstance(layer, nn.ConvTranspose2d):
            layer.weight.abs_()
    references = {domain: _frames(name, config.size) for domain, name in zip("ab", PUPPETS, strict=True)}
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None  # a plain mean over the batches below
    seen: list[Tensor] = []
    with_head = model.generator.head.register_forward_hook(lambda layer, inputs, output: seen.append(output))
    for frames in references.values():
        logits, appearance = model.extractor(torch.from_numpy(frames).permute(0, 3, 1, 2) / 127.5 - 1)
        keypoints, _, _ = soft_argmax(logits)
        model.generator(render_heatmaps(keypoints, config.heatmap_size), appearance)
    with_head.remove()
    _normalise(model.generator.head, torch.cat(seen))
    return Checkpoint(model.eval(), dict(zip("ab", PUPPETS, strict=True)), references, step=0)


def _normalise(layer: nn.ConvTranspose2d, outputs: Tensor) -> None:
    """Make such outputs (N, C, H, W) of mean 0 and variance 1 in each channel."""
    spread, mean = torch.std_mean(outputs, dim=(0, 2, 3))
    assert layer.bias is not None
    layer.weight /= spread[:, None, None]
    layer.bias.copy_((layer.bias - mean) / spread)


def _frames(name: str, size: int) -> NDArray[np.uint8]:
    poses = joints(PUPPETS[name], TRAINING.motion())[:: TRAINING.frames // FRAMES]
    return np.stack([render(PUPPETS[name], pose, size)[0] for pose in poses])
