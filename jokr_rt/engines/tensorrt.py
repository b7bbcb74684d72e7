"""TensorRT on an NVIDIA GPU. A bundle's plans are built the first time and kept beside it: see `tensorrt_build`."""

from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import Any
from weakref import WeakSet

import numpy as np
import tensorrt as trt
from numpy.typing import NDArray

from jokr_rt.bundle import Arrays, Bundle, Signature
from jokr_rt.engines import FrameQueue, Monitor
from jokr_rt.engines.contract import Port, check_graph, check_inputs
from jokr_rt.engines.cuda import Device, DeviceBuffer, Graph, Stream
from jokr_rt.engines.frames import DeviceFrames, StageBuffers, batch_shape
from jokr_rt.engines.tensorrt_build import Prepared, layers, prepare
from jokr_rt.engines.tensorrt_cache import BuildOptions, digest
from jokr_rt.engines.tensorrt_callbacks import LOG
from jokr_rt.errors import EngineError


def load(bundle: Bundle, precision: str, monitor: Monitor) -> "TensorRTEngine":
    """See `jokr_rt.engines.load_engine`. It says which sampler its plans have."""
    device = Device()
    try:
        runtime = trt.Runtime(LOG)
        plans = prepare(bundle, precision, device, runtime, monitor)
        engine = TensorRTEngine(bundle, precision, device, runtime, plans)
    except BaseException:
        device.close()
        raise
    monitor.say(f"tensorrt {trt.__version__} on {device.name}, sampler {engine.sampler}")
    return engine


def build_plans(
    bundle: Bundle, precision: str, options: BuildOptions, monitor: Monitor, with_layers: bool = False
) -> list[dict[str, Any]]:
    """Have every plan of a bundle built with these options, or find it there; what there is to tell of each, for JSON.

    with_layers: also what TensorRT says of each layer. Raises what `prepare` raises.
    """
    with Device() as device:
        runtime = trt.Runtime(LOG)
        return [
            {"graph": plan.graph, "file": str(plan.path), "bytes": plan.nbytes, "sampler": plan.sampler}
            | {"built": bool(plan.reason), "reason": plan.reason, "seconds": round(plan.seconds, 3)}
            | {"key": plan.key, "digest": digest(plan.key)}
            | ({"layers": layers(plan.engine)} if with_layers else {})
            for plan in prepare(bundle, precision, device, runtime, monitor, options)
        ]


class TensorRTEngine:
    """See `jokr_rt.engines.DeviceEngine`. sampler: "plugin" or "native", the one that its plans really have."""

    name = "tensorrt"

    def __init__(
        self, bundle: Bundle, precision: str, device: Device, runtime: trt.Runtime, plans: Iterable[Prepared]
    ) -> None:
        self.precision = precision
        self.signatures = bundle.signatures
        self.device = device
        self._runtime: trt.Runtime | None = runtime
        self._plans = {plan.graph: plan for plan in plans}
        self._single: dict[str, _SingleGraph] = {}
        self._chains: WeakSet[_Chain] = WeakSet()
        self.sampler = " and ".join(sorted({plan.sampler for plan in self._plans.values()} - {"none"}))
        self.max_batch = min(plan.max_batch for plan in self._plans.values())
        for graph, signature in self.signatures.items():
            plan = self._plans[graph]
            check_graph(plan.path, signature, _ports(plan, "INPUT"), _ports(plan, "OUTPUT"))

    def run(self, graph: str, inputs: Arrays) -> Arrays:
        signature = self.signatures[graph]
        check_inputs(graph, signature, inputs)
        if graph not in self._single:
            with self.device.all_or_nothing():
                self._single[graph] = _SingleGraph(self.device, self.plan(graph), signature, self.max_batch)
        batch, most = len(next(iter(inputs.values()))), self.max_batch
        parts = [
            self._single[graph].run({name: array[start : start + most] for name, array in inputs.items()})
            for start in range(0, batch, most)
        ]
        return {spec.name: np.concatenate([part[spec.name] for part in parts]) for spec in signature.outputs}

    def frames(self, direction: str, appearance: NDArray[np.float32]) -> FrameQueue:
        with self.device.all_or_nothing():
            chain = _Chain(self, direction, appearance)
            self._chains.add(chain)
            return DeviceFrames(chain)

    def plan(self, graph: str) -> Prepared:
        """Raises EngineError when it is closed."""
        if graph not in self._plans:
            raise EngineError("tensorrt: the engine is closed")
        return self._plans[graph]

    def close(self) -> None:
        with suppress(EngineError):  # see cuda.Device.close
            self.device.synchronize()
        # TensorRT frees what it allocated when its objects go, and needs the device for it.
        for chain in list(self._chains):
            chain.close()
        self._single.clear()
        self._plans.clear()
        self._runtime = None
        self.device.close()

    def __del__(self) -> None:
        self.close()


class _Context:
    """A plan's execution context, which reads and writes the same buffers as long as it lives."""

    def __init__(self, plan: Prepared, signature: Signature, buffers: Mapping[str, DeviceBuffer]) -> None:
        self._graph, self._inputs = plan.graph, signature.inputs
        self._context = plan.engine.create_execution_context()
        if self._context is None:
            raise LOG.failure(f"{plan.graph}: no execution context")
        for spec in (*signature.inputs, *signature.outputs):
            self._require(self._context.set_tensor_address(spec.name, buffers[spec.name].handle), "set_tensor_address")

    def set_batch(self, batch: int) -> None:
        """Of the runs from now on."""
        for spec in self._inputs:
            self._require(self._context.set_input_shape(spec.name, batch_shape(spec, batch)), "set_input_shape")
        self._require(not self._context.infer_shapes(), "infer_shapes")

    def enqueue(self, stream: Stream) -> None:
        self._require(self._context.execute_async_v3(stream.handle), "execute_async_v3")

    def _require(self, succeeded: bool, call: str) -> None:
        if not succeeded:
            raise LOG.failure(f"{self._graph}: {call} failed")


class _SingleGraph:
    """One graph between arrays on the host."""

    def __init__(self, device: Device, plan: Prepared, signature: Signature, max_batch: int) -> None:
        specs = (*signature.inputs, *signature.outputs)
        self._signature = signature
        self._stream = device.stream()
        self._host = {spec.name: device.pinned(batch_shape(spec, max_batch), spec.dtype) for spec in specs}
        self._buffers = {name: device.buffer(array.nbytes) for name, array in self._host.items()}
        self._context = _Context(plan, signature, self._buffers)
        self._batch = 0

    def run(self, inputs: Arrays) -> Arrays:
        batch = len(next(iter(inputs.values())))
        if batch != self._batch:
            self._context.set_batch(batch)
            self._batch = batch
        for name, array in inputs.items():
            self._host[name].array[:batch] = array
            self._stream.copy_in(self._buffers[name], self._host[name], array.nbytes)
        self._context.enqueue(self._stream)
        outputs = [spec.name for spec in self._signature.outputs]
        views = {name: self._host[name].array[:batch] for name in outputs}
        for name, view in views.items():
            self._stream.copy_out(self._host[name], self._buffers[name], view.nbytes)
        self._stream.synchronize()
        return {name: view.copy() for name, view in views.items()}


class _Chain:
    """See `jokr_rt.engines.frames.Chain`: the three graphs of a direction, replayed as one CUDA graph.

    A captured graph holds addresses, shapes and the contexts' own memory. So its contexts are its own, its buffers stay
    where they are, and another batch size captures anew.
    """

    name = TensorRTEngine.name

    def __init__(self, engine: TensorRTEngine, direction: str, appearance: NDArray[np.float32]) -> None:
        self.device, self.max_batch = engine.device, engine.max_batch
        self.stream = self.device.stream()
        self._stages = StageBuffers(self.stream, engine.signatures, direction, appearance, self.max_batch)
        self.specs, self.buffers = self._stages.specs, self._stages.of("generator")
        self._contexts = [
            _Context(engine.plan(graph), engine.signatures[graph], self._stages.of(graph))
            for graph in self._stages.graphs
        ]
        self._batch = 0
        self._graph: Graph | None = None

    def launch(self, batch: int) -> None:
        if self._graph is None or batch != self._batch:
            self._capture(batch)
        assert self._graph is not None
        self.stream.launch_graph(self._graph)

    def close(self) -> None:
        self._contexts.clear()
        self._stages.close()
        for made in (self._graph, self.stream):
            if made is not None:
                made.close()

    def _capture(self, batch: int) -> None:
        """One run as it is, in which TensorRT does what it puts off until the shapes are known, and one captured."""
        if self._graph is not None:
            self.stream.synchronize()
            self._graph.close()
            self._graph = None
        for context in self._contexts:
            context.set_batch(batch)
        self._enqueue()
        self.stream.synchronize()
        self._graph = self.stream.capture(self._enqueue)
        self._batch = batch

    def _enqueue(self) -> None:
        for context in self._contexts:
            context.enqueue(self.stream)


def _ports(plan: Prepared, mode: str) -> list[Port]:
    engine = plan.engine
    names = [engine.get_tensor_name(index) for index in range(engine.num_io_tensors)]
    return [
        (name, _open_shape(engine.get_tensor_shape(name)), np.dtype(trt.nptype(engine.get_tensor_dtype(name))).name)
        for name in names
        if engine.get_tensor_mode(name) == getattr(trt.TensorIOMode, mode)
    ]


def _open_shape(dims: trt.Dims) -> tuple[int | str, ...]:
    return tuple("N" if side < 0 else side for side in dims)
