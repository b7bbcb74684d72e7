"""An engine that passes the number that a frame shows (see tests/cameras.py) on to what it draws."""

import numpy as np
from numpy.typing import NDArray

from jokr_rt.bundle import Arrays
from jokr_rt.config import ModelConfig
from jokr_rt.engines import Engine
from tests.cameras import number_of, numbered


class PassingModel:
    """See `jokr_rt.retarget.Model`."""

    config = ModelConfig(size=64, width=1 / 16, extractor_size=64)
    domains = {"a": "camera", "b": "number"}

    def appearance(self, domain: str) -> NDArray[np.float32]:
        return np.zeros((1, 3, 32, 32), np.float32)


class PassingEngine:
    """See `jokr_rt.engines.Engine`. inner: an engine that does its work besides, for the time that it takes."""

    name, precision = "passing", "fp32"

    def __init__(self, inner: Engine | None = None) -> None:
        self._inner = inner

    def run(self, graph: str, inputs: Arrays) -> Arrays:
        found = self._inner.run(graph, inputs) if self._inner else {}
        if graph == "extractor":
            frames = inputs["frame"]
            keypoints = found.get("keypoints", np.zeros((len(frames), 10, 2), np.float32))
            keypoints[:, 0, 0] = [number_of(frame) / 256 for frame in frames]
            return {"keypoints": keypoints, "confidence": np.ones(keypoints.shape[:2], np.float32)}
        if graph.startswith("stn"):
            warped = found.get("warped", np.zeros((len(inputs["keypoints"]), 10, 32, 32), np.float32))
            warped[:, 0, 0, 0] = inputs["keypoints"][:, 0, 0]
            return {"warped": warped}
        numbers = [round(float(heatmaps[0, 0, 0]) * 256) for heatmaps in inputs["warped"]]
        side = 2 * inputs["warped"].shape[2]
        return {"image": np.stack([numbered(number, side, side) for number in numbers])}


def load() -> tuple[PassingModel, Engine]:
    """For `jokr_rt.live.run_live`."""
    return PassingModel(), PassingEngine()
