"""ONNX Runtime on the CPU. It inlines the custom operator's function body by itself.

Graphs in fp16 are for verifying them: where the processor has no such arithmetic, operators are computed in float32
and rounded, slower than in fp32.
"""

import os
from pathlib import Path

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from jokr_rt.bundle import Arrays, Bundle, Signature
from jokr_rt.engines import Stages
from jokr_rt.engines.contract import Port, check_graph, check_inputs, failure

_DTYPES = {"tensor(float)": "float32", "tensor(uint8)": "uint8"}
_MOST_WORKERS = 4  # each one holds a frame's activations


class OnnxRuntimeEngine:
    """See `jokr_rt.engines.StagedEngine`. A graph is loaded when it is first run."""

    name = "onnxruntime"

    def __init__(self, bundle: Bundle, precision: str) -> None:
        self.precision = precision
        self._bundle = bundle
        self._signatures = bundle.signatures
        self._sessions: dict[str, ort.InferenceSession] = {}

    def run(self, graph: str, inputs: Arrays) -> Arrays:
        signature = self._signatures[graph]
        check_inputs(graph, signature, inputs)
        if graph not in self._sessions:
            self._sessions[graph] = _session(self._bundle, graph, self.precision, threads=0)
        names = [spec.name for spec in signature.outputs]
        try:
            results = self._sessions[graph].run(names, inputs)
        except Exception as error:  # its own exceptions have no common base
            raise failure(self.name, f"graph {graph} failed", error) from error
        return dict(zip(names, results, strict=True))

    def stages(self, direction: str, appearance: NDArray[np.float32], mode: str) -> Stages:
        return OnnxRuntimeStages(self._bundle, self.precision, direction, appearance, mode)


load = OnnxRuntimeEngine


class OnnxRuntimeStages:
    """See `jokr_rt.engines.Stages`. Sessions take several threads; each of these then computes alone."""

    def __init__(
        self, bundle: Bundle, precision: str, direction: str, appearance: NDArray[np.float32], mode: str
    ) -> None:
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        self.workers = min(cores, _MOST_WORKERS) if mode == "throughput" else 1
        threads = 1 if self.workers == cores else 0
        self._extractor, self._stn, self._generator = (
            _session(bundle, graph, precision, threads) for graph in ("extractor", f"stn-{direction}", "generator")
        )
        self._appearance = ort.OrtValue.ortvalue_from_numpy(appearance)
        # The extractor's own appearance, and what only that needs, is not computed.
        self._partly = ort.RunOptions()
        self._partly.only_execute_path_to_fetches = True

    def extract(self, frame: NDArray[np.uint8]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        try:
            keypoints, confidence = self._extractor.run(["keypoints", "confidence"], {"frame": frame}, self._partly)
        except Exception as error:
            raise failure(OnnxRuntimeEngine.name, "finding keypoints failed", error) from error
        return keypoints, confidence

    def draw(self, keypoints: NDArray[np.float32]) -> NDArray[np.uint8]:
        try:
            pose = {"keypoints": ort.OrtValue.ortvalue_from_numpy(keypoints)}
            (warped,) = self._stn.run_with_ort_values(["warped"], pose)
            looks = {"warped": warped, "appearance": self._appearance}
            (image,) = self._generator.run_with_ort_values(["image"], looks)
        except Exception as error:
            raise failure(OnnxRuntimeEngine.name, "drawing failed", error) from error
        return np.asarray(image.numpy())


def _session(bundle: Bundle, name: str, precision: str, threads: int) -> ort.InferenceSession:
    """threads: that share the work of the runs; 0 is one for each core."""
    path = bundle.graph_path(name, precision)
    options = ort.SessionOptions()
    options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
    options.intra_op_num_threads = threads
    # Idle threads that spin take the cores from the decoder, the encoder and the other graphs.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 3
    try:
        session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    except Exception as error:
        raise failure(OnnxRuntimeEngine.name, f"{path} cannot be loaded", error) from error
    check_session(path, bundle.signatures[name], session)
    return session


def check_session(path: Path, signature: Signature, session: ort.InferenceSession) -> None:
    """Raises BundleError where a loaded graph has other inputs or outputs than the manifest says."""
    inputs, outputs = ([_port(node) for node in nodes] for nodes in (session.get_inputs(), session.get_outputs()))
    check_graph(path, signature, inputs, outputs)


def _port(node: ort.NodeArg) -> Port:
    shape = tuple(side if isinstance(side, int) else "N" for side in node.shape)
    return node.name, shape, _DTYPES.get(node.type, node.type)
