"""Tiny stages of a training and batches for them, the same ones every time."""

import torch
from torch import Tensor, nn

from jokr_rt.config import ModelConfig
from jokr_rt.training.geometry import GeometryStage
from jokr_rt.training.losses import LossWeights
from jokr_rt.training.networks import Model, cell_centres
from jokr_rt.training.stage import Stage
from jokr_rt.training.texture import TextureStage
from jokr_rt.training.views import GeometryBatch, GeometryLoader, TextureBatch, TextureLoader
from tests.tiny import creature_clips

CONFIG = ModelConfig(keypoints=5, size=64, width=1 / 16, extractor_size=64)
CPU = torch.device("cpu")
MAP = torch.tensor([[0.8, -0.2, 0.1], [0.15, 0.9, -0.05]])  # of "a2b"
RATE = 1e-3

State = dict[str, Tensor]


def geometry_stage(start: Tensor = MAP, **weights: float) -> GeometryStage:
    torch.manual_seed(0)
    stage = GeometryStage(Model(CONFIG), LossWeights(**weights), start, "fp32", CPU)
    stage.set_rate(RATE)
    return stage


def texture_stage(**weights: float) -> TextureStage:
    """After a geometry that has learnt nothing but the map. Without the perceptual loss, which takes long."""
    torch.manual_seed(0)
    model = Model(CONFIG)
    first = GeometryStage(model, LossWeights(), MAP, "fp32", CPU)
    first.hand_over(first.average, model)
    stage = TextureStage(model, first.average, None, LossWeights(**weights), "fp32", CPU)
    stage.set_rate(RATE)
    return stage


def geometry_batch(step: int = 0, *, neighbours: bool = False) -> GeometryBatch:
    """Two views of each video."""
    return GeometryLoader(creature_clips(4), 2, 0, CPU, size=CONFIG.extractor_size, neighbours=neighbours).make(step)


def texture_batch(step: int = 0) -> TextureBatch:
    """Two views of each video."""
    return TextureLoader(creature_clips(4), 2, 0, CPU).make(step)


def state_of(module: nn.Module) -> State:
    return {name: value.clone() for name, value in module.state_dict().items()}


def changed(module: nn.Module, before: State) -> set[str]:
    return {name for name, value in module.state_dict().items() if not torch.equal(value, before[name])}


def gradients(stage: Stage, name: str) -> State:
    """Of the "learner" or the "critic" after its first step, as its optimizer keeps them: a tenth of each."""
    kept = stage.optimizers[name].state
    network = {"learner": stage.learner, "critic": stage.critic}[name]
    return {name: kept[weight]["exp_avg"] for name, weight in network.named_parameters() if weight in kept}


def reached(stage: Stage, name: str = "learner") -> set[str]:
    """The parts of a network that its first step's loss depended on."""
    return {weight.split(".")[0] for weight, gradient in gradients(stage, name).items() if gradient.any()}


class Finder:
    """In an extractor's place: finds `poses` (N, K, 2), again and again, and remembers the frames it was shown."""

    def __init__(self, count: int, seed: int = 0) -> None:
        side = CONFIG.extractor_map_size
        random = torch.Generator().manual_seed(seed)
        cells = torch.randint(side // 4, side * 3 // 4, (2, count, CONFIG.keypoints), generator=random)
        self._cells, self.seen = cells, list[Tensor]()
        self.poses = cell_centres(side, torch.zeros(0))[cells.permute(1, 2, 0)]

    def __call__(self, frames: Tensor) -> Tensor:
        """Frames (n, 3, E, E) -> logits (n, K, E/2, E/2) of the first n poses."""
        self.seen.append(frames)
        x, y = self._cells[:, : len(frames)]
        side = CONFIG.extractor_map_size
        places = nn.functional.one_hot(y * side + x, side**2).float()
        return 100 * places.unflatten(2, (side, side))
