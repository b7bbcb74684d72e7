"""What the networks learn against: a judge of poses, and one of pictures. They are not exported."""

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from jokr_rt.config import ModelConfig
from jokr_rt.training.networks import conv


class DomainClassifier(nn.Module):
    """Which of the two videos do these keypoints belong to?"""

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


class PatchDiscriminator(nn.Module):
    """Real or drawn, patch by patch (Isola et al. 2017), one output map for each video.

    Spectrally normalised (Miyato et al. 2018): normalised by each picture's statistics instead, it magnified faint
    lattices on black, and the generator learnt to draw them.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        widths = [config.channels(full) for full in (64, 128, 256)]
        layers: list[nn.Module] = []
        for inputs, outputs in zip([3, *widths[:-1]], widths, strict=True):
            layers += [spectral_norm(conv(inputs, outputs)), nn.LeakyReLU(0.2)]
        self.layers = nn.Sequential(*layers, spectral_norm(nn.Conv2d(widths[-1], 2, kernel_size=4, padding=1)))

    def forward(self, images: Tensor, domain: Tensor) -> tuple[Tensor, ...]:
        """Images (N, 3, size, size), domain (N,) int64 of 0 or 1 -> scores (N, h, w), and each level's features."""
        features = []
        for layer in self.layers:
            images = layer(images)
            if isinstance(layer, nn.LeakyReLU):
                features.append(images)
        return images[torch.arange(len(images), device=images.device), domain], *features
