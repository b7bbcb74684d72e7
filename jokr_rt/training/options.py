"""How to train, and how long that takes."""

import math
from dataclasses import asdict, dataclass, field
from typing import Any

from jokr_rt.config import ModelConfig
from jokr_rt.errors import UsageError
from jokr_rt.training import distributed
from jokr_rt.training.losses import LossWeights

PRECISIONS = ("fp32", "bf16")


@dataclass(frozen=True)
class TrainOptions:
    """How to train.

    steps: of both stages. geometry: share of them, the first ones, that learn keypoints and the map between the
    creatures; the others learn pictures. coarse: share of the latter that draw at half the size, which takes a quarter
    of the time. batch: frames of each video in a step, in all processes. mirror: whether the creatures face opposite
    ways. sheet_every, save_every: steps. precision: "fp32", or "bf16" for the large networks, all else staying fp32.
    holdout: keep the last of each so many frames of either clip from training, to measure on; 0 for none.
    """

    config: ModelConfig = ModelConfig()
    steps: int = 6000
    geometry: float = 0.4
    coarse: float = 0.0
    batch: int = 6
    lr: float = 5e-4
    seed: int = 0
    mirror: bool = False
    sheet_every: int = 500
    save_every: int = 500
    precision: str = "fp32"
    holdout: int = 0
    weights: LossWeights = field(default_factory=LossWeights)

    def __post_init__(self) -> None:
        for name in ("steps", "batch", "sheet_every", "save_every", "lr"):
            if not 0 < getattr(self, name) < math.inf:
                raise UsageError(f"{name} must be positive, not {getattr(self, name)}")
        if self.batch < 2:
            raise UsageError("batch must be at least 2")
        processes = distributed.world_size()
        if processes > 1 and self.batch % (2 * processes):  # every other view is retargeted, in each share
            raise UsageError(f"batch must be a multiple of {2 * processes} for {processes} processes, not {self.batch}")
        if not 0 < self.geometry < 1 or not 0 < self.geometry_steps < self.steps:
            raise UsageError(
                f"geometry must be a share between 0 and 1 that leaves both stages a step, not {self.geometry} of "
                f"{self.steps} steps"
            )
        if not 0 <= self.coarse <= 1:
            raise UsageError(f"coarse must be between 0 and 1, not {self.coarse}")
        if self.coarse and not self.config.can_be_halved:
            raise UsageError(
                f"coarse needs a size that can be halved, {2 * max(64, self.config.extractor_size)} or its multiple, "
                f"not {self.config.size}"
            )
        if self.precision not in PRECISIONS:
            raise UsageError(f"precision must be {' or '.join(PRECISIONS)}, not {self.precision!r}")
        if self.holdout < 0 or self.holdout == 1:
            raise UsageError(f"holdout must be 0, or 2 or more: a frame of so many is kept out; not {self.holdout}")
        if not 0 <= self.seed < 2**63:
            raise UsageError(f"seed must be 0 or more and below 2^63, not {self.seed}")
        for name, weight in asdict(self.weights).items():
            if not 0 <= weight < math.inf:
                raise UsageError(f"the weight {name} must be 0 or more, not {weight}")

    @property
    def geometry_steps(self) -> int:
        return round(self.geometry * self.steps)

    @property
    def coarse_steps(self) -> int:
        """Of those of the texture."""
        return round(self.coarse * (self.steps - self.geometry_steps))

    def to_recipe(self) -> dict[str, Any]:
        """All hyperparameters as `jokr_rt.training.recipe` has them, with a table of weights."""
        values = asdict(self)
        weights = values.pop("weights")
        return values.pop("config") | values | {"weights": weights}


@dataclass(frozen=True)
class Pace:
    """Seconds of a step, or how they compare: of the geometry, of the texture at half the size, and at the whole."""

    geometry: float = 1.0
    coarse: float = 1.0
    texture: float = 3.0

    def seconds(self, options: TrainOptions, steps: int | None = None) -> float:
        """Of the first `steps` of a run, or of all."""
        left = options.steps if steps is None else steps
        geometry = min(left, options.geometry_steps)
        coarse = min(left - geometry, options.coarse_steps)
        return geometry * self.geometry + coarse * self.coarse + (left - geometry - coarse) * self.texture
