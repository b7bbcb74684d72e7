"""What a frame costs at least, from the numbers of the model's config alone."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

from jokr_rt.config import ModelConfig

STAGES = ("extractor", "generator")


@dataclass(frozen=True)
class Layer:
    """A convolution, transposed one or linear layer. cells: positions at which the whole kernel is applied."""

    stage: str
    kernel: int
    inputs: int
    outputs: int
    cells: int

    @property
    def weights(self) -> int:
        return self.kernel**2 * self.inputs * self.outputs

    @property
    def flops(self) -> int:
        """A multiplication and an addition are two."""
        return 2 * self.weights * self.cells


def layers(config: ModelConfig) -> Iterator[Layer]:
    """Those that a frame of one direction passes, of the networks in `jokr_rt.training.networks`: not those that read
    its looks, which is done once for a target. A spatial transformer has none."""
    yield from _extractor(config)
    yield from _generator(config)


def flops(config: ModelConfig) -> dict[str, int]:
    """FLOPs of one frame by stage: of the layers, which are all but some thousandths of them."""
    return {stage: sum(layer.flops for layer in layers(config) if layer.stage == stage) for stage in STAGES}


def weights(config: ModelConfig) -> int:
    """Numbers in the kernels that a frame meets, each of which has to be read for it."""
    return sum(layer.weights for layer in layers(config))


def _extractor(config: ModelConfig) -> Iterator[Layer]:
    widths = [config.channels(full) for full in (64, 128, 256, 512, 1024)]
    side = config.extractor_size
    for inputs, outputs in pairwise([3, *widths]):
        side //= 2
        yield Layer("extractor", 4, inputs, outputs, side**2)
    for inputs, outputs in pairwise(reversed(widths)):
        yield Layer("extractor", 4, inputs, outputs, side**2)
        side *= 2
    yield Layer("extractor", 1, widths[0], config.keypoints, side**2)


def _generator(config: ModelConfig) -> Iterator[Layer]:
    down = [config.channels(full) for full in (64, 128, 256, 512, 512)]
    up = [config.channels(full) for full in (512, 256, 128, 64, 64)]
    side = config.heatmap_size
    for inputs, outputs in pairwise([config.keypoints + 3, *down]):
        side //= 2
        yield Layer("generator", 4, inputs, outputs, side**2)
    skips = [0, *down[-2::-1], 0]
    for inputs, skip, outputs in zip([down[-1], *up], skips, [*up, 4], strict=True):
        yield Layer("generator", 4, inputs + skip, outputs, side**2)
        side *= 2
