"""Rewrites before export that leave every result as it is: folded BatchNorm, and sub-pixel convolutions."""

import copy
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from jokr_rt.training.networks import Model


class SubpixelConv(nn.Module):
    """A transposed convolution (kernel 4, stride 2, padding 1) as a plain one, which low-precision kernels are fast at.

    Its outputs at odd and at even places are four 2 x 2 convolutions of the input (Shi et al. 2016): one convolution to
    4 times the channels, depth to space, and the border of one cell cropped. Raises ValueError for any other geometry.
    """

    def __init__(self, transposed: nn.ConvTranspose2d) -> None:
        super().__init__()
        geometry = (transposed.kernel_size, transposed.stride, transposed.padding, transposed.output_padding)
        if geometry != ((4, 4), (2, 2), (1, 1), (0, 0)) or transposed.groups != 1 or transposed.dilation != (1, 1):
            raise ValueError(f"only kernel 4, stride 2, padding 1 can be rewritten, not {transposed}")
        inputs, outputs = transposed.in_channels, transposed.out_channels
        self.conv = nn.Conv2d(inputs, 4 * outputs, kernel_size=2, padding=1, bias=transposed.bias is not None)
        self.conv.to(transposed.weight)
        with torch.no_grad():
            # Output 2 q + r takes the tap r + 2 of input q - 1 and the tap r of input q, along either axis.
            taps = transposed.weight.unflatten(3, (2, 2)).unflatten(2, (2, 2)).flip(2, 4)  # (in, out, y, ry, x, rx)
            self.conv.weight.copy_(taps.permute(1, 3, 5, 0, 2, 4).reshape(4 * outputs, inputs, 2, 2))
            if self.conv.bias is not None and transposed.bias is not None:
                self.conv.bias.copy_(transposed.bias.repeat_interleave(4))

    def forward(self, features: Tensor) -> Tensor:
        """(N, in, H, W) -> (N, out, 2 H, 2 W)."""
        return F.pad(F.pixel_shuffle(self.conv(features), 2), (-1, -1, -1, -1))


def rewritten(model: Model) -> Model:
    """A copy of a model in eval mode, without BatchNorm2d and ConvTranspose2d, that computes the same."""
    model = copy.deepcopy(model).eval()
    for layers in model.modules():
        if isinstance(layers, nn.Sequential):
            _fold_batch_norm(layers)
    for parent in list(model.modules()):
        for name, child in parent.named_children():
            if isinstance(child, nn.ConvTranspose2d):
                setattr(parent, name, SubpixelConv(child))
    return model


def _fold_batch_norm(layers: nn.Sequential) -> None:
    """Every BatchNorm2d that follows a convolution goes into its weights."""
    for index, (layer, norm) in enumerate(pairwise(list(layers))):
        if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d) and isinstance(norm, nn.BatchNorm2d):
            layers[index] = fuse_conv_bn_eval(layer, norm, transpose=isinstance(layer, nn.ConvTranspose2d))
            layers[index + 1] = nn.Identity()
