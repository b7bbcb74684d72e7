"""OpenVINO on the CPU. It is told the precision: left alone it computes in bfloat16 where the processor can."""

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from queue import SimpleQueue
from typing import Any

import numpy as np
import openvino as ov
from numpy.typing import NDArray
from openvino.properties import device, hint

from jokr_rt.bundle import BF16, FP32, INT8, Arrays, Bundle
from jokr_rt.engines import Monitor, Stages
from jokr_rt.engines.contract import check_inputs, failure
from jokr_rt.engines.openvino_cache import compile_part
from jokr_rt.engines.openvino_graphs import NAME, core, direction_parts, whole_graph
from jokr_rt.errors import EngineError

_PERFORMANCE_MODES = {
    "latency": hint.PerformanceMode.LATENCY,
    "throughput": hint.PerformanceMode.THROUGHPUT,
}
_HEAVY_LAYERS = {"Convolution", "Deconvolution", "FullyConnected", "MatMul"}


def lacks(precision: str) -> str:
    """Why this processor does not run a precision; "" where it does."""
    if precision == BF16 and not _has_bf16():
        return "this processor has no bfloat16 arithmetic (AVX-512 BF16 or AMX)"
    return ""


class OpenVinoEngine:
    """See `jokr_rt.engines.StagedEngine`. A graph is compiled when it is first run.

    precision: read off what was compiled, once something was; a difference from what was asked for is an EngineError.
    """

    name = NAME

    def __init__(self, bundle: Bundle, precision: str, monitor: Monitor) -> None:
        self.precision = precision
        # Asked here, for OpenVINO gives a signal stack to the thread that loads its plugin: not to one of a pool.
        self._low = ov.Type.bf16 if _has_bf16() else ov.Type.f32
        self._bundle = bundle
        self._monitor = monitor
        self._signatures = bundle.signatures
        self._requests: dict[str, ov.InferRequest] = {}

    def run(self, graph: str, inputs: Arrays) -> Arrays:
        signature = self._signatures[graph]
        check_inputs(graph, signature, inputs)
        request = self._requests.get(graph) or self._compile_graph(graph)
        try:
            results = request.infer(dict(inputs))
        except Exception as error:  # what its C++ side throws arrives as several kinds
            raise failure(self.name, f"graph {graph} failed", error) from error
        return {spec.name: results[spec.name] for spec in signature.outputs}  # copies

    def stages(self, direction: str, appearance: NDArray[np.float32], mode: str) -> Stages:
        parts = direction_parts(self._bundle, direction, appearance, self.precision)
        options = [self._options(part.precise, mode) for part in parts]
        try:
            with ThreadPoolExecutor(2) as pool:
                compiled = list(pool.map(compile_part, parts, options, [self._monitor] * len(parts)))
        except EngineError:
            raise
        except RuntimeError as error:
            raise failure(self.name, f"{self._bundle.root} cannot be compiled", error) from error
        self._check_precision(direction, compiled)
        return OpenVinoStages(compiled)

    def _compile_graph(self, graph: str) -> ov.InferRequest:
        model, precise = whole_graph(self._bundle, graph, self.precision)
        try:
            compiled = core().compile_model(model, "CPU", self._options(precise, "latency"))
        except RuntimeError as error:
            path = self._bundle.graph_path(graph, self.precision)
            raise failure(self.name, f"{path} cannot be compiled", error) from error
        is_quantised = self._bundle.graph(graph, self.precision).sha256 != self._bundle.graph(graph).sha256
        if not precise and (self.precision != INT8 or is_quantised):
            self._check_precision(graph, [compiled])
        self._requests[graph] = compiled.create_infer_request()
        return self._requests[graph]

    def _options(self, precise: bool, mode: str) -> dict[str, Any]:
        """precise: in float32 whatever was asked for."""
        # Not bound to cores: decoder and encoder take turns with it there, and a thread whose core is taken would hold
        # up those that wait for it, spinning.
        options = {hint.performance_mode: _PERFORMANCE_MODES[mode], hint.enable_cpu_pinning: False}
        if precise or self.precision == FP32:
            return options | {hint.inference_precision: ov.Type.f32, hint.execution_mode: hint.ExecutionMode.ACCURACY}
        return options | {hint.inference_precision: self._low}  # also of what a quantised graph leaves in floats

    def _check_precision(self, what: str, compiled: Iterable[ov.CompiledModel]) -> None:
        found = lowest_precision(compiled)
        if found != self.precision:
            asked = self.precision
            raise EngineError(f"{self.name}: {what} was to run in {asked}, and OpenVINO compiled it to {found}")


load = OpenVinoEngine


class OpenVinoStages:
    """See `jokr_rt.engines.Stages`. As many workers as OpenVINO has streams."""

    def __init__(self, compiled: list[ov.CompiledModel]) -> None:
        self.workers = int(min(model.get_property("NUM_STREAMS") for model in compiled))
        self._free: SimpleQueue[_Worker] = SimpleQueue()
        for _ in range(self.workers):
            self._free.put(_Worker(compiled))

    def extract(self, frame: NDArray[np.uint8]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        worker = self._free.get()
        try:
            return worker.extract(frame)
        except Exception as error:  # what its C++ side throws arrives as several kinds
            raise failure(NAME, "finding keypoints failed", error) from error
        finally:
            self._free.put(worker)

    def draw(self, keypoints: NDArray[np.float32]) -> NDArray[np.uint8]:
        worker = self._free.get()
        try:
            return worker.draw(keypoints)
        except Exception as error:
            raise failure(NAME, "drawing failed", error) from error
        finally:
            self._free.put(worker)


class _Worker:
    """Requests of one frame at a time: what one writes, the next one reads in place."""

    def __init__(self, compiled: list[ov.CompiledModel]) -> None:
        self._extract, self._place, self._paint = (model.create_infer_request() for model in compiled)
        self._paint.set_tensor("warped", self._place.get_tensor("warped"))
        self._image_shape = tuple(self._paint.get_tensor("image").shape)

    def extract(self, frame: NDArray[np.uint8]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        self._extract.set_tensor("frame", _shared(frame))
        self._extract.infer(share_outputs=True)
        keypoints, confidence = (self._extract.get_tensor(name).data.copy() for name in ("keypoints", "confidence"))
        return keypoints, confidence

    def draw(self, keypoints: NDArray[np.float32]) -> NDArray[np.uint8]:
        self._place.set_tensor("keypoints", _shared(keypoints))
        image = np.empty(self._image_shape, np.uint8)
        self._paint.set_tensor("image", _shared(image))
        for request in (self._place, self._paint):
            request.infer(share_outputs=True)
        return image


def _shared(array: NDArray[Any]) -> ov.Tensor:
    """The array itself as a tensor, which does not keep it alive; where it is read-only or not contiguous, which
    OpenVINO does not take, a copy."""
    is_taken = array.flags.c_contiguous and array.flags.writeable
    return ov.Tensor(array, shared_memory=True) if is_taken else ov.Tensor(np.ascontiguousarray(array))


def lowest_precision(compiled: Iterable[ov.CompiledModel]) -> str:
    """What the layers that do the work were compiled to, the fastest kind of them."""
    kinds = set()
    for model in compiled:
        for node in model.get_runtime_model().get_ops():
            facts = node.get_rt_info()
            if facts["layerType"].value in _HEAVY_LAYERS:
                kinds.add(facts["runtimePrecision"].value)
    if kinds & {"i8", "u8"}:
        return INT8
    return next((name for kind, name in (("bf16", BF16), ("f16", "fp16")) if kind in kinds), FP32)


def _has_bf16() -> bool:
    return device.Capability.BF16 in core().get_property("CPU", device.capabilities)
