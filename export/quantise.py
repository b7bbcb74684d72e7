"""A graph in 8 bits by NNCF's post-training quantisation, and single layers of it put back as they were.

The result holds QuantizeLinear and DequantizeLinear around what a runtime is to compute in 8 bits, and its weights as
int8. It needs ONNX and NNCF, but not PyTorch.
"""

import logging
import os
from collections.abc import Collection, Iterable, Sequence
from contextlib import redirect_stdout
from functools import cache
from io import StringIO
from types import ModuleType

import numpy as np
import onnx

from jokr_rt.bundle import Arrays
from jokr_rt.errors import missing_extra

_MOVES = {"Concat", "DepthToSpace", "Pad", "Reshape", "Slice", "Transpose"}
"""Operators that move numbers and leave them as they are: these pass quantised ones on."""


def quantised(graph: onnx.ModelProto, feeds: Sequence[Arrays]) -> onnx.ModelProto:
    """The same graph in 8 bits, its ranges read off the `feeds`: its inputs by name, for a batch of one each.

    What no convolution follows stays as it is: expectations and pictures take more than 8 bits. Raises
    EngineMissingError without NNCF.
    """
    nncf = load_nncf()
    parameters = nncf.AdvancedQuantizationParameters(
        # Every value that was seen stays in range: those beyond it would move a keypoint, and a clip has few frames.
        activations_range_estimator_params=nncf.quantization.range_estimator.RangeEstimatorParametersSet.MINMAX,
        disable_bias_correction=True,  # gains nothing here, and takes as long as all the rest
        # Weights in [-64, 64]. Without VNNI a processor adds two products in 16 bits and cuts off what does not fit;
        # these fit, 2 x 255 x 64 < 2^15, so that every processor draws what was measured.
        overflow_fix=nncf.OverflowFix.ENABLE,
    )
    with redirect_stdout(StringIO()):  # its progress bars
        result = nncf.quantize(
            graph,
            nncf.Dataset(feeds),
            preset=nncf.QuantizationPreset.MIXED,
            target_device=nncf.TargetDevice.CPU,
            subset_size=len(feeds),
            ignored_scope=nncf.IgnoredScope(names=_after_convolutions(graph)),
            advanced_parameters=parameters,
        )
    del result.graph.value_info[:]
    del result.metadata_props[:]
    result.metadata_props.extend(graph.metadata_props)
    _make_unsigned(result.graph)
    onnx.checker.check_model(result, full_check=True)
    return result


@cache
def load_nncf() -> ModuleType:
    """NNCF, which on its own would tell its makers of every use. Raises EngineMissingError."""
    os.environ.setdefault("NNCF_CI", "1")
    try:
        import nncf
        import nncf.quantization.range_estimator
    except ImportError as error:
        raise missing_extra("int8", error, "int8") from error
    nncf.set_log_level(logging.ERROR)
    return nncf


def _after_convolutions(graph: onnx.ModelProto) -> list[str]:
    """Names of the nodes from which no convolution is reached."""
    followed: set[str] = set()
    names = []
    for node in reversed(graph.graph.node):
        if node.op_type == "Conv" or followed.intersection(node.output):
            followed.update(node.input)
        else:
            names.append(node.name)
    return names


def _make_unsigned(graph: onnx.GraphProto) -> None:
    """Give activations uint8 for int8, the same numbers 128 higher.

    With int8 ones OpenVINO 2026.4 computes convolutions of a graph's inputs wrongly, by more than their values.
    """
    zero_points = {node.input[2] for node in graph.node if node.op_type == "QuantizeLinear"}
    for tensor in graph.initializer:
        if tensor.name in zero_points:
            array = onnx.numpy_helper.to_array(tensor)
            if array.dtype == np.int8:
                shifted = (array.astype(np.int16) + 128).astype(np.uint8)
                tensor.CopyFrom(onnx.numpy_helper.from_array(shifted, tensor.name))


class Layers:
    """What is computed in 8 bits of a quantised graph, by a name for people: a weight's, or a node's without weights.

    original: the graph that was quantised.
    """

    def __init__(self, original: onnx.ModelProto, result: onnx.ModelProto) -> None:
        self._original, self._result = original, result
        self._sources = {output: node for node in original.graph.node for output in node.output}
        self._inputs = {node.name: list(node.input) for node in result.graph.node}
        self._nodes = {
            _label(node): node for node in original.graph.node if node.op_type not in _MOVES and self._is_changed(node)
        }

    @property
    def names(self) -> list[str]:
        return list(self._nodes)

    def work(self) -> dict[str, int]:
        """Multiply-adds of each for a batch of one."""
        graph = onnx.shape_inference.infer_shapes(self._original).graph
        shapes = {
            value.name: [side.dim_value or 1 for side in value.type.tensor_type.shape.dim]
            for value in (*graph.value_info, *graph.output)
        }
        weights = {tensor.name: tensor.dims for tensor in self._original.graph.initializer}
        return {
            name: int(np.prod(shapes[node.output[0]]) * np.prod(weights[node.input[1]][1:]))
            if node.op_type == "Conv"
            else 0
            for name, node in self._nodes.items()
        }

    def without(self, names: Collection[str]) -> onnx.ModelProto:
        """The quantised graph with these layers as they were, inputs and weights."""
        changed = onnx.ModelProto()
        changed.CopyFrom(self._result)
        nodes = list(changed.graph.node)
        del changed.graph.node[:]
        restored = {self._nodes[name].name for name in names}
        made: dict[str, str] = {}
        for node in nodes:
            if node.name in restored:
                (before,) = (other for other in self._original.graph.node if other.name == node.name)
                del node.input[:]
                node.input.extend(self._restore(tensor, changed.graph, made) for tensor in before.input)
            changed.graph.node.append(node)
        present = {tensor.name for tensor in changed.graph.initializer}
        changed.graph.initializer.extend(
            tensor for tensor in self._original.graph.initializer if tensor.name not in present
        )
        _drop_unused(changed.graph)
        return changed

    def _is_changed(self, node: onnx.NodeProto) -> bool:
        """Whether one of the original's nodes gets a quantised input in the result, there or before it was moved."""
        return any(
            now != before or self._is_moved_and_changed(before)
            for now, before in zip(self._inputs[node.name], node.input, strict=True)
        )

    def _is_moved_and_changed(self, tensor: str) -> bool:
        source = self._sources.get(tensor)
        return source is not None and source.op_type in _MOVES and self._is_changed(source)

    def _restore(self, tensor: str, graph: onnx.GraphProto, made: dict[str, str]) -> str:
        """The name of a tensor of the original that was never quantised; what moves it is repeated for that."""
        if not self._is_moved_and_changed(tensor):
            return tensor
        if tensor not in made:
            source = self._sources[tensor]
            inputs = [self._restore(name, graph, made) for name in source.input]
            made[tensor] = f"{tensor}_float"
            attributes = {entry.name: onnx.helper.get_attribute_value(entry) for entry in source.attribute}
            name = f"{source.name}_float"
            graph.node.append(onnx.helper.make_node(source.op_type, inputs, [made[tensor]], name, **attributes))
        return made[tensor]


def _label(node: onnx.NodeProto) -> str:
    return node.input[1].removesuffix(".weight") if node.op_type == "Conv" else node.name


def _drop_unused(graph: onnx.GraphProto) -> None:
    """What no output depends on."""
    used = {value.name for value in graph.output}
    kept = []
    for node in reversed(graph.node):
        if used.intersection(node.output):
            used.update(node.input)
            kept.append(node)
    del graph.node[:]
    graph.node.extend(reversed(kept))
    _keep(graph, used)


def _keep(graph: onnx.GraphProto, used: Iterable[str]) -> None:
    for index in reversed(range(len(graph.initializer))):
        if graph.initializer[index].name not in used:
            del graph.initializer[index]
