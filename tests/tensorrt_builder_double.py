"""What TensorRT's builder and ONNX parser do in the double: see tensorrt_double.py."""

import hashlib
import json
from collections.abc import Sequence
from typing import Any

import onnx
from google.protobuf.message import DecodeError

from tests.tensorrt_signatures import Doubled

PLAN = b"a plan of the double of TensorRT"
DTYPES = {"FLOAT": "FLOAT", "FLOAT16": "HALF", "BFLOAT16": "BF16", "INT8": "INT8", "INT32": "INT32", "INT64": "INT64"}
DTYPES |= {"UINT8": "UINT8", "BOOL": "BOOL"}
LAYERS = {"Conv": "CONVOLUTION", "GridSample": "GRID_SAMPLE", "Softmax": "SOFTMAX", "Cast": "CAST"}


class Builder(Doubled):
    def __init__(self, logger: Any) -> None:
        self._logger = logger

    def create_network(self, flags: int = 0) -> Any:
        return self._make("INetworkDefinition", _model=None, _layers=[])

    def create_builder_config(self) -> Any:
        verbosity = self._trt.ProfilingVerbosity.LAYER_NAMES_ONLY
        return self._make(
            "IBuilderConfig", _profiles=[], _timing_cache=None, _progress_monitor=None, _profiling_verbosity=verbosity
        )

    def create_optimization_profile(self) -> Any:
        return self._make("IOptimizationProfile", _shapes={})

    def build_serialized_network(self, network: Any, config: Any) -> Any:
        double = self._trt.double
        if self._fails(double.build, self._logger):
            return None
        for tensor in network._tensors("input"):
            shapes = [profile._shapes.get(tensor._name) for profile in config._profiles]
            if -1 in tensor._shape and (not shapes or None in shapes):
                message = "Network has dynamic or shape inputs, but no optimization profile has been defined"
                self._logger.log(self._trt.ILogger.ERROR, f"{message} ({tensor._name})")
                return None
        if config._progress_monitor is not None and not _drive(config._progress_monitor, double.phases):
            return None
        if config._timing_cache is not None:
            config._timing_cache._content += hashlib.sha256(network._model).hexdigest().encode()
        header = {
            "layers": [(layer._name, layer._type.name) for layer in network._layers],
            "profiles": [profile._shapes for profile in config._profiles],
            "detailed": config._profiling_verbosity == self._trt.ProfilingVerbosity.DETAILED,
            "version": self._trt.__version__,
        }
        content = json.dumps(header).encode() + b"\n" + network._model
        return self._memory(PLAN + hashlib.sha256(content).digest() + content)


def _drive(monitor: Any, phases: Sequence[tuple[str, int]], parent: str | None = None) -> bool:
    """Whether the monitor lets the build go on: the first phase, with the others as phases within it."""
    (name, steps), children = phases[0], phases[1:]
    monitor.phase_start(name, parent, steps)
    going = not children or _drive(monitor, children, name)
    for step in range(steps):
        going = going and monitor.step_complete(name, step)
    monitor.phase_finish(name)
    return going


class INetworkDefinition(Doubled):
    def _tensors(self, which: str) -> list[Any]:
        graph = onnx.load_model_from_string(self._model).graph
        return [tensor(self, value) for value in getattr(graph, which)]

    num_inputs = property(lambda self: len(self._tensors("input")))
    num_layers = property(lambda self: len(self._layers))

    def get_input(self, index: int) -> Any:
        return self._tensors("input")[index]

    def get_layer(self, index: int) -> Any:
        return self._layers[index]


def tensor(maker: Doubled, value: onnx.ValueInfoProto) -> Any:
    """The double's ITensor of an input or output of an ONNX graph."""
    kind = value.type.tensor_type
    dtype = getattr(maker._trt.DataType, DTYPES[onnx.TensorProto.DataType.Name(kind.elem_type)])
    shape = [dim.dim_value if dim.HasField("dim_value") else -1 for dim in kind.shape.dim]
    symbols = [dim.dim_param for dim in kind.shape.dim]
    return maker._make("ITensor", _name=value.name, _shape=shape, _symbols=symbols, _dtype=dtype)


class ITensor(Doubled):
    name = property(lambda self: self._name)
    shape = property(lambda self: self._trt.Dims(self._shape))


class ILayer(Doubled):
    type = property(lambda self: self._type)


class IOptimizationProfile(Doubled):
    def set_shape(self, input: str, min: Any, opt: Any, max: Any) -> None:
        ranges = [list(min), list(opt), list(max)]
        if len(set(map(len, ranges))) > 1 or any(sorted(dims) != list(dims) for dims in zip(*ranges, strict=False)):
            raise ValueError(f"Shape provided for input {input} is inconsistent: {ranges}")
        self._shapes[input] = ranges


class IBuilderConfig(Doubled):
    def set_flag(self, flag: Any) -> None:
        pass

    def clear_flag(self, flag: Any) -> None:
        pass

    def set_memory_pool_limit(self, pool: Any, pool_size: int) -> None:
        pass

    def add_optimization_profile(self, profile: Any) -> int:
        self._profiles.append(profile)
        return len(self._profiles) - 1

    def create_timing_cache(self, serialized_timing_cache: Any) -> Any:
        return self._make("ITimingCache", _content=bytes(serialized_timing_cache))

    def set_timing_cache(self, cache: Any, ignore_mismatch: bool) -> bool:
        faults = self._trt.double.timing_cache
        if faults and not ignore_mismatch:
            faults.pop(0)
            return False
        self._timing_cache = cache
        return True

    def get_timing_cache(self) -> Any:
        return self._timing_cache


class ITimingCache(Doubled):
    def serialize(self) -> Any:
        return self._memory(b"timing cache " + self._content.removeprefix(b"timing cache "))


class OnnxParser(Doubled):
    def __init__(self, network: Any, logger: Any) -> None:
        self._network = network
        self._errors: list[Any] = []

    num_errors = property(lambda self: len(self._errors))

    def get_error(self, index: int) -> Any:
        return self._errors[index]

    def parse(self, model: Any, path: str | None = None) -> bool:
        for fault in self._trt.double.parser:
            self._error(fault.desc, fault.node_name, fault.node_operator, *fault.local_function_stack)
        self._trt.double.parser.clear()
        try:
            proto = onnx.load_model_from_string(bytes(model))
        except DecodeError:
            self._error("Failed to parse the ONNX model.", "", "")
            return False
        functions = {(function.domain, function.name): function for function in proto.functions}
        for node in proto.graph.node:
            if self._has_plugin(node):
                self._layer(node, "PLUGIN_V3")
            elif (node.domain, node.op_type) in functions:
                for inner in functions[node.domain, node.op_type].node:
                    self._read(inner)
            elif node.domain:
                message = "Plugin not found, are the plugin name, version, and namespace correct?"
                self._error(message, node.name, node.op_type)
            else:
                self._read(node)
        self._network._model = proto.SerializeToString()
        return not self._errors

    def _has_plugin(self, node: onnx.NodeProto) -> bool:
        attributes = {item.name: onnx.helper.get_attribute_value(item) for item in node.attribute}
        registry = self._trt.get_plugin_registry()
        if registry is None or "plugin_namespace" not in attributes:
            return False
        version, namespace = attributes.get("plugin_version", b"1"), attributes["plugin_namespace"]
        return registry.get_creator(node.op_type, version.decode(), namespace.decode()) is not None

    def _read(self, node: onnx.NodeProto) -> None:
        self._layer(node, LAYERS.get(node.op_type, "ELEMENTWISE"))
        for attribute in node.attribute:
            if node.op_type == "GridSample" and attribute.name == "mode":
                # TensorRT's parser knows the modes of opset 16 alone, and takes opset 20's "linear" for nearest,
                # without a word: github.com/NVIDIA/TensorRT/issues/4646, still so in 11.1.
                attribute.s = b"linear" if attribute.s == b"bilinear" else b"nearest"

    def _layer(self, node: onnx.NodeProto, kind: str) -> None:
        self._network._layers.append(self._make("ILayer", _name=node.name, _type=getattr(self._trt.LayerType, kind)))

    def _error(self, desc: str, node_name: str, node_operator: str, *stack: str) -> None:
        made = self._make("ParserError", _desc=desc, _name=node_name, _operator=node_operator, _stack=list(stack))
        self._errors.append(made)


class ParserError(Doubled):
    def desc(self) -> str:
        return self._desc

    def node_name(self) -> str:
        return self._name

    def node_operator(self) -> str:
        return self._operator

    def local_function_stack(self) -> list[str]:
        return self._stack


CLASSES = (
    Builder, INetworkDefinition, ITensor, ILayer, IOptimizationProfile, IBuilderConfig, ITimingCache, OnnxParser,
    ParserError,
)  # fmt: skip
