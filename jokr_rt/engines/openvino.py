"""OpenVINO on the CPU, held to float32: left alone it computes in bfloat16 where the processor can."""

from functools import cache

import openvino as ov
from openvino import opset13 as ops
from openvino.frontend import NodeContext
from openvino.frontend.onnx import ConversionExtension
from openvino.properties import hint

from jokr_rt.bundle import Arrays, Bundle
from jokr_rt.engines.contract import Port, check_graph, check_inputs, failure

_EXACT = {
    hint.inference_precision: ov.Type.f32,
    hint.execution_mode: hint.ExecutionMode.ACCURACY,
    hint.performance_mode: hint.PerformanceMode.LATENCY,
}


class OpenVinoEngine:
    """See `jokr_rt.engines.Engine`."""

    name = "openvino"

    def __init__(self, bundle: Bundle, precision: str) -> None:
        self.precision = precision
        self._signatures = bundle.signatures
        self._requests = {name: _request(bundle, name, precision) for name in self._signatures}

    def run(self, graph: str, inputs: Arrays) -> Arrays:
        signature = self._signatures[graph]
        check_inputs(graph, signature, inputs)
        try:
            results = self._requests[graph].infer(inputs)  # copies: they outlive the next call
        except Exception as error:  # what its C++ side throws arrives as several kinds
            raise failure(self.name, f"graph {graph} failed", error) from error
        return {spec.name: results[spec.name] for spec in signature.outputs}


load = OpenVinoEngine


@cache
def _core() -> ov.Core:
    """One for the whole process. With its last core OpenVINO frees the signal stack that it gave to the thread it was
    loaded in; where another thread drops that core, the next Ctrl-C ends in a segmentation fault."""
    core = ov.Core()
    core.add_extension(ConversionExtension("AffineGridSample", "jokr", _affine_grid_sample))
    return core


def _request(bundle: Bundle, name: str, precision: str) -> ov.InferRequest:
    path = bundle.graph_path(name, precision)
    try:
        model = _core().read_model(path)
        inputs, outputs = ([_port(port) for port in ports] for ports in (model.inputs, model.outputs))
        check_graph(path, bundle.signatures[name], inputs, outputs)
        return _core().compile_model(model, "CPU", _EXACT).create_infer_request()
    except RuntimeError as error:
        raise failure(OpenVinoEngine.name, f"{path} cannot be loaded", error) from error


def _port(port: ov.Output) -> Port:
    shape = tuple("N" if side.is_dynamic else side.get_length() for side in port.partial_shape)
    return port.any_name, shape, str(port.element_type.to_dtype())


def _affine_grid_sample(node: NodeContext) -> list[ov.Output]:
    """The operator's ONNX function body, which OpenVINO's reader does not inline, in its own operators.

    heatmaps (N, C, H, W), theta (N, 2, 3) -> heatmaps sampled at theta @ (p, 1) for every output cell's p in [-1, 1].
    """
    heatmaps, theta = node.get_input(0), node.get_input(1)
    aligned = node.get_attribute("align_corners", 0)
    along_x, along_y, shift = ops.split(theta, ops.constant(2), 3).outputs()  # each (N, 2, 1)
    by_column = ops.unsqueeze(ops.multiply(along_x, _cell_centres(heatmaps, 3, aligned)), ops.constant([2]))
    by_row = ops.unsqueeze(
        ops.add(ops.multiply(along_y, _cell_centres(heatmaps, 2, aligned)), shift), ops.constant([3])
    )
    grid = ops.transpose(ops.add(by_column, by_row), ops.constant([0, 2, 3, 1]))  # (N, H, W, 2)
    options = {"align_corners": bool(aligned), "mode": "bilinear", "padding_mode": "zeros"}
    return [ops.grid_sample(heatmaps, grid, options).output(0)]


def _cell_centres(heatmaps: ov.Output, axis: int, aligned: int) -> ov.Node:
    """Coordinates in [-1, 1] of the cells along one axis: (2 i + 1 - aligned) / (size - aligned) - 1."""
    size = ops.convert(ops.gather(ops.shape_of(heatmaps), ops.constant(axis), ops.constant(0)), "f32")
    cells = ops.range(_f32(0), size, _f32(1), "f32")
    doubled = ops.add(ops.multiply(cells, _f32(2)), _f32(1 - aligned))
    return ops.subtract(ops.divide(doubled, ops.subtract(size, _f32(aligned))), _f32(1))


def _f32(value: float) -> ov.Node:
    # Arithmetic with Python's numbers would make constants of 64 bits.
    return ops.constant(value, ov.Type.f32)
