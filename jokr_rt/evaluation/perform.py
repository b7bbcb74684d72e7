"""A model at work on whole clips, one frame at a time, as its user runs it."""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from jokr_rt.bundle import Arrays
from jokr_rt.config import GAUSSIAN_STD, ModelConfig
from jokr_rt.engines import Engine
from jokr_rt.looks import FixedLooks, with_looks
from jokr_rt.retarget import Retargeter

Frames = NDArray[np.uint8]
Track = NDArray[np.float32]


@dataclass(frozen=True)
class IdentityTransformer:
    """An engine whose spatial transformers leave every keypoint where it is."""

    engine: Engine
    config: ModelConfig

    @property
    def name(self) -> str:
        return self.engine.name

    @property
    def precision(self) -> str:
        return self.engine.precision

    def run(self, graph: str, inputs: Arrays) -> Arrays:
        """See `jokr_rt.engines.Engine`."""
        if not graph.startswith("stn-"):
            return self.engine.run(graph, inputs)
        keypoints = inputs["keypoints"]
        theta = np.repeat(np.eye(2, 3, dtype=np.float32)[None], len(keypoints), axis=0)
        return {"theta": theta, "warped": render_heatmaps(keypoints, self.config.heatmap_size)}


def render_heatmaps(keypoints: Track, size: int) -> NDArray[np.float32]:
    """Gaussians exp(-|p - k|^2 / (2 std^2)) of height 1, as the graphs render them. (N, K, 2) -> (N, K, size, size)."""
    centres = (np.arange(size) * 2 + 1) / size - 1
    across, down = (np.exp((centres - keypoints[..., axis, None]) ** 2 / (-2 * GAUSSIAN_STD**2)) for axis in (0, 1))
    return np.asarray(down[..., :, None] * across[..., None, :], np.float32)


@dataclass
class CountingEngine:
    """An engine that tells `progress` (done, total) after every frame in which it found keypoints or drew."""

    engine: Engine
    total: int
    progress: Callable[[int, int | None], None]
    _done: int = field(default=0, init=False)

    @property
    def name(self) -> str:
        return self.engine.name

    @property
    def precision(self) -> str:
        return self.engine.precision

    def run(self, graph: str, inputs: Arrays) -> Arrays:
        """See `jokr_rt.engines.Engine`."""
        outputs = self.engine.run(graph, inputs)
        if graph in ("extractor", "generator"):
            self._done += 1
            self.progress(self._done, self.total)
        return outputs


@dataclass(frozen=True)
class Performer:
    """Runs a model's graphs over clips."""

    model: FixedLooks
    engine: Engine

    def retargeter(self, direction: str) -> Retargeter:
        return Retargeter(self.model, direction, self.engine)

    def unmoved_retargeter(self, direction: str) -> Retargeter:
        """The same with the spatial transformer set to the identity."""
        return Retargeter(self.model, direction, IdentityTransformer(self.engine, self.model.config))

    def redressed_retargeter(self, direction: str, target: str, on_black: Frames) -> Retargeter:
        """The same with the appearance of another frame (S, S, 3) of the target, on black."""
        looks = with_looks(self.model, self.engine, target, on_black)
        return Retargeter(looks, direction, self.engine)


def locate(retargeter: Retargeter, keypoints: Track) -> NDArray[np.float32]:
    """The spatial transformer's theta (T, 2, 3) for poses (T, K, 2)."""
    graph = f"stn-{retargeter.direction}"
    return np.stack([retargeter.engine.run(graph, {"keypoints": pose[None]})["theta"][0] for pose in keypoints])


def find(retargeter: Retargeter, frames: Frames) -> Track:
    """Keypoints (T, K, 2) in frames (T, S, S, 3)."""
    return np.stack([retargeter.extract(frame)[0] for frame in frames])


def draw(retargeter: Retargeter, keypoints: Track) -> Frames:
    """Frames (T, S, S, 3) of the target's creature in poses (T, K, 2) of the source's space."""
    return np.stack([retargeter.draw(pose) for pose in keypoints])
