"""The method's networks (arXiv 2106.09679). Coordinates are (x, y) in [-1, 1], `align_corners=False` everywhere.

The stages meet in the shapes of a bundle's graphs: frames -> keypoints, appearance -> warped heatmaps -> image.
Frames and images are (N, 3, size, size) float in [-1, 1] here; the exported graphs wrap them in uint8.
"""

from collections.abc import Sequence
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

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


def _conv(inputs: int, outputs: int) -> nn.Conv2d:
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
        encoder: list[nn.Module] = [_conv(3, widths[0]), nn.LeakyReLU(0.2)]
        for inputs, outputs in zip(widths[:-1], widths[1:], strict=True):
            encoder += [_conv(inputs, outputs), BatchNorm(outputs), nn.LeakyReLU(0.2)]
        decoder: list[nn.Module] = []
        for inputs, outputs in zip(widths[:0:-1], widths[-2::-1], strict=True):
            decoder += [_up(inputs, outputs), BatchNorm(outputs), nn.ReLU()]
        self.encoder = nn.Sequential(*encoder)
        self.decoder = nn.Sequential(*decoder)
        self.keypoint_head = nn.Conv2d(widths[0], config.keypoints, kernel_size=1)
        self.appearance_head = nn.Conv2d(widths[0], 3, kernel_size=1)
        # About unit variance, as strong as the heatmaps: else the generator long tells the videos apart by pose.
        nn.init.normal_(self.appearance_head.weight, std=2 / widths[0] ** 0.5)

    def forward(self, frames: Tensor) -> tuple[Tensor, Tensor]:
        """(N, 3, size, size) in [-1, 1] -> keypoint logits (N, K, E/2, E/2) and appearance (N, 3, size/2, size/2).

        E is `extractor_size`; the frame is averaged down to it, and the appearance map is brought back up.
        Frames of another size give the same keypoints and an appearance of half that size.
        """
        reduction = frames.shape[-1] // self.config.extractor_size
        if reduction > 1:
            frames = F.avg_pool2d(frames, reduction)
        features = self._features(frames)
        appearance = self.appearance_head(features)
        if reduction > 1:
            appearance = F.interpolate(appearance, scale_factor=reduction, mode="bilinear", align_corners=False)
        return self.keypoint_head(features), appearance

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


class DomainClassifier(nn.Module):
    """Which of the two videos do these keypoints belong to? Training only."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.Flatten()]
        inputs = 2 * config.keypoints
        for outputs in (512, 256, 128):
            layers += [nn.Linear(inputs, outputs), nn.Dropout(0.2), nn.LeakyReLU(0.2)]
            inputs = outputs
        self.layers = nn.Sequential(*layers, nn.Linear(inputs, 1))

    def forward(self, keypoints: Tensor) -> Tensor:
        """(N, K, 2) -> logit (N,) of "from video B"."""
        return self.layers(keypoints).squeeze(1)


class SpatialTransformer(nn.Module):
    """The affine map from one video's pose space to the other's, read off the heatmaps; identity at the start."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        hidden, features = config.channels(32), config.channels(64)
        self.localization = nn.Sequential(
            nn.Conv2d(config.keypoints, hidden, kernel_size=7), nn.MaxPool2d(2), nn.ReLU(),
            nn.Conv2d(hidden, features, kernel_size=5), nn.MaxPool2d(2), nn.ReLU(),
        )  # fmt: skip
        side = ((config.extractor_map_size - 6) // 2 - 4) // 2
        self.regressor = nn.Linear(features * side * side, 6)
        self.start_from(torch.eye(2, 3))

    @torch.no_grad()
    def start_from(self, theta: Tensor) -> None:
        """Make it the constant map theta (2, 3)."""
        self.regressor.weight.zero_()
        self.regressor.bias.copy_(theta.flatten())

    def locate(self, keypoints: Tensor) -> Tensor:
        """Keypoints (N, K, 2) -> theta (N, 2, 3), in the sense of `affine_grid_sample`."""
        heatmaps = render_heatmaps(keypoints, self.config.extractor_map_size)
        return self.regressor(self.localization(heatmaps).flatten(1)).unflatten(1, (2, 3))

    def forward(self, keypoints: Tensor) -> tuple[Tensor, Tensor]:
        """Keypoints (N, K, 2) -> theta (N, 2, 3) and their heatmaps, warped (N, K, size/2, size/2)."""
        heatmaps = render_heatmaps(keypoints, self.config.heatmap_size)
        theta = self.locate(keypoints)
        return theta, affine_grid_sample(heatmaps, theta)


class Generator(nn.Module):
    """U-Net from (warped heatmaps, appearance) to the object on black. Its fourth output map is the object's mask."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        down = [config.channels(full) for full in (64, 128, 256, 512, 512)]
        up = [config.channels(full) for full in (512, 256, 128, 64, 64)]
        self.down = nn.ModuleList()
        for level, (inputs, outputs) in enumerate(zip([config.keypoints + 3, *down[:-1]], down, strict=True)):
            inner = 0 < level < len(down) - 1  # no statistics over the first level, nor over one that may be 1 x 1
            self.down.append(nn.Sequential(_conv(inputs, outputs), *[BatchNorm(outputs)] * inner, nn.LeakyReLU(0.2)))
        self.up = nn.ModuleList()
        skips = [0, *down[-2::-1]]
        for inputs, skip, outputs in zip([down[-1], *up[:-1]], skips, up, strict=True):
            self.up.append(nn.Sequential(_up(inputs + skip, outputs), BatchNorm(outputs), nn.ReLU()))
        self.head = _up(up[-1], 4)

    def forward(self, warped: Tensor, appearance: Tensor) -> tuple[Tensor, Tensor]:
        """(N, K, H, H) and (N, 3, H, H) -> image (N, 3, 2H, 2H) in [-1, 1] on black (-1), mask (N, 1, 2H, 2H)."""
        colours, mask = self.head(self.features(warped, appearance)).split([3, 1], dim=1)
        mask = torch.sigmoid(mask)
        return (torch.tanh(colours) + 1) * mask - 1, mask

    def features(self, warped: Tensor, appearance: Tensor) -> Tensor:
        """What the head makes image and mask of. (N, K, H, H) and (N, 3, H, H) -> (N, C, H, H)."""
        features = torch.cat([warped, appearance], dim=1)
        skips = []
        for layer in self.down:
            features = layer(features)
            skips.append(features)
        features = self.up[0](skips.pop())
        for layer in list(self.up)[1:]:
            features = layer(torch.cat([features, skips.pop()], dim=1))
        return features


class PatchDiscriminator(nn.Module):
    """Real or drawn, patch by patch (Isola et al. 2017), one output map for each video. Training only.

    Spectrally normalised (Miyato et al. 2018): normalised by each picture's statistics instead, it magnified faint
    lattices on black, and the generator learnt to draw them.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        widths = [config.channels(full) for full in (64, 128, 256)]
        layers: list[nn.Module] = []
        for inputs, outputs in zip([3, *widths[:-1]], widths, strict=True):
            layers += [spectral_norm(_conv(inputs, outputs)), nn.LeakyReLU(0.2)]
        self.layers = nn.Sequential(*layers, spectral_norm(nn.Conv2d(widths[-1], 2, kernel_size=4, padding=1)))

    def forward(self, images: Tensor, domain: Tensor) -> Tensor:
        """Images (N, 3, size, size), domain (N,) int64 of 0 or 1 -> scores (N, h, w)."""
        scores = self.layers(images)
        return scores[torch.arange(len(scores), device=scores.device), domain]


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
