"""The first stage: keypoints that both creatures share, and the affine map between their poses, from silhouettes.

Both creatures' silhouettes are drawn from the keypoints alone. Colours play no part: they pay for the pattern on a
trunk, and legs go without keypoints. Section 3 of the paper; the order of the stages is that of its authors' release.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from jokr_rt.config import ModelConfig
from jokr_rt.training import losses
from jokr_rt.training.affine import inverse, transform
from jokr_rt.training.critics import DomainClassifier
from jokr_rt.training.data import Clip
from jokr_rt.training.distributed import gather
from jokr_rt.training.losses import LossWeights
from jokr_rt.training.networks import (
    Model,
    SilhouetteDrawer,
    cell_centres,
    render_heatmaps,
    soft_argmax,
)
from jokr_rt.training.sights import measure_sights
from jokr_rt.training.stage import Losses, Stage, averaged, weighted
from jokr_rt.training.views import GeometryBatch

DRAWER_WIDTH = 0.25  # of the silhouettes' drawer, whatever the model's: outlines are simple
MAP_RATE = 4.0  # of the learning rate: six numbers that all poses depend on
CLASSIFIER_RATE = 0.6
LATE = ("confusion", "matching")  # come in with the ramp: at first keypoints mean nothing that could be matched


class GeometryNetworks(nn.Module):
    """What the geometry learns: the extractor, what draws silhouettes from its keypoints, and the map of "a2b"."""

    def __init__(self, model: Model) -> None:
        super().__init__()
        config = model.config
        self.extractor = model.extractor
        self.extractor.looks.requires_grad_(False)  # they learn with the texture
        drawn = ModelConfig(config.keypoints, config.extractor_size, DRAWER_WIDTH, config.extractor_size)
        self.drawer = SilhouetteDrawer(drawn)
        self.transformer = model.stn_a2b

    def silhouettes(self, keypoints: Tensor) -> Tensor:
        """Of both creatures, A's first, in poses (N, K, 2): logits (N, 2, E, E)."""
        logits: Tensor = self.drawer(render_heatmaps(keypoints, self.drawer.size // 2))
        return logits


class GeometryStage(Stage[GeometryNetworks]):
    """The critic tells the videos apart by their poses, and is to fail."""

    def __init__(self, model: Model, weights: LossWeights, start: Tensor, precision: str, device: torch.device) -> None:
        """start (2, 3): the map of "a2b" to begin with; it decides whether the map mirrors."""
        with torch.no_grad():
            model.stn_a2b.theta.copy_(start)
        self.weights = weights
        super().__init__(
            GeometryNetworks(model),
            DomainClassifier(model.config),
            nn.Module(),
            rates={"transformer": MAP_RATE},
            critic_rate=CLASSIFIER_RATE,
            precision=precision,
            device=device,
        )

    def step(self, batch: GeometryBatch, ramp: float) -> Losses:
        """Learn from a batch. ramp in [0, 1] scales what comes in late. Returns the unweighted losses."""
        self.learner.train()
        views = len(batch.masks)
        logits = self.through(self.learner.extractor.find, batch.inputs)
        keypoints, _, mass = soft_argmax(logits)
        now, *following, again = keypoints.split(views)
        mask = F.adaptive_avg_pool2d(batch.masks, mass.shape[-1])
        found = {
            "sparsity": losses.sparsity_loss(mass[:views], (mask > 0.5).float()),
            "coverage": losses.coverage_loss(now, mask),
            "diversity": losses.diversity_loss(now),
            "equivariance": losses.keypoint_distance(batch.extra.transform(again), now),
        }
        if following:
            found["temporal"] = losses.keypoint_distance(following[0], now)
        silhouettes = own(torch.sigmoid(self.through(self.learner.silhouettes, now)))
        found["silhouette"] = losses.silhouette_loss(silhouettes, batch.masks)
        # Poses of the plain frames match; the classifier sees those of the views, whose random maps are the noise that
        # keeps it from telling the two apart at once, and for good.
        found["matching"] = losses.matching_loss(*map(gather, self._in_a(transform(batch.base, now))))
        in_a, moved = self._in_a(now)
        found["confusion"] = losses.confusion_loss(self.critic(gather(torch.cat([in_a, moved]), 2)))
        self.update("learner", weighted(found, self.weights, dict.fromkeys(LATE, ramp)))
        found["classifier"] = self._teach_classifier(in_a.detach(), moved.detach())
        self.sights = measure_sights(now, silhouettes, batch.masks, silhouettes, batch.masks)
        return averaged(found)

    def look(self, networks: GeometryNetworks, batch: GeometryBatch) -> Tensor:
        keypoints, _, _ = soft_argmax(self.through(networks.extractor.find, batch.inputs[: len(batch.masks)]))
        silhouettes: Tensor = self.through(networks.silhouettes, keypoints)
        return silhouettes

    @torch.no_grad()
    def hand_over(self, networks: GeometryNetworks, model: Model) -> None:
        model.extractor.load_state_dict(networks.extractor.state_dict())
        there = networks.transformer.theta
        model.stn_a2b.theta.copy_(there)
        model.stn_b2a.theta.copy_(inverse(there[None])[0])

    def _in_a(self, poses: Tensor) -> tuple[Tensor, Tensor]:
        """Of poses (2n, K, 2), first n of A, then n of B: A's, and B's moved to A's space."""
        in_a, in_b = poses.chunk(2)
        return in_a, transform(self.learner.transformer.locate(in_b), in_b)  # "a2b" moves A's by its inverse

    def _teach_classifier(self, in_a: Tensor, moved: Tensor) -> Tensor:
        poses = gather(torch.cat([in_a, moved]), 2)
        labels = torch.arange(2, device=poses.device).repeat_interleave(len(poses) // 2)
        loss = losses.classification_loss(self.critic(poses), labels.float())
        self.update("critic", loss)
        return loss


def first_map(first: Clip, second: Clip, mirror: bool) -> Tensor:
    """The map (2, 3) of "a2b" to begin with: it lays the creatures' mean places and sizes over each other."""
    (centre_a, size_a), (centre_b, size_b) = (_extent(clip.frames[:, 3]) for clip in (first, second))
    linear = torch.diag(torch.tensor([-1.0 if mirror else 1.0, 1.0])) * (size_a / size_b)
    return torch.cat([linear, (centre_a - linear @ centre_b)[:, None]], dim=1)


def _extent(masks: Tensor) -> tuple[Tensor, Tensor]:
    """Mean place (2,) of the object in uint8 masks (T, H, W), and the root of its mean share of the frame."""
    mean = torch.stack([part.float().sum(0) for part in masks.split(32)]).sum(0)
    places = cell_centres(mean.shape[-1], mean)
    centre = torch.stack([(mean.sum(0) * places).sum(), (mean.sum(1) * places).sum()]) / mean.sum()
    return centre, (mean.mean() / len(masks) / 255).sqrt()


def own(silhouettes: Tensor) -> Tensor:
    """Of both creatures' silhouettes (2n, 2, H, W) in poses of n views of A, then n of B, their own: (2n, 1, H, W)."""
    in_a, in_b = silhouettes.chunk(2)
    return torch.cat([in_a[:, :1], in_b[:, 1:]])
