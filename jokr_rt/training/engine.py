"""The reference engine: a checkpoint run by PyTorch, through the protocol that the bundle's engines have."""

import numpy as np
import torch
from numpy.typing import NDArray

from jokr_rt.bundle import Arrays, signatures
from jokr_rt.config import ModelConfig
from jokr_rt.engines.contract import check_inputs, failure
from jokr_rt.training.appearance import choose_appearance
from jokr_rt.training.checkpoint import Checkpoint
from jokr_rt.training.stages import stages


class TorchEngine:
    """A checkpoint as both engine and model: `Retargeter(engine, direction, engine)`."""

    name = "torch"

    def __init__(self, checkpoint: Checkpoint) -> None:
        self.config: ModelConfig = checkpoint.model.config
        self.domains = checkpoint.domains
        self._checkpoint = checkpoint
        self._signatures = signatures(self.config)
        self._stages = stages(checkpoint.model.eval())

    def appearance(self, domain: str) -> NDArray[np.float32]:
        """Appearance (1, 3, size/2, size/2) float32 of domain "a" or "b", the one that export would choose."""
        return choose_appearance(self._checkpoint.model, self._checkpoint.references[domain])

    @torch.inference_mode()
    def run(self, graph: str, inputs: Arrays) -> Arrays:
        """See `jokr_rt.engines.Engine`."""
        signature = self._signatures[graph]
        check_inputs(graph, signature, inputs)
        try:
            outputs = self._stages[graph](*(torch.tensor(inputs[spec.name]) for spec in signature.inputs))
        except RuntimeError as error:
            raise failure(self.name, f"graph {graph} failed", error) from error
        return {spec.name: output.numpy() for spec, output in zip(signature.outputs, outputs, strict=True)}
