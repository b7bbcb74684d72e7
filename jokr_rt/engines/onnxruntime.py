"""ONNX Runtime on the CPU. It inlines the custom operator's function body by itself.

Graphs in fp16 are for verifying them: where the processor has no such arithmetic, operators are computed in float32
and rounded, slower than in fp32.
"""

from pathlib import Path

import onnxruntime as ort

from jokr_rt.bundle import Arrays, Bundle, Signature
from jokr_rt.engines.contract import Port, check_graph, check_inputs, failure

_DTYPES = {"tensor(float)": "float32", "tensor(uint8)": "uint8"}


class OnnxRuntimeEngine:
    """See `jokr_rt.engines.Engine`."""

    name = "onnxruntime"

    def __init__(self, bundle: Bundle, precision: str) -> None:
        self.precision = precision
        self._signatures = bundle.signatures
        self._sessions = {name: _session(bundle, name, precision) for name in self._signatures}

    def run(self, graph: str, inputs: Arrays) -> Arrays:
        signature = self._signatures[graph]
        check_inputs(graph, signature, inputs)
        names = [spec.name for spec in signature.outputs]
        try:
            results = self._sessions[graph].run(names, inputs)
        except Exception as error:  # its own exceptions have no common base
            raise failure(self.name, f"graph {graph} failed", error) from error
        return dict(zip(names, results, strict=True))


load = OnnxRuntimeEngine


def _session(bundle: Bundle, name: str, precision: str) -> ort.InferenceSession:
    path = bundle.graph_path(name, precision)
    options = ort.SessionOptions()
    options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
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
