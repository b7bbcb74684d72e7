"""A tiny model whose every layer matters, frames for it, and how far apart two results are."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from torch import nn

from jokr_rt.bundle import Bundle, open_bundle, stored_file
from jokr_rt.config import ModelConfig
from jokr_rt.training.affine import inverse
from jokr_rt.training.checkpoint import Checkpoint
from jokr_rt.training.data import Clip
from jokr_rt.training.networks import Model, render_heatmaps, soft_argmax

TINY = ModelConfig(size=64, width=1 / 16, extractor_size=64)


def creature_frames(count: int, size: int, seed: int) -> NDArray[np.uint8]:
    """Frames (count, size, size, 3) of three coloured blobs that walk and turn on black."""
    random = np.random.default_rng(seed)
    colours = random.integers(60, 256, (3, 3))
    y, x = (np.mgrid[:size, :size] + 0.5) / size * 2 - 1
    frames = np.zeros((count, size, size, 3), np.uint8)
    for index, phase in enumerate(np.linspace(0, np.pi, count)):
        for limb, colour in enumerate(colours):
            angle = phase + limb * 2
            inside = ((x - 0.5 * np.cos(angle)) / 0.3) ** 2 + ((y - 0.5 * np.sin(angle)) / 0.2) ** 2 < 1
            frames[index][inside] = colour
    return frames


def creature_clips(count: int, size: int = 64) -> tuple[Clip, Clip]:
    """Clips "cat" and "fox" of `creature_frames`, with masks."""
    rgb = [torch.from_numpy(creature_frames(count, size, seed)).permute(0, 3, 1, 2) for seed in (0, 1)]
    masks = [(frames.amax(1, keepdim=True) > 0) * torch.tensor(255, dtype=torch.uint8) for frames in rgb]
    cat, fox = (torch.cat(pair, dim=1).contiguous() for pair in zip(rgb, masks, strict=True))
    return Clip("cat", cat, True), Clip("fox", fox, True)


def make_checkpoint(config: ModelConfig, seed: int = 0) -> Checkpoint:
    """An untrained model: random scales, statistics of real frames, a map that mirrors, there and back."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = Model(config)
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                nn.init.uniform_(module.weight, 0.5, 1.5)
                nn.init.normal_(module.bias, std=0.2)
                module.momentum = None  # a plain mean over the batches below
        there = torch.tensor([[-1.2, 0.3, 0.15], [0.25, 0.8, -0.1]])
        with torch.no_grad():
            model.stn_a2b.theta.copy_(there)
            model.stn_b2a.theta.copy_(inverse(there[None])[0])
        for weight in (model.extractor.keypoint_head.weight, model.generator.head.weight):
            nn.init.normal_(weight, std=0.5)
        references = {domain: creature_frames(3, config.size, seed + index) for index, domain in enumerate("ab")}
        with torch.no_grad():
            _look_closely(model, np.concatenate(list(references.values())))
            for frames in references.values():
                logits, appearance = model.extractor(torch.from_numpy(frames).permute(0, 3, 1, 2) / 127.5 - 1)
                keypoints, _, _ = soft_argmax(logits)
                model.generator(render_heatmaps(keypoints, config.heatmap_size), appearance)
        return Checkpoint(model.eval(), {"a": "cat", "b": "fox"}, references, step=7)


def _look_closely(model: Model, frames: NDArray[np.uint8]) -> None:
    """Let the looks tell frames of blobs apart, of which a mean over the frame is nearly the same."""
    looks = model.extractor.looks
    views = model.extractor.reduced(torch.from_numpy(frames).permute(0, 3, 1, 2) / 127.5 - 1)
    nn.init.normal_(looks.head.weight, std=30)
    looks.head.bias.copy_(-looks.head.weight @ looks.layers(views).mean((0, 2, 3)))


def max_error(found: NDArray[Any], expected: torch.Tensor) -> float:
    """The largest absolute difference of two arrays of the same shape."""
    expected = expected.detach()
    assert found.shape == tuple(expected.shape)
    return float(np.abs(found.astype(np.float64) - expected.numpy()).max())


def perturbed(proto: onnx.ModelProto, weight: str, value: float) -> onnx.ModelProto:
    """The same graph, with `value` added to the first number of a weight."""
    (tensor,) = [tensor for tensor in proto.graph.initializer if tensor.name.endswith(weight)]
    array = onnx.numpy_helper.to_array(tensor).copy()
    array.flat[0] += value
    tensor.CopyFrom(onnx.numpy_helper.from_array(array, tensor.name))
    return proto


def replace_graph(root: Path, name: str, proto: onnx.ModelProto) -> Bundle:
    """Put another graph into a bundle, with its hash: damage that only the parity gate can find."""
    (root / f"{name}.onnx").write_bytes(proto.SerializeToString())
    manifest = root / "manifest.json"
    values = json.loads(manifest.read_text())
    for graph in values["graphs"]:
        graph["sha256"] = stored_file(root, graph["file"]).sha256
    manifest.write_text(json.dumps(values))
    return open_bundle(root)
