"""What `jokr evaluate --data puppets` says of the frames drawn against their true ones, and nothing else."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from jokr_rt.bundle import DIRECTIONS, Bundle
from jokr_rt.evaluation import metrics
from jokr_rt.evaluation.data import puppet_data
from jokr_rt.evaluation.puppets import TEST, TRAINING

Draw = Callable[[str, NDArray[np.uint8]], NDArray[np.uint8]]
"""From a direction and a frame to what is drawn."""


class PuppetTruth:
    """PSNR in dB, by direction, of the held-out walk as a function draws it: `Retargeting.psnr_db` of an evaluation."""

    def __init__(self, bundle: Bundle) -> None:
        unused = replace(TRAINING, frames=2)
        names = bundle.domains["a"], bundle.domains["b"]
        self._domains = puppet_data(bundle.config.size, names, training=unused, test=TEST, probe=unused).domains

    def psnr_db(self, draw: Draw) -> dict[str, float]:
        return {direction: self._of_direction(direction, draw) for direction in DIRECTIONS}

    def _of_direction(self, direction: str, draw: Draw) -> float:
        source, target = (self._domains[name].test for name in DIRECTIONS[direction])
        true_silhouettes = target.silhouettes
        assert true_silhouettes is not None  # puppets have masks
        drawn = np.stack([draw(direction, frame) for frame in source.frames])
        return metrics.psnr_db(drawn, target.on_black, true_silhouettes | metrics.silhouettes(drawn))
