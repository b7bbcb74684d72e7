"""The second stage: pictures. The geometry is frozen; a generator learns to draw each video from its keypoints."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from jokr_rt.training import losses
from jokr_rt.training.affine import inverse, transform, warp
from jokr_rt.training.critics import PatchDiscriminator
from jokr_rt.training.data import on_black
from jokr_rt.training.geometry import GeometryNetworks, own
from jokr_rt.training.losses import LossWeights
from jokr_rt.training.networks import (
    Model,
    affine_grid_sample,
    render_heatmaps,
    soft_argmax,
)
from jokr_rt.training.perception import Features, perceptual_loss
from jokr_rt.training.sights import measure_sights
from jokr_rt.training.stage import Losses, Stage, averaged, placed, weighted
from jokr_rt.training.views import TextureBatch

GENERATOR_RATE = 2.0  # of the learning rate
DISCRIMINATOR_RATE = 0.4
LATE = ("adversarial", "features")  # come in with the ramp: a critic of what is not yet a picture says nothing


@dataclass(frozen=True)
class Drawn:
    """What the generator made of 2n views, first n of video A, then n of B.

    keypoints: (2n, K, 2), found in the views. images (2n, 3, S, S) in [-1, 1] and masks (2n, 1, S, S): the views drawn
    again. Of every other view: destination (2m, K, 2), the pose of its plain frame in the other video's space;
    retargeted (2m, 3, S, S) and shapes (2m, 1, S, S), the other creature drawn there.
    """

    keypoints: Tensor
    images: Tensor
    masks: Tensor
    destination: Tensor
    retargeted: Tensor
    shapes: Tensor


class TextureNetworks(nn.Module):
    """What the texture learns."""

    def __init__(self, model: Model) -> None:
        super().__init__()
        self.generator = model.generator
        self.looks = model.extractor.looks.requires_grad_(True)


class TextureStage(Stage[TextureNetworks]):
    """Generator and appearance encoder learn, against a critic of pictures. The geometry does not change any more.

    The generator meets in training what it will meet when it retargets: heatmaps warped by the map, and the other
    video's poses. Of these no true picture is known; the drawer tells their silhouettes, the extractor must find their
    keypoints again, and the critic judges them.
    """

    def __init__(
        self,
        model: Model,
        geometry: GeometryNetworks,
        features: Features | None,
        weights: LossWeights,
        precision: str,
        device: torch.device,
    ) -> None:
        """model: with what the geometry has come to. features: for the perceptual loss, if it is wanted."""
        self.weights, self.geometry = weights, geometry
        self.features = None if features is None else placed(features, device)
        self.theta = torch.stack([model.stn_a2b.theta, model.stn_b2a.theta]).detach().to(device)
        super().__init__(
            TextureNetworks(model),
            PatchDiscriminator(model.config),
            geometry,
            rates={"generator": GENERATOR_RATE, "looks": GENERATOR_RATE},
            critic_rate=DISCRIMINATOR_RATE,
            precision=precision,
            device=device,
        )

    def step(self, batch: TextureBatch, ramp: float) -> Losses:
        """Learn from a batch. ramp in [0, 1] scales what comes in late. Returns the unweighted losses."""
        self.learner.train()
        true, mask = on_black(batch.targets), batch.targets[:, 3:]
        drawn = self._draw(batch, self.learner)
        found = {
            "reconstruction": losses.reconstruction_loss(drawn.images, true, mask),
            "differences": losses.differences_loss(drawn.images, true),
            "mask": losses.silhouette_loss(drawn.masks, mask),
            "shape": self._shape_loss(drawn),
        }
        if self.features is not None:
            found["perceptual"] = self._perceptual_loss(_every_other(drawn.images), _every_other(true))
        shake = _every_other(batch.shake)
        fakes = warp(drawn.retargeted + 1, shake) - 1  # zeros outside are black
        found["cycle"] = losses.keypoint_distance(self._find(fakes), transform(inverse(shake), drawn.destination))
        if ramp > 0:
            found |= self._criticism(drawn.images, fakes, true)
        self.update("learner", weighted(found, self.weights, dict.fromkeys(LATE, ramp)))
        if ramp > 0:
            found["discriminator"] = self._teach_discriminator(drawn.images.detach(), fakes.detach(), true)
        self.sights = measure_sights(drawn.keypoints, drawn.masks, mask, drawn.images, true)
        return averaged(found)

    def look(self, networks: TextureNetworks, batch: TextureBatch) -> Drawn:
        return self._draw(batch, networks)

    def hand_over(self, networks: TextureNetworks, model: Model) -> None:
        model.extractor.looks.load_state_dict(networks.looks.state_dict())
        model.generator.load_state_dict(networks.generator.state_dict())

    def _find(self, frames: Tensor) -> Tensor:
        return soft_argmax(self.through(self.geometry.extractor.find, frames))[0]

    def _draw(self, batch: TextureBatch, networks: TextureNetworks) -> Drawn:
        with torch.no_grad():
            keypoints = self._find(batch.inputs)
        size = batch.targets.shape[-1] // 2
        theta = self.theta.repeat_interleave(len(keypoints) // 2, dim=0)
        # Retargeted heatmaps come warped. So do these, by what the other video's frames are warped by or by chance,
        # about the same keypoints: else the generator would meet such heatmaps for the first time when it retargets.
        bent = torch.where(batch.usual, torch.cat(theta.chunk(2)[::-1]), batch.bend)
        own_heatmaps = affine_grid_sample(render_heatmaps(transform(bent, keypoints), size), bent)
        plain, there = _every_other(transform(batch.base, keypoints)), _every_other(theta)
        heatmaps = affine_grid_sample(render_heatmaps(plain, size), there)
        worn = self.geometry.extractor.reduced(batch.looks)
        looks = self.through(networks.looks, worn)[:, :, None, None].expand(-1, -1, size, size)
        swapped = _every_other(torch.cat(looks.chunk(2)[::-1]))
        images, masks = self.through(
            networks.generator, torch.cat([own_heatmaps, heatmaps]), torch.cat([looks, swapped])
        )
        views = [len(keypoints), len(plain)]
        (redrawn, retargeted), (mask, shapes) = images.split(views), masks.split(views)
        return Drawn(keypoints, redrawn, mask, transform(inverse(there), plain), retargeted, shapes)

    def _shape_loss(self, drawn: Drawn) -> Tensor:
        """The retargeted creatures' masks against the silhouettes that the geometry gives them."""
        with torch.no_grad():
            # Decided: where the drawer is in doubt, the generator would draw a ghost.
            both = (self.through(self.geometry.silhouettes, drawn.destination) > 0).float()
            wanted = own(both.flip(1))
        shapes = F.adaptive_avg_pool2d(drawn.shapes, min(drawn.shapes.shape[-1], wanted.shape[-1]))
        return losses.silhouette_loss(shapes, F.adaptive_avg_pool2d(wanted, shapes.shape[-1]))

    def _perceptual_loss(self, images: Tensor, true: Tensor) -> Tensor:
        assert self.features is not None
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bf16"):
            return perceptual_loss(self.features, images, true)

    def _criticism(self, images: Tensor, fakes: Tensor, true: Tensor) -> Losses:
        with torch.no_grad():
            _, *real = self.through(self.critic, true, _sides(true))
        sides = torch.cat([_sides(images), 1 - _sides(fakes)])
        scores, *features = self.through(self.critic, torch.cat([images, fakes]), sides)
        return {
            "adversarial": losses.adversarial_loss(scores, real=True),
            "features": losses.feature_matching_loss([level[: len(images)] for level in features], real),
        }

    def _teach_discriminator(self, images: Tensor, fakes: Tensor, true: Tensor) -> Tensor:
        sides = torch.cat([_sides(true), _sides(images), 1 - _sides(fakes)])
        scores, *_ = self.through(self.critic, torch.cat([true, images, fakes]), sides)
        real, drawn = scores.split([len(true), len(images) + len(fakes)])
        loss = losses.adversarial_loss(real, real=True) + losses.adversarial_loss(drawn, real=False)
        self.update("critic", loss)
        return loss


def _every_other(views: Tensor) -> Tensor:
    """Of 2n views, first n of video A, then n of B, every other one of either: (2m, ...)."""
    return views.unflatten(0, (2, -1))[:, ::2].flatten(0, 1)


def _sides(views: Tensor) -> Tensor:
    """Whose views these are, the first half A's (0), the others B's (1): (2n,) int64."""
    return torch.arange(2, device=views.device).repeat_interleave(len(views) // 2)
