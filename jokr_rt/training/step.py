"""One optimizer step: the networks, and what pulls at them."""

import copy
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from jokr_rt.config import ModelConfig
from jokr_rt.training import distributed, losses
from jokr_rt.training.data import on_black
from jokr_rt.training.distributed import gather
from jokr_rt.training.geometry import inverse, registration, transform, warp
from jokr_rt.training.losses import LossWeights
from jokr_rt.training.networks import (
    DomainClassifier,
    Model,
    PatchDiscriminator,
    affine_grid_sample,
    render_heatmaps,
    soft_argmax,
)
from jokr_rt.training.sights import measure_sights
from jokr_rt.training.views import Batch

Losses = dict[str, Tensor]
ADAM_BETAS = (0.5, 0.999)
GRADIENT_NORM = 5.0
TRANSFORMER_RATE = 0.1  # of the learning rate: at the full one theta swings about
AVERAGE_DECAY = 0.998
CENTRES_DECAY = 0.98
LATE = frozenset({"adversarial", "confusion", "matching", "cycle"})  # losses that come in gradually
EARLY = frozenset({"coverage"})  # and that fade: it would hold a long tail's keypoints where a short one has none
EARLY_LEFT = 0.1  # of their weights, at the end


@dataclass(frozen=True)
class Drawn:
    """What the model made of a batch of 2n views, first n of video A, then n of B.

    keypoints: 2 (n + m) poses in plain frames, first n + m of A; of each n + m the first n are drawn, the others are of
    the frames that lend their looks or, settling, of all of `Batch.plain`. moved: the same in the other video's space.
    destination: the 2n of these that are drawn. images: 4n, first the reconstructions of `targets` (2n, RGB on black in
    [-1, 1]), then the retargeted frames, each of the domain opposite to its view's.
    """

    keypoints: Tensor
    moved: Tensor
    destination: Tensor
    targets: Tensor
    images: Tensor


class Stepper:
    """Model, critics and their optimizers. `step` is deterministic in the batch and torch's random state.

    `average` is what to keep: the model's weights averaged exponentially over the steps, which evens out the swings of
    adversarial training (Yazici et al. 2019).
    """

    def __init__(
        self, config: ModelConfig, weights: LossWeights, lr: float, device: torch.device, precision: str = "fp32"
    ) -> None:
        self.weights, self.device, self.precision = weights, device, precision
        self.model = Model(config)
        critics = {"classifier": DomainClassifier(config), "discriminator": PatchDiscriminator(config)}
        self.average = copy.deepcopy(self.model).requires_grad_(False)
        self.networks = nn.ModuleDict({"model": self.model, **critics, "average": self.average})
        self.networks.register_buffer("centres", torch.zeros(2, config.keypoints, 2))
        # On a GPU, convolutions are fastest where a pixel's channels lie side by side.
        layout = torch.channels_last if device.type == "cuda" else torch.preserve_format
        self.networks.to(device, memory_format=layout)  # type: ignore[call-overload]
        self.centres: Tensor = self.networks.get_buffer("centres")  # mean keypoints of each video, lately
        transformers = [*self.model.stn_a2b.parameters(), *self.model.stn_b2a.parameters()]
        rest = [*self.model.extractor.parameters(), *self.model.generator.parameters()]
        groups = {name: [{"params": list(critic.parameters()), "rate": 1.0}] for name, critic in critics.items()}
        groups["model"] = [{"params": rest, "rate": 1.0}, {"params": transformers, "rate": TRANSFORMER_RATE}]
        self.optimizers = {name: torch.optim.Adam(group, lr, betas=ADAM_BETAS) for name, group in groups.items()}
        self.settling = False
        self.sights = torch.zeros(4, 2)  # see `Sights`: what the last step showed
        self._averaging = {name: distributed.averaging(self.networks[name]) for name in self.optimizers}

    def compile(self) -> None:
        """Let `torch.compile` make the large networks faster; the first steps are slow then."""
        for network in (self.model.extractor, self.model.generator, self.networks["discriminator"]):
            network.compile()

    def set_phase(self, lr: float, settling: bool) -> None:
        """Learning rate, and whether the model settles into how it will be exported and met: BatchNorm keeps its
        statistics, and poses are matched on frames as they are."""
        self.settling = settling
        self.networks.train()
        self.average.eval()
        if settling:
            for module in self.model.modules():
                if isinstance(module, nn.BatchNorm2d):
                    module.eval()
        for optimizer in self.optimizers.values():
            for group in optimizer.param_groups:
                group["lr"] = lr * group["rate"]

    def step(self, batch: Batch, ramp: float) -> Losses:
        """Learn from a batch. ramp in [0, 1] scales what comes in late.

        Returns the unweighted losses; those of the critics too. The caller checks that they are finite.
        """
        if ramp == 0:  # the keypoints are still on their way; the map between their mean places is all there is to know
            for transformer, theta in zip((self.model.stn_a2b, self.model.stn_b2a), self._registered(), strict=True):
                transformer.start_from(theta)
        drawn, found = self._forward(batch)
        domain = torch.arange(2, device=self.device).repeat_interleave(len(batch.targets) // 2)
        fakes = self._fakes(drawn, batch, domain, found)
        scale = dict.fromkeys(LATE, ramp) | dict.fromkeys(EARLY, 1 - (1 - EARLY_LEFT) * ramp)
        total = torch.stack(
            [value * getattr(self.weights, name) * scale.get(name, 1) for name, value in found.items()]
        ).sum()
        self._update("model", total)
        found["discriminator"] = self._teach_discriminator(drawn, fakes, domain)
        found["classifier"] = self._teach_classifier(drawn)
        return {name: distributed.mean(value.detach()) for name, value in found.items()}

    @torch.no_grad()
    def follow(self, step: int) -> None:
        """Move `average` towards the model; the first steps, which know little, are soon forgotten."""
        decay = min(AVERAGE_DECAY, (1 + step) / (10 + step))
        for average, weight in zip(self.average.parameters(), self.model.parameters(), strict=True):
            average.lerp_(weight, 1 - decay)
        for kept, buffer in zip(self.average.buffers(), self.model.buffers(), strict=True):
            kept.copy_(buffer)

    @torch.no_grad()
    def _registered(self) -> Tensor:
        """Theta (2, 2, 3), of "a2b" and "b2a", between the two videos' mean keypoints."""
        theta = registration(self.centres[0], self.centres[1])
        return torch.cat([theta, inverse(theta)])

    def _through(self, network: nn.Module, *inputs: Tensor) -> Any:
        """A network's outputs, in fp32 whatever it computes in."""
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bf16"):
            outputs = network(*inputs)
        return outputs.float() if isinstance(outputs, Tensor) else tuple(output.float() for output in outputs)

    def _forward(self, batch: Batch) -> tuple[Drawn, Losses]:
        logits, appearance = self._through(self.model.extractor, batch.inputs)
        keypoints, _, mass = soft_argmax(logits)
        count = len(batch.targets)
        now, *following, again, worn = keypoints.split(count)
        mask = F.adaptive_max_pool2d(batch.targets[:, 3:], mass.shape[-1])
        found = {
            "sparsity": losses.sparsity_loss(mass[:count], mask),
            "coverage": losses.coverage_loss(now, mask),
            "diversity": losses.diversity_loss(now),
            "equivariance": losses.keypoint_distance(batch.extra.transform(again), now),
        }
        if following:
            found["temporal"] = losses.temporal_loss(now, following[0])
        # Poses of the plain frames: of those to draw, and of those that lend their looks; first all of A, then of B.
        others = self._keypoints_as_exported(batch.plain) if self.settling else transform(batch.other, worn)
        poses = [transform(batch.base, now).chunk(2), others.chunk(2)]
        keypoints = torch.cat([poses[0][0], poses[1][0], poses[0][1], poses[1][1]])
        there, moved = self._move(keypoints, count // 2, found)
        theta, drawn, destination = (_to_draw(each, count // 2) for each in (there, keypoints, moved))
        images = self._draw(batch, now, drawn, theta, appearance[-count:], found)
        return Drawn(keypoints, moved, destination, on_black(batch.targets), images), found

    def _keypoints_as_exported(self, frames: Tensor) -> Tensor:
        """By the running statistics, into which these frames, drawn ones among them, must not leak."""
        extractor = self.model.extractor
        training = [module for module in extractor.modules() if module.training]
        extractor.eval()
        keypoints, _, _ = soft_argmax(self._through(extractor, frames)[0])
        for module in training:
            module.training = True
        return keypoints

    def _match(self, poses: Tensor, guests: Tensor, drawn: int) -> Tensor:
        """matching_loss of all processes' poses. Settling, of frames as they are alone: beside the noise of augmented
        views, what still tells the videos apart does not show."""
        if self.settling:
            poses, guests = poses[drawn:], guests[drawn:]
        return losses.matching_loss(gather(poses), gather(guests))

    def _move(self, keypoints: Tensor, drawn: int, found: Losses) -> tuple[Tensor, Tensor]:
        """Theta of each pose, and the poses in the other video's space; adds the losses that see poses alone.

        keypoints: as in `Drawn`, the first `drawn` of each video to be drawn.
        """
        in_a, in_b = keypoints.chunk(2)
        self.centres.lerp_(distributed.mean(torch.stack([in_a, in_b]).detach().mean(1)), 1 - CENTRES_DECAY)
        there_a, there_b = self.model.stn_a2b.locate(in_a), self.model.stn_b2a.locate(in_b)
        there = torch.cat([there_a, there_b])
        moved = transform(inverse(there), keypoints)
        moved_a, moved_b = moved.chunk(2)
        back = torch.cat([self.model.stn_b2a.locate(moved_a), self.model.stn_a2b.locate(moved_b)])
        anchor_a, anchor_b = self._registered()
        found["affine"] = (
            losses.affine_loss(gather(there_a), anchor_a) + losses.affine_loss(gather(there_b), anchor_b)
        ) / 2
        found["cycle"] = losses.identity_loss(there, back) + losses.keypoint_distance(
            transform(inverse(back), moved), keypoints
        )
        found["matching"] = self._match(in_a, moved_b, drawn) + self._match(in_b, moved_a, drawn)
        return there, moved

    def _draw(
        self, batch: Batch, augmented: Tensor, plain: Tensor, there: Tensor, looks: Tensor, found: Losses
    ) -> Tensor:
        """Images as `Drawn` has them: reconstructed from augmented keypoints (2n, K, 2), retargeted from plain ones."""
        size = batch.targets.shape[-1] // 2
        # Retargeted heatmaps come warped. So do these, by what the other video's frames are warped by or by chance,
        # about the same keypoints: else the generator would meet such heatmaps for the first time when it retargets.
        usual = torch.cat(there.detach().chunk(2)[::-1])
        bent = torch.where(batch.usual, usual, batch.bend)
        own = affine_grid_sample(render_heatmaps(transform(bent, augmented), size), bent)
        warped = affine_grid_sample(render_heatmaps(plain, size), there)
        swapped = torch.cat(looks.chunk(2)[::-1])
        images, masks = self._through(self.model.generator, torch.cat([own, warped]), torch.cat([looks, swapped]))
        mask = batch.targets[:, 3:]
        found["reconstruction"] = losses.reconstruction_loss(images.chunk(2)[0], on_black(batch.targets), mask)
        found["silhouette"] = losses.silhouette_loss(masks.chunk(2)[0], mask)
        self.sights = measure_sights(augmented, masks.chunk(2)[0], mask, images.chunk(2)[0], on_black(batch.targets))
        return images

    def _fakes(self, drawn: Drawn, batch: Batch, domain: Tensor, found: Losses) -> Tensor:
        """Retargeted frames as the critics see them: augmented like the real ones. Adds what the critics say."""
        retargeted = drawn.images.chunk(2)[1]
        fakes = warp(retargeted + 1, batch.shake) - 1  # zeros outside are black
        again = self._keypoints_as_exported(fakes)
        found["cycle"] = found["cycle"] + losses.keypoint_distance(
            again, transform(inverse(batch.shake), drawn.destination)
        )
        discriminator = self.networks["discriminator"]
        found["adversarial"] = losses.adversarial_loss(
            self._through(discriminator, torch.cat([fakes, drawn.images.chunk(2)[0]]), torch.cat([1 - domain, domain])),
            real=True,
        )
        poses = _all_poses(drawn)
        found["confusion"] = losses.confusion_loss(self.networks["classifier"](poses))
        return fakes.detach()

    def _teach_discriminator(self, drawn: Drawn, fakes: Tensor, domain: Tensor) -> Tensor:
        discriminator = self.networks["discriminator"]
        loss = losses.adversarial_loss(
            self._through(discriminator, drawn.targets, domain), real=True
        ) + losses.adversarial_loss(self._through(discriminator, fakes, 1 - domain), real=False)
        self._update("discriminator", loss)
        return loss

    def _teach_classifier(self, drawn: Drawn) -> Tensor:
        """Whose pose is it? Asked in both spaces: a pose keeps its origin's label where it was moved to."""
        poses = _all_poses(drawn).detach()
        origin = torch.arange(2, device=self.device).repeat_interleave(len(poses) // 4).repeat(2)
        loss = losses.classification_loss(self.networks["classifier"](poses), origin.float())
        self._update("classifier", loss)
        return loss

    def _update(self, name: str, loss: Tensor) -> None:
        optimizer = self.optimizers[name]
        for each in self.optimizers.values():
            each.zero_grad(set_to_none=True)
        self._averaging[name](loss).backward()
        nn.utils.clip_grad_norm_(self.networks[name].parameters(), GRADIENT_NORM)
        optimizer.step()


def _all_poses(drawn: Drawn) -> Tensor:
    """In their own space and in the other, of all processes, in the order that one process has them."""
    poses = torch.cat([drawn.keypoints, drawn.moved])
    return gather(poses, groups=len(poses) // (len(drawn.targets) // 2))  # m is a multiple of n


def _to_draw(each: Tensor, count: int) -> Tensor:
    """Of something for all poses, as `Drawn` has them, that for the 2 * count which are drawn."""
    return each.unflatten(0, (2, -1))[:, :count].flatten(0, 1)
