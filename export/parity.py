"""What the parity gate measures against: real frames, and what PyTorch makes of them, stage by stage."""

import numpy as np
import torch
from numpy.typing import NDArray

from jokr_rt.bundle import DIRECTIONS, Arrays, signatures
from jokr_rt.training.networks import Model
from jokr_rt.training.stages import stages

FRAMES = 2  # of each domain: the samples travel with the bundle


@torch.no_grad()
def reference_samples(model: Model, references: Arrays, looks: Arrays) -> Arrays:
    """The tensors of `Bundle.samples` by "graph.tensor", computed by the model as it was trained.

    references: frames (R, size, size, 3) uint8 of each domain. looks: appearance (1, 3, size/2, size/2) of each domain.
    """
    modules, samples = stages(model), Arrays()

    def compute(graph: str, *inputs: NDArray[np.generic]) -> Arrays:
        names = [f"{graph}.{spec.name}" for spec in signatures(model.config)[graph].outputs]
        outputs = modules[graph](*map(torch.from_numpy, inputs))
        return dict(zip(names, (output.numpy() for output in outputs), strict=True))

    picked = {domain: frames[_spread(len(frames))] for domain, frames in references.items()}
    samples["extractor.frame"] = np.concatenate([picked["a"], picked["b"]])
    samples |= compute("extractor", samples["extractor.frame"])
    keypoints = dict(zip("ab", np.split(samples["extractor.keypoints"], [len(picked["a"])]), strict=True))
    images = []
    for direction, (source, target) in DIRECTIONS.items():
        graph = f"stn-{direction}"
        samples[f"{graph}.keypoints"] = keypoints[source]
        samples |= compute(graph, keypoints[source])
        warped = samples[f"{graph}.warped"]
        images.append(compute("generator", warped, np.repeat(looks[target], len(warped), axis=0))["generator.image"])
    samples["generator.image"] = np.concatenate(images)
    return samples


def _spread(count: int) -> list[int]:
    """Up to `FRAMES` indices, from the first to the last."""
    return sorted({round(index * (count - 1) / (FRAMES - 1)) for index in range(FRAMES)})
