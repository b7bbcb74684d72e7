"""One optimizer step: the networks, the random views they see, and what pulls at them."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from jokr_rt.config import ModelConfig
from jokr_rt.training import losses
from jokr_rt.training.data import Backgrounds, Clip, Views, on_black
from jokr_rt.training.geometry import compose, inverse, random_affine, transform, warp
from jokr_rt.training.losses import LossWeights
from jokr_rt.training.networks import (
    DomainClassifier,
    Model,
    PatchDiscriminator,
    affine_grid_sample,
    render_heatmaps,
    soft_argmax,
)

Losses = dict[str, Tensor]
ADAM_BETAS = (0.5, 0.999)
GRADIENT_NORM = 5.0


@dataclass(frozen=True)
class Drawn:
    """What the model made of a batch of 2n views, first n of video A, then n of B.

    keypoints: of the un-augmented frames. moved: the same in the other video's space. images: 4n, first the
    reconstructions of `targets` (2n, RGB on black in [-1, 1]), then the retargeted frames, each of the domain opposite
    to its view's.
    """

    keypoints: Tensor
    moved: Tensor
    targets: Tensor
    images: Tensor


class Stepper:
    """Model, critics and their optimizers. `step` is deterministic in torch's random state."""

    def __init__(
        self, config: ModelConfig, clips: tuple[Clip, Clip], weights: LossWeights, lr: float, device: torch.device
    ) -> None:
        self.clips, self.weights, self.device = clips, weights, device
        self.model = Model(config)
        critics = {"classifier": DomainClassifier(config), "discriminator": PatchDiscriminator(config)}
        self.networks = nn.ModuleDict({"model": self.model, **critics}).to(device)
        self.optimizers = {
            name: torch.optim.Adam(network.parameters(), lr, betas=ADAM_BETAS)
            for name, network in self.networks.items()
        }
        self.backgrounds = Backgrounds(clips, device)

    def set_phase(self, lr: float, freeze_statistics: bool) -> None:
        """Learning rate, and whether BatchNorm keeps its statistics, as it will when exported."""
        self.networks.train()
        if freeze_statistics:
            for module in self.model.modules():
                if isinstance(module, nn.BatchNorm2d):
                    module.eval()
        for optimizer in self.optimizers.values():
            for group in optimizer.param_groups:
                group["lr"] = lr

    def step(self, count: int, ramp: float) -> Losses:
        """Draw `count` views of each clip and learn from them. ramp in [0, 1] scales what comes in late.

        Returns the unweighted losses; those of the critics too. The caller checks that they are finite.
        """
        drawn, found = self._forward([Views.sample(clip, count, self.device) for clip in self.clips])
        domain = torch.arange(2, device=self.device).repeat_interleave(count)
        fakes = self._fakes(drawn, domain, found)
        late = {"adversarial", "confusion", "cycle"}
        total = torch.stack(
            [value * getattr(self.weights, name) * (ramp if name in late else 1) for name, value in found.items()]
        ).sum()
        self._update("model", total)
        found["discriminator"] = self._teach_discriminator(drawn, fakes, domain)
        found["classifier"] = self._teach_classifier(drawn, domain)
        return {name: value.detach() for name, value in found.items()}

    def _forward(self, views: list[Views]) -> tuple[Drawn, Losses]:
        count = len(views[0].frames)
        frames, following, looks = (
            torch.cat([getattr(view, name) for view in views]) for name in ("frames", "following", "looks")
        )
        base, extra, other = (random_affine(2 * count, frames) for _ in range(3))
        augmented = warp(frames, base)
        seen = [augmented, warp(following, base), warp(frames, compose(base, extra))]
        inputs = [self.backgrounds.compose(part, side) for group in seen for side, part in enumerate(group.chunk(2))]
        # Appearance is read off an object on black, as export does; so no background can find its way into it.
        logits, appearance = self.model.extractor(torch.cat([*inputs, on_black(warp(looks, other))]))
        keypoints, _, mass = soft_argmax(logits)
        now, after, again, _ = keypoints.chunk(4)
        mask = F.adaptive_max_pool2d(augmented[:, 3:], mass.shape[-1])
        found = {
            "sparsity": losses.sparsity_loss(mass.chunk(4)[0], mask),
            "coverage": losses.coverage_loss(now, mask),
            "diversity": losses.diversity_loss(now),
            "temporal": losses.temporal_loss(now, after),
            "equivariance": losses.keypoint_distance(again, transform(inverse(extra), now)),
        }
        drawn = self._draw(now, transform(base, now), augmented, appearance.chunk(4)[3], found)
        return drawn, found

    def _draw(self, augmented: Tensor, keypoints: Tensor, targets: Tensor, looks: Tensor, found: Losses) -> Drawn:
        """Reconstruct from augmented keypoints, retarget from plain ones; add the losses of both to `found`."""
        size = self.model.config.heatmap_size
        in_a, in_b = keypoints.chunk(2)
        there = torch.cat([self.model.stn_a2b.locate(in_a), self.model.stn_b2a.locate(in_b)])
        moved = transform(inverse(there), keypoints)
        moved_a, moved_b = moved.chunk(2)
        back = torch.cat([self.model.stn_b2a.locate(moved_a), self.model.stn_a2b.locate(moved_b)])
        found["affine"] = torch.stack([losses.affine_loss(theta) for theta in there.chunk(2)]).mean()
        found["cycle"] = losses.identity_loss(there, back) + losses.keypoint_distance(
            transform(inverse(back), moved), keypoints
        )
        # Retargeted heatmaps come warped. So do these, by what the other video's frames are warped by or by chance,
        # about the same keypoints: else the generator would meet such heatmaps for the first time when it retargets.
        usual = torch.cat(there.detach().chunk(2)[::-1])
        coin = torch.rand(len(usual), 1, 1, device=usual.device) < 0.5
        bent = torch.where(coin, usual, random_affine(len(usual), usual))
        plain = affine_grid_sample(render_heatmaps(transform(bent, augmented), size), bent)
        warped = affine_grid_sample(render_heatmaps(keypoints, size), there)
        swapped = torch.cat(looks.chunk(2)[::-1])
        images, masks = self.model.generator(torch.cat([plain, warped]), torch.cat([looks, swapped]))
        mask = targets[:, 3:]
        expected = on_black(targets)
        found["reconstruction"] = losses.reconstruction_loss(images.chunk(2)[0], expected, mask)
        found["silhouette"] = losses.silhouette_loss(masks.chunk(2)[0], mask)
        return Drawn(keypoints, moved, expected, images)

    def _fakes(self, drawn: Drawn, domain: Tensor, found: Losses) -> Tensor:
        """Retargeted frames as the critics see them: augmented like the real ones. Adds what the critics say."""
        retargeted = drawn.images.chunk(2)[1]
        shake = random_affine(len(retargeted), retargeted)
        fakes = warp(retargeted + 1, shake) - 1  # zeros outside are black
        # The extractor as it will be exported: drawn frames must not leak into its batch statistics.
        extractor = self.model.extractor
        training = [module for module in extractor.modules() if module.training]
        extractor.eval()
        again, _, _ = soft_argmax(extractor(fakes)[0])
        for module in training:
            module.training = True
        found["cycle"] = found["cycle"] + losses.keypoint_distance(again, transform(inverse(shake), drawn.moved))
        discriminator = self.networks["discriminator"]
        found["adversarial"] = losses.adversarial_loss(
            discriminator(torch.cat([fakes, drawn.images.chunk(2)[0]]), torch.cat([1 - domain, domain])), real=True
        )
        poses = torch.cat([drawn.keypoints, drawn.moved])
        found["confusion"] = losses.confusion_loss(self.networks["classifier"](poses))
        return fakes.detach()

    def _teach_discriminator(self, drawn: Drawn, fakes: Tensor, domain: Tensor) -> Tensor:
        discriminator = self.networks["discriminator"]
        loss = losses.adversarial_loss(discriminator(drawn.targets, domain), real=True) + losses.adversarial_loss(
            discriminator(fakes, 1 - domain), real=False
        )
        self._update("discriminator", loss)
        return loss

    def _teach_classifier(self, drawn: Drawn, domain: Tensor) -> Tensor:
        """Whose pose is it? Asked in both spaces: a pose keeps its origin's label where it was moved to."""
        poses = torch.cat([drawn.keypoints, drawn.moved]).detach()
        loss = losses.classification_loss(self.networks["classifier"](poses), domain.repeat(2).float())
        self._update("classifier", loss)
        return loss

    def _update(self, name: str, loss: Tensor) -> None:
        optimizer = self.optimizers[name]
        for each in self.optimizers.values():
            each.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(self.networks[name].parameters(), GRADIENT_NORM)
        optimizer.step()
