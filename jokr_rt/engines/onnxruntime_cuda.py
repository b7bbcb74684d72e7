"""ONNX Runtime on an NVIDIA GPU: stages bound to fixed device addresses, each replayed as a CUDA graph.

ONNX Runtime would run on the processor, with a note on stderr, where its CUDA provider is missing, cannot be loaded or
has no kernel for an operator. Each of these is an error here.
"""

import contextlib
import io
from pathlib import Path

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from jokr_rt.bundle import Arrays, Bundle
from jokr_rt.engines import FrameQueue
from jokr_rt.engines.contract import check_inputs, failure
from jokr_rt.engines.cuda import Device
from jokr_rt.engines.frames import DeviceFrames, StageBuffers, batch_shape
from jokr_rt.engines.onnxruntime import check_session
from jokr_rt.errors import EngineError, EngineMissingError

NAME = "onnxruntime-cuda"
PROVIDER = "CUDAExecutionProvider"
MEMORY = "cuda"
MAX_BATCH = 8
_NO_GRAPH = "-1"  # of `gpu_graph_id`: run as it is, capture nothing


class OnnxRuntimeCudaEngine:
    """See `jokr_rt.engines.DeviceEngine`. To be used by one thread: captured graphs belong to the one that ran them."""

    name = NAME

    def __init__(self, bundle: Bundle, precision: str) -> None:
        if PROVIDER not in ort.get_available_providers():
            raise EngineMissingError(
                f"engine {NAME}: the installed onnxruntime {ort.__version__} has no CUDA provider; "
                "pip uninstall onnxruntime, then pip install 'jokr-rt[gpu]'"
            )
        self.precision = precision
        self.signatures = bundle.signatures
        self.device = Device()
        self.sessions: dict[str, ort.InferenceSession] = {}
        self._graphs_used = 0
        try:
            self.stream = self.device.stream()
            missing = _load_libraries()
            for name in self.signatures:
                path = bundle.graph_path(name, precision)
                self.sessions[name] = _session(path, self.stream.handle, missing)
                check_session(path, self.signatures[name], self.sessions[name])
        except BaseException:
            self.close()
            raise

    def run(self, graph: str, inputs: Arrays) -> Arrays:
        """See `jokr_rt.engines.Engine`."""
        self._check_open()
        signature = self.signatures[graph]
        check_inputs(graph, signature, inputs)
        names = [spec.name for spec in signature.outputs]
        try:
            results = self.sessions[graph].run(names, inputs, _run_options(_NO_GRAPH))
        except Exception as error:  # its own exceptions have no common base
            raise failure(NAME, f"graph {graph} failed", error) from error
        return dict(zip(names, results, strict=True))

    def frames(self, direction: str, appearance: NDArray[np.float32]) -> FrameQueue:
        """See `jokr_rt.engines.DeviceEngine`."""
        self._check_open()
        return DeviceFrames(_Chain(self, direction, appearance))

    def next_graph_id(self) -> str:
        """One that no captured graph of this engine has."""
        self._graphs_used += 1
        return str(self._graphs_used)

    def close(self) -> None:
        """See `jokr_rt.engines.DeviceEngine`."""
        self.sessions.clear()
        self.device.close()

    def _check_open(self) -> None:
        if not self.sessions:
            raise EngineError(f"{NAME}: used after it was closed")


load = OnnxRuntimeCudaEngine


class _Chain:
    """See `jokr_rt.engines.frames.Chain`. One captured graph for each batch size."""

    name = NAME
    max_batch = MAX_BATCH

    def __init__(self, engine: OnnxRuntimeCudaEngine, direction: str, appearance: NDArray[np.float32]) -> None:
        self.device, self.stream = engine.device, engine.stream
        self._engine = engine
        self._stages = StageBuffers(self.stream, engine.signatures, direction, appearance, MAX_BATCH)
        self.specs, self.buffers = self._stages.specs, self._stages.of("generator")
        self._bindings: dict[int, tuple[ort.RunOptions, list[ort.IOBinding]]] = {}

    def launch(self, batch: int) -> None:
        if batch not in self._bindings:
            bindings = [self._bind(graph, batch) for graph in self._stages.graphs]
            self._bindings[batch] = _run_options(self._engine.next_graph_id()), bindings
        options, bindings = self._bindings[batch]
        for graph, binding in zip(self._stages.graphs, bindings, strict=True):
            try:
                self._engine.sessions[graph].run_with_iobinding(binding, options)
            except Exception as error:
                raise failure(NAME, f"graph {graph} failed", error) from error

    def close(self) -> None:
        self._bindings.clear()
        self._stages.close()

    def _bind(self, graph: str, batch: int) -> ort.IOBinding:
        binding = self._engine.sessions[graph].io_binding()
        signature, buffers = self._engine.signatures[graph], self._stages.of(graph)
        for specs, bind in ((signature.inputs, binding.bind_input), (signature.outputs, binding.bind_output)):
            for spec in specs:
                shape = list(batch_shape(spec, batch))
                bind(spec.name, MEMORY, 0, np.dtype(spec.dtype).type, shape, buffers[spec.name].handle)
        return binding


def _load_libraries() -> str:
    """CUDA and cuDNN, where they were installed as Python packages; returns what it says of those it did not find."""
    with contextlib.redirect_stdout(io.StringIO()) as said:
        ort.preload_dlls()
    return (said.getvalue().strip().splitlines() or [""])[0]


def _session(path: Path, stream: int, missing: str) -> ort.InferenceSession:
    """A session that runs on the GPU alone, on this stream. Raises EngineError where any of it would not."""
    try:
        session = _open(path, stream)
    except Exception as error:
        if _provider_loads(path, stream):
            raise failure(NAME, f"{path} cannot be loaded", error) from error
        session = None
    if session is None or PROVIDER not in session.get_providers():
        raise EngineError(
            f"{NAME}: ONNX Runtime cannot load its CUDA provider{missing and f' ({missing})'}, and would use the "
            f"processor; it wants CUDA {ort.cuda_version} and cuDNN 9: pip install 'jokr-rt[gpu]'"
        )
    return session


def _open(path: Path, stream: int, refuse_cpu: bool = True) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.log_severity_level = 4  # what matters is raised
    options.add_session_config_entry("session.disable_cpu_ep_fallback", str(int(refuse_cpu)))
    settings = {"user_compute_stream": str(stream), "enable_cuda_graph": "1", "use_tf32": "0"}
    return ort.InferenceSession(path, options, providers=[(PROVIDER, settings)], enable_fallback=0)


def _provider_loads(path: Path, stream: int) -> bool:
    """Whether a session fails for a better reason than that everything fell to the processor."""
    try:
        return PROVIDER in _open(path, stream, refuse_cpu=False).get_providers()
    except Exception:  # such as an operator without a CUDA kernel, where a CUDA graph is wanted
        return True


def _run_options(graph_id: str) -> ort.RunOptions:
    options = ort.RunOptions()
    options.add_run_config_entry("gpu_graph_id", graph_id)
    options.add_run_config_entry("disable_synchronize_execution_providers", "1" if graph_id != _NO_GRAPH else "0")
    return options
