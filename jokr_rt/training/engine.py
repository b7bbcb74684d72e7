"""The reference engine: a checkpoint run by PyTorch, through the protocol that the bundle's engines have."""

from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from jokr_rt.bundle import FP32, Arrays, signatures
from jokr_rt.config import ModelConfig
from jokr_rt.engines.contract import check_inputs, failure
from jokr_rt.errors import UsageError
from jokr_rt.training.appearance import choose_appearance
from jokr_rt.training.networks import Model
from jokr_rt.training.stages import stages

if TYPE_CHECKING:
    from jokr_rt.training.checkpoint import Checkpoint


class TorchEngine:
    """A checkpoint as both engine and model: `Retargeter(engine, direction, engine)`."""

    name = "torch"
    precision = FP32

    def __init__(self, checkpoint: "Checkpoint", model: Model | None = None, device: str = "cpu") -> None:
        """model: computes instead of the checkpoint's, which stays on the CPU and chooses the looks."""
        self.config: ModelConfig = checkpoint.model.config
        self.domains, self.recipe = checkpoint.domains, checkpoint.recipe
        self._device = torch.device(device)
        self._checkpoint = checkpoint
        self._signatures = signatures(self.config)
        self._stages = stages(model or checkpoint.model.eval())

    def appearance(self, domain: str) -> NDArray[np.float32]:
        """Appearance (1, 3, size/2, size/2) float32 of domain "a" or "b", the one that export would choose."""
        return choose_appearance(self._checkpoint.model, self._checkpoint.references[domain])

    @torch.inference_mode()
    def run(self, graph: str, inputs: Arrays) -> Arrays:
        """See `jokr_rt.engines.Engine`."""
        signature = self._signatures[graph]
        check_inputs(graph, signature, inputs)
        try:
            tensors = (torch.tensor(inputs[spec.name], device=self._device) for spec in signature.inputs)
            outputs = self._stages[graph](*tensors)
            return {spec.name: output.cpu().numpy() for spec, output in zip(signature.outputs, outputs, strict=True)}
        except RuntimeError as error:
            raise failure(self.name, f"graph {graph} failed", error) from error


def load_torch_engine(name: str, checkpoint: "Checkpoint", precision: str | None) -> TorchEngine:
    """Engine "torch" or "torch-cuda" with a checkpoint; precision None leaves it to the engine.

    Raises UsageError for a precision that it has not, EngineMissingError without a GPU or what runs it.
    """
    if name == "torch-cuda":
        from jokr_rt.training.cuda_engine import TorchCudaEngine  # needs cuda-bindings, the reference does not

        return TorchCudaEngine(checkpoint, precision or TorchCudaEngine.PRECISIONS[0])
    if precision not in (None, FP32):
        raise UsageError(f"engine {name} is the reference, in {FP32}, not {precision!r}; leave --precision out")
    return TorchEngine(checkpoint)
