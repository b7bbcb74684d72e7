"""A checkpoint on an NVIDIA GPU as a careful user of PyTorch would run it: 16 bits, channels last, one CUDA graph."""

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from jokr_rt.bundle import Arrays, TensorSpec
from jokr_rt.engines import FrameQueue
from jokr_rt.engines.contract import failure
from jokr_rt.engines.cuda import Device, DeviceBuffer
from jokr_rt.engines.frames import OUTPUTS, DeviceFrames, batch_shape, bytes_per_frame
from jokr_rt.errors import EngineError, EngineMissingError, UsageError
from jokr_rt.training.engine import TorchEngine
from jokr_rt.training.half import halved
from jokr_rt.training.networks import Model

if TYPE_CHECKING:
    from jokr_rt.training.checkpoint import Checkpoint

MAX_BATCH = 8
_WARM_UPS = 3  # before a capture: libraries allocate, and cuDNN tries its algorithms


class TorchCudaEngine(TorchEngine):
    """See `jokr_rt.engines.DeviceEngine`. In fp32 it computes without TF32.

    Raises UsageError for an unknown precision, EngineMissingError without a GPU, a PyTorch for it or cuda-bindings.
    """

    name = "torch-cuda"
    PRECISIONS = ("fp16", "bf16", "fp32")

    def __init__(self, checkpoint: "Checkpoint", precision: str = PRECISIONS[0]) -> None:
        if precision not in self.PRECISIONS:
            raise UsageError(f"engine {self.name} runs {', '.join(self.PRECISIONS)}, not {precision!r}")
        if not torch.cuda.is_available():
            raise EngineMissingError(
                f"engine {self.name}: PyTorch {torch.__version__} finds no NVIDIA GPU; it needs one with its driver, "
                "and a CUDA build of PyTorch (pytorch.org)"
            )
        self.precision = precision
        self.device = Device(torch.cuda.current_device())
        self.stream = self.device.stream()
        super().__init__(checkpoint, on_gpu(checkpoint.model, precision), "cuda")

    def run(self, graph: str, inputs: Arrays) -> Arrays:
        self._check_open()
        with as_precise_as_said():
            return super().run(graph, inputs)

    def frames(self, direction: str, appearance: NDArray[np.float32]) -> FrameQueue:
        """See `jokr_rt.engines.DeviceEngine`."""
        self._check_open()
        return DeviceFrames(_Chain(self, direction, appearance))

    def compute(self, direction: str, frame: Tensor, appearance: Tensor) -> dict[str, Tensor]:
        """`OUTPUTS` of frames (N, size, size, 3) uint8 on the GPU, on the current stream."""
        keypoints, confidence, _ = self._stages["extractor"](frame)
        _, warped = self._stages[f"stn-{direction}"](keypoints)
        (image,) = self._stages["generator"](warped, appearance.expand(len(frame), -1, -1, -1))
        return {"image": image, "keypoints": keypoints, "confidence": confidence}

    @property
    def specs(self) -> dict[str, TensorSpec]:
        """Of "frame" and `OUTPUTS`."""
        ends = (*self._signatures["extractor"].inputs, *self._signatures["extractor"].outputs)
        return {spec.name: spec for spec in (*ends, *self._signatures["generator"].outputs)}

    def close(self) -> None:
        """See `jokr_rt.engines.DeviceEngine`."""
        self._stages.clear()
        self.device.close()
        torch.cuda.empty_cache()

    def _check_open(self) -> None:
        if not self._stages:
            raise EngineError(f"{self.name}: used after it was closed")


def on_gpu(model: Model, precision: str) -> Model:
    """A copy of a model on the GPU, in a precision of `TorchCudaEngine`, channels last."""
    dtypes = {"fp16": torch.float16, "bf16": torch.bfloat16, "fp32": torch.float32}
    moved = halved(model, dtypes[precision]).cuda()
    return moved.to(memory_format=torch.channels_last)  # type: ignore[call-overload]


class _Chain:
    """See `jokr_rt.engines.frames.Chain`."""

    name = TorchCudaEngine.name
    max_batch = MAX_BATCH

    def __init__(self, engine: TorchCudaEngine, direction: str, appearance: NDArray[np.float32]) -> None:
        self.device, self.stream, self.specs = engine.device, engine.stream, engine.specs
        self._engine = engine
        self._direction = direction
        self._stream = torch.cuda.ExternalStream(engine.stream.handle)
        self._appearance = torch.tensor(appearance, device="cuda")
        self._graphs: dict[int, torch.cuda.CUDAGraph] = {}
        self.buffers: dict[str, DeviceBuffer] = {}
        self._tensors: dict[str, Tensor] = {}
        for name in ("frame", *OUTPUTS):
            spec = self.specs[name]
            self.buffers[name] = self.device.buffer(MAX_BATCH * bytes_per_frame(spec))
            self._tensors[name] = tensor_on(self.buffers[name], batch_shape(spec, MAX_BATCH), spec.dtype)

    def launch(self, batch: int) -> None:
        try:
            with torch.inference_mode(), torch.cuda.stream(self._stream):
                if batch not in self._graphs:
                    self._graphs[batch] = self._capture(batch)
                self._graphs[batch].replay()
        except RuntimeError as error:
            raise failure(self.name, f"a batch of {batch} failed", error) from error

    def close(self) -> None:
        self._graphs.clear()
        self._tensors.clear()
        for buffer in self.buffers.values():
            buffer.close()

    def _capture(self, batch: int) -> torch.cuda.CUDAGraph:
        graph = torch.cuda.CUDAGraph()
        with as_precise_as_said():
            for _ in range(_WARM_UPS):
                self._compute(batch)
            with torch.cuda.graph(graph, stream=self._stream, capture_error_mode="thread_local"):
                self._compute(batch)
        return graph

    def _compute(self, batch: int) -> None:
        found = self._engine.compute(self._direction, self._tensors["frame"][:batch], self._appearance)
        for name, tensor in found.items():
            self._tensors[name][:batch].copy_(tensor)


def tensor_on(buffer: DeviceBuffer, shape: tuple[int, ...], dtype: str) -> Tensor:
    """A contiguous tensor on this device memory, which it does not keep. dtype: numpy's name."""
    return torch.as_tensor(_View(buffer, shape, dtype), device="cuda")


class _View:
    """Device memory as other libraries take it, without a copy."""

    def __init__(self, buffer: DeviceBuffer, shape: tuple[int, ...], dtype: str) -> None:
        self.__cuda_array_interface__ = {
            "shape": shape, "typestr": np.dtype(dtype).str, "data": (buffer.handle, False), "version": 3,
        }  # fmt: skip


@contextlib.contextmanager
def as_precise_as_said() -> Iterator[None]:
    """cuDNN's fastest algorithms, and no TF32, which PyTorch uses in convolutions unless told not to."""
    with torch.backends.cudnn.flags(enabled=True, benchmark=True, allow_tf32=False):
        yield
