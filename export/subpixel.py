"""Rewrites before export that leave every result as it is: folded BatchNorm, and sub-pixel convolutions.

What int8 makes of them on a processor decides between forms that compute the same: see benchmarks/NOTES.md.
"""

import copy
from itertools import pairwise

import torch
import torch.nn.functional as F
from onnxscript import ir
from onnxscript import opset20 as onnx_ops
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from jokr_rt.training.networks import Generator, Model


@torch.library.custom_op("jokr::depth_to_space", mutates_args=())
def depth_to_space(features: Tensor) -> Tensor:
    """(N, 4 C, H, W) -> (N, C, 2 H, 2 W): channel (2 y + x) C + c of a cell becomes channel c of its part (y, x).

    One operator, so that it is exported as such. `pixel_shuffle` takes channel 4 c + 2 y + x instead: there, runtimes
    that keep a cell's channels together move single numbers, here runs of C.
    """
    parts = features.unflatten(1, (2, 2, -1)).permute(0, 3, 4, 1, 5, 2)  # (N, C, H, y, W, x)
    return parts.clone(memory_format=torch.contiguous_format).flatten(4, 5).flatten(2, 3)


@depth_to_space.register_fake
def _(features: Tensor) -> Tensor:
    batch, channels, height, width = features.shape
    return features.new_empty((batch, channels // 4, 2 * height, 2 * width))


def depth_to_space_in_onnx(features: ir.Value) -> ir.Value:
    """The operator's translation, for `torch.onnx.export(custom_translation_table=...)`."""
    return onnx_ops.DepthToSpace(features, blocksize=2, mode="DCR")


class SubpixelConv(nn.Module):
    """A transposed convolution (kernel 4, stride 2, padding 1) as a plain one, which low-precision kernels are fast at.

    Its outputs at odd and at even places are four 2 x 2 convolutions of the input (Shi et al. 2016): one convolution to
    4 times the channels, depth to space, and the border of one cell cropped. An elementwise activation may follow the
    convolution at once: there it becomes part of it, and what is moved about afterwards can have 8 bits. Raises
    ValueError for any other geometry.
    """

    def __init__(self, transposed: nn.ConvTranspose2d, activation: nn.Module | None = None) -> None:
        super().__init__()
        self.activation = activation or nn.Identity()
        geometry = (transposed.kernel_size, transposed.stride, transposed.padding, transposed.output_padding)
        if geometry != ((4, 4), (2, 2), (1, 1), (0, 0)) or transposed.groups != 1 or transposed.dilation != (1, 1):
            raise ValueError(f"only kernel 4, stride 2, padding 1 can be rewritten, not {transposed}")
        inputs, outputs = transposed.in_channels, transposed.out_channels
        self.conv = nn.Conv2d(inputs, 4 * outputs, kernel_size=2, padding=1, bias=transposed.bias is not None)
        self.conv.to(transposed.weight)
        with torch.no_grad():
            # Output 2 q + r takes the tap r + 2 of input q - 1 and the tap r of input q, along either axis.
            taps = transposed.weight.unflatten(3, (2, 2)).unflatten(2, (2, 2)).flip(2, 4)  # (in, out, y, ry, x, rx)
            self.conv.weight.copy_(taps.permute(3, 5, 1, 0, 2, 4).reshape(4 * outputs, inputs, 2, 2))
            if self.conv.bias is not None and transposed.bias is not None:
                self.conv.bias.copy_(transposed.bias.repeat(4))

    def forward(self, features: Tensor) -> Tensor:
        """(N, in, H, W) -> (N, out, 2 H, 2 W)."""
        return F.pad(depth_to_space(self.activation(self.conv(features))), (-1, -1, -1, -1))


class SubpixelGenerator(nn.Module):
    """A generator whose picture is finished before its pixels are put in place.

    Colours and mask come from a convolution each, the mask's outputs thrice, so that activations and product are plain
    elementwise operators on whole tensors, which runtimes make part of the convolutions.
    """

    def __init__(self, generator: Generator) -> None:
        super().__init__()
        self.body = generator
        head = SubpixelConv(generator.head).conv
        del generator.head
        shape = (4, 4, *head.weight.shape[1:])  # parts of a cell; red, green, blue and mask; inputs and taps
        assert head.bias is not None
        weight, bias = head.weight.detach().view(shape), head.bias.detach().view(shape[:2])
        # tanh(x) = 2 sigmoid(2 x) - 1, so that both are sigmoids.
        self.colours = _convolution(2 * weight[:, :3], 2 * bias[:, :3])
        self.mask = _convolution(weight[:, 3:].expand(-1, 3, -1, -1, -1), bias[:, 3:].expand(-1, 3))

    def forward(self, warped: Tensor, appearance: Tensor) -> tuple[Tensor, Tensor]:
        """As `Generator.forward`."""
        features = self.body.features(warped, appearance)
        mask = torch.sigmoid(self.mask(features))
        image = 2 * torch.sigmoid(self.colours(features)) * mask - 1
        image, mask = (F.pad(depth_to_space(parts), (-1, -1, -1, -1)) for parts in (image, mask))
        return image, mask[:, :1]


def _convolution(weight: Tensor, bias: Tensor) -> nn.Conv2d:
    """That of a sub-pixel convolution: weight (parts, maps, inputs, 2, 2), bias (parts, maps)."""
    convolution = nn.Conv2d(weight.shape[2], bias.numel(), kernel_size=2, padding=1)
    convolution.weight = nn.Parameter(weight.flatten(0, 1))
    convolution.bias = nn.Parameter(bias.flatten())
    return convolution


def rewritten(model: Model) -> Model:
    """A copy of a model in eval mode, without BatchNorm2d and ConvTranspose2d, that computes the same."""
    model = copy.deepcopy(model).eval()
    for layers in model.modules():
        if isinstance(layers, nn.Sequential):
            _fold_batch_norm(layers)
    for index, layers in enumerate(model.generator.up):
        transposed, _, activation = layers.children()
        assert isinstance(transposed, nn.ConvTranspose2d)
        model.generator.up[index] = SubpixelConv(transposed, activation)
    model.add_module("generator", SubpixelGenerator(model.generator))
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
