"""The method's networks (arXiv 2106.09679). Coordinates are (x, y) in [-1, 1], `align_corners=False` everywhere.

The stages meet in the shapes of a bundle's graphs: frames -> keypoints, appearance -> warped heatmaps -> image.
Frames and images are (N, 3, size, size) float in [-1, 1] here; the exported graphs wrap them in uint8.
"""

from collections.abc import Sequence
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from jokr_rt.config import GAUSSIAN_STD, ModelConfig
from jokr_rt.training.distributed import BatchNorm

SOFTMAX_TEMPERATURE = 0.1


def cell_centres(size: int, like: Tensor) -> Tensor:
    """Coordinates of the `size` cell centres along one axis of [-1, 1], as `align_corners=False` has them."""
    return (torch.arange(size, dtype=like.dtype, device=like.device) * 2 + 1) / size - 1


def soft_argmax(logits: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Softmax over space, then its expectation: the bottleneck through which only 2K numbers pass.

    logits: (N, K, H, W). Returns keypoints (N, K, 2) as (x, y), confidence (N, K) in (0, 1], the softmax mass
    near the keypoint, weighed by the Gaussian that renders it, and the probabilities (N, K, H, W).
    """
    mass = torch.softmax(logits.flatten(2) / SOFTMAX_TEMPERATURE, dim=-1).view_as(logits)
    xs, ys = cell_centres(logits.shape[3], logits), cell_centres(logits.shape[2], logits)
    keypoints = torch.stack([(mass.sum(2) * xs).sum(-1), (mass.sum(3) * ys).sum(-1)], dim=-1)
    near = torch.exp(squared_distance_map(keypoints, logits.shape[2:]) / (-2 * GAUSSIAN_STD**2))
    confidence = (mass * near).sum((2, 3))
    return keypoints, confidence, mass


def render_heatmaps(keypoints: Tensor, size: int) -> Tensor:
    """Gaussians exp(-|p - k|^2 / (2 std^2)) of height 1. (N, K, 2) -> (N, K, size, size)."""
    return torch.exp(squared_distance_map(keypoints, (size, size)) / (-2 * GAUSSIAN_STD**2))


def squared_distance_map(keypoints: Tensor, shape: Sequence[int]) -> Tensor:
    """|p - k|^2 for every cell centre p of an h x w map. (N, K, 2), (h, w) -> (N, K, h, w)."""
    height, width = shape
    dx = cell_centres(width, keypoints) - keypoints[..., 0:1]
    dy = cell_centres(height, keypoints) - keypoints[..., 1:2]
    return dy.square().unsqueeze(-1) + dx.square().unsqueeze(-2)


@torch.library.custom_op("jokr::affine_grid_sample", mutates_args=())
def affine_grid_sample(heatmaps: Tensor, theta: Tensor) -> Tensor:
    """Sample `heatmaps` (N, C, H, W) bilinearly at theta (N, 2, 3) applied to each output cell's coordinates.

    output(p) = heatmaps(theta @ (p, 1)), zeros outside, `align_corners=False`: Jaderberg et al. 2015, eq. 1 and 3.
    Heatmaps of 16 bits are sampled, and their positions computed, in theta's dtype.
    One operator, so that the export keeps it whole for the TensorRT plugin of the same name.
    """
    grid = F.affine_grid(theta, list(heatmaps.shape), align_corners=False)
    return F.grid_sample(heatmaps.to(grid.dtype), grid, align_corners=False).to(heatmaps.dtype)


@affine_grid_sample.register_fake
def _(heatmaps: Tensor, theta: Tensor) -> Tensor:
    return torch.empty_like(heatmaps)


def _remember(ctx: torch.autograd.function.FunctionCtx, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:
    ctx.save_for_backward(*inputs)


def _gradient(ctx: torch.autograd.function.BackwardCFunction, upstream: Tensor) -> tuple[Tensor, ...]:
    with torch.enable_grad():
        heatmaps, theta = (saved.detach().requires_grad_() for saved in ctx.saved_tensors)
        grid = F.affine_grid(theta, list(heatmaps.shape), align_corners=False)
        sampled = F.grid_sample(heatmaps, grid, align_corners=False)
    return torch.autograd.grad(sampled, (heatmaps, theta), upstream)


affine_grid_sample.register_autograd(_gradient, setup_context=_remember)


def conv(inputs: int, outputs: int) -> nn.Conv2d:
    """That halves a picture's sides."""
    return nn.Conv2d(inputs, outputs, kernel_size=4, stride=2, padding=1)


def _up(inputs: int, outputs: int) -> nn.ConvTranspose2d:
    """Each kernel starts as a bilinear enlargement: random ones draw a lattice, which takes long to unlearn."""
    layer = nn.ConvTranspose2d(inputs, outputs, 4, stride=2, padding=1)
    along = torch.tensor([0.25, 0.75, 0.75, 0.25])
    mix = torch.randn(inputs, outputs, 1, 1) / inputs**0.5
    with torch.no_grad():
        layer.weight.copy_(mix * along[:, None] * along)
    return layer


class KeypointExtractor(nn.Module):
    """Encoder-decoder from a frame to K keypoints and an appearance map (paper's detailed pseudo-code).

    Ours: each level of the decoder adds the encoder's of the same size, as an hourglass does (Newell et al. 2016). It
    has no weights. Without it all positions pass through a bottleneck of a few cells, and stay vague.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        widths = [config.channels(full) for full in (64, 128, 256, 512, 1024)]
        encoder: list[nn.Module] = [conv(3, widths[0]), nn.LeakyReLU(0.2)]
        for inputs, outputs in zip(widths[:-1], widths[1:], strict=True):
            encoder += [conv(inputs, outputs), BatchNorm(outputs), nn.LeakyReLU(0.2)]
        decoder: list[nn.Module] = []
        for inputs, outputs in zip(widths[:0:-1], widths[-2::-1], strict=True):
            decoder += [_up(inputs, outputs), BatchNorm(outputs), nn.ReLU()]
        self.encoder = nn.Sequential(*encoder)
        self.decoder = nn.Sequential(*decoder)
        self.keypoint_head = nn.Conv2d(widths[0], config.keypoints, kernel_size=1)
        self.looks = AppearanceEncoder(config)

    def forward(self, frames: Tensor) -> tuple[Tensor, Tensor]:
        """(N, 3, size, size) in [-1, 1] -> keypoint logits (N, K, E/2, E/2) and appearance (N, 3, size/2, size/2).

        E is `extractor_size`; the frame is averaged down to it. The appearance is the same at all places.
        Frames of another size give the same keypoints and an appearance of half that size.
        """
        side = frames.shape[-1] // 2
        frames = self.reduced(frames)
        return self.find(frames), self.looks(frames)[:, :, None, None].expand(-1, -1, side, side)

    def find(self, frames: Tensor) -> Tensor:
        """The keypoint logits alone."""
        return self.keypoint_head(self._features(self.reduced(frames)))

    def reduced(self, frames: Tensor) -> Tensor:
        """Frames averaged down to what is looked at."""
        reduction = frames.shape[-1] // self.config.extractor_size
        return F.avg_pool2d(frames, reduction) if reduction > 1 else frames

    def _features(self, features: Tensor) -> Tensor:
        skips = []
        for layer in self.encoder:
            features = layer(features)
            if isinstance(layer, nn.LeakyReLU):
                skips.append(features)
        skips.pop()
        for layer in self.decoder:
            if isinstance(layer, nn.ReLU):  # not after BatchNorm, which export folds away
                features = features + skips.pop()
            features = layer(features)
        return features


class AppearanceEncoder(nn.Module):
    """What a creature looks like, in three numbers in [-1, 1] for the whole frame: no place for a pose to hide."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        widths = [config.channels(full) for full in (32, 64, 128, 128)]
        layers: list[nn.Module] = []
        for inputs, outputs in zip([3, *widths[:-1]], widths, strict=True):
            layers += [conv(inputs, outputs), nn.LeakyReLU(0.2)]
        self.layers = nn.Sequential(*layers)
        self.head = nn.Linear(widths[-1], 3)

    def forward(self, frames: Tensor) -> Tensor:
        """(N, 3, E, E) in [-1, 1] -> (N, 3)."""
        return torch.tanh(self.head(self.layers(frames).mean((2, 3))))


class SpatialTransformer(nn.Module):
    """The affine map from one video's pose space to the other's: one for the pair, the identity at the start.

    A map read off each pose's heatmaps, as the paper has it, gave nothing on frames that training had not seen, and let
    training fail; its authors' release has one map for the pair, too.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.theta = nn.Parameter(torch.eye(2, 3))

    def locate(self, keypoints: Tensor) -> Tensor:
        """Keypoints (N, K, 2) -> theta (N, 2, 3), in the sense of `affine_grid_sample`."""
        return self.theta.expand(keypoints.shape[0], -1, -1)  # len() would make the batch a constant in an export

    def forward(self, keypoints: Tensor) -> tuple[Tensor, Tensor]:
        """Keypoints (N, K, 2) -> theta (N, 2, 3) and their heatmaps, warped (N, K, size/2, size/2)."""
        heatmaps = render_heatmaps(keypoints, self.config.heatmap_size)
        theta = self.locate(keypoints)
        return theta, affine_grid_sample(heatmaps, theta)


class _UNet(nn.Module):
    """U-Net whose outputs are twice as large as its inputs (N, inputs, H, H), H a multiple of 32."""

    def __init__(self, config: ModelConfig, inputs: int, outputs: int) -> None:
        super().__init__()
        down = [config.channels(full) for full in (64, 128, 256, 512, 512)]
        up = [config.channels(full) for full in (512, 256, 128, 64, 64)]
        self.down = nn.ModuleList()
        for level, (before, after) in enumerate(zip([inputs, *down[:-1]], down, strict=True)):
            inner = 0 < level < len(down) - 1  # no statistics over the first level, nor over one that may be 1 x 1
            self.down.append(nn.Sequential(conv(before, after), *[BatchNorm(after)] * inner, nn.LeakyReLU(0.2)))
        self.up = nn.ModuleList()
        skips = [0, *down[-2::-1]]
        for before, skip, after in zip([down[-1], *up[:-1]], skips, up, strict=True):
            self.up.append(nn.Sequential(_up(before + skip, after), BatchNorm(after), nn.ReLU()))
        self.head = _up(up[-1], outputs)

    def _features(self, features: Tensor) -> Tensor:
        skips = []
        for layer in self.down:
            features = layer(features)
            skips.append(features)
        features = self.up[0](skips.pop())
        for layer in list(self.up)[1:]:
            features = layer(torch.cat([features, skips.pop()], dim=1))
        return features


class Generator(_UNet):
    """From (warped heatmaps, appearance) to the object on black. Its fourth output map is the object's mask."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config, config.keypoints + 3, 4)

    def forward(self, warped: Tensor, appearance: Tensor) -> tuple[Tensor, Tensor]:
        """(N, K, H, H) and (N, 3, H, H) -> image (N, 3, 2H, 2H) in [-1, 1] on black (-1), mask (N, 1, 2H, 2H)."""
        colours, mask = self.head(self.features(warped, appearance)).split([3, 1], dim=1)
        mask = torch.sigmoid(mask)
        return (torch.tanh(colours) + 1) * mask - 1, mask

    def features(self, warped: Tensor, appearance: Tensor) -> Tensor:
        """What the head makes image and mask of. (N, K, H, H) and (N, 3, H, H) -> (N, C, H, H)."""
        return self._features(torch.cat([warped, appearance], dim=1))


class SilhouetteDrawer(_UNet):
    """From heatmaps alone to what either creature's silhouette is in that pose. Training only."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config, config.keypoints, 2)
        self.size = config.size

    def forward(self, heatmaps: Tensor) -> Tensor:
        """(N, K, H, H) -> logits (N, 2, 2H, 2H) of the object of video A and of B."""
        return self.head(self._features(heatmaps))


class Model(nn.Module):
    """What is exported: extractor, an STN for each direction, generator."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.extractor = KeypointExtractor(config)
        self.stn_a2b = SpatialTransformer(config)
        self.stn_b2a = SpatialTransformer(config)
        self.generator = Generator(config)

    def stn(self, direction: str) -> SpatialTransformer:
        """The transformer of "a2b" or "b2a"."""
        return {"a2b": self.stn_a2b, "b2a": self.stn_b2a}[direction]

    def resized(self, size: int) -> "Model":
        """A copy for frames of another size; no weight depends on it."""
        model = Model(replace(self.config, size=size)).to(next(self.parameters()).device)
        model.load_state_dict(self.state_dict())
        return model.train(self.training)
