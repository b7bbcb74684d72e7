"""Registers the plugin with the real TensorRT bindings and takes it through an engine build, as libnvinfer would.

    python -m tests.tensorrt_aot MAJOR.MINOR       prints JSON; run by test_tensorrt_conformance.py for each version

Real: the bindings, the plugin registry, the creator, the plugin object, NVRTC. Only what describes symbolic dimensions,
which libnvinfer implements, is replaced: an expression is a capsule whose pointer is its place in `Expressions`.
"""

import ctypes
import importlib
import json
import operator
import sys
from typing import Any

import numpy as np

from tests import tensorrt_bindings

SIZES = [(1, 1, 1, 1), (1, 10, 128, 128), (3, 7, 17, 65), (256, 10, 128, 128), (5, 1, 129, 3)]
OPERATIONS = {
    "SUM": operator.add, "SUB": operator.sub, "PROD": operator.mul, "FLOOR_DIV": operator.floordiv,
    "CEIL_DIV": lambda a, b: -(-a // b), "MAX": max, "MIN": min,
}  # fmt: skip

_capsule = ctypes.pythonapi.PyCapsule_New
_capsule.restype, _capsule.argtypes = ctypes.py_object, [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p]
_pointer = ctypes.pythonapi.PyCapsule_GetPointer
_pointer.restype, _pointer.argtypes = ctypes.c_void_p, [ctypes.py_object, ctypes.c_char_p]


class Expressions:
    """An IExprBuilder: each expression is a function of the sizes (N, C, H, W), known by a capsule."""

    def __init__(self) -> None:
        self._known: list[Any] = [None]

    def input(self, axis: int) -> Any:
        return self._add(lambda sizes: sizes[axis])

    def constant(self, value: int) -> Any:
        return self._add(lambda sizes: value)

    def operation(self, operation: Any, first: Any, second: Any) -> Any:
        apply, a, b = OPERATIONS[operation.name], self._get(first), self._get(second)
        return self._add(lambda sizes: apply(a(sizes), b(sizes)))

    def value(self, symbol: Any, sizes: tuple[int, ...]) -> int:
        """Of a trt.ISymExpr for such an input."""
        return self._get(symbol.set["expr"])(sizes)

    def _add(self, function: Any) -> Any:
        self._known.append(function)
        return _capsule(len(self._known) - 1, None, None)

    def _get(self, capsule: Any) -> Any:
        return self._known[_pointer(capsule, None)]


class Symbols(dict[int, Any]):
    """An ISymExprs: the kernel's extra arguments."""

    nbSymExprs = 0


class Launch:
    """An IKernelLaunchParams, which holds what is set."""


def build(trt: Any, dtype: Any, align_corners: int) -> list[dict[str, Any]]:
    """What libnvinfer learns of the plugin for heatmaps of `dtype` and theta of float32: one entry for each tactic."""
    creator = trt.get_plugin_registry().get_creator("AffineGridSample", "1", "jokr")
    (attribute,) = creator.field_names
    value = np.array(
        [align_corners], np.int32
    )  # as TensorRT's parser has an ONNX integer, whatever the creator asks for
    fields = trt.PluginFieldCollection([trt.PluginField(attribute.name, value, trt.PluginFieldType.INT32)])
    request = trt.QuickPluginCreationRequest.STRICT_AOT
    plugin = creator.create_plugin("AffineGridSample", "jokr", fields, trt.TensorRTPhase.BUILD, request)
    types = plugin.get_output_data_types([dtype, trt.float32], [4, 3])
    symbolic = Expressions()
    dims = [
        [symbolic.input(axis) for axis in range(4)],
        [symbolic.input(0), symbolic.constant(2), symbolic.constant(3)],
    ]
    (output,) = plugin.get_output_shapes(dims, [], symbolic)
    tensors = [_tensor(trt, dtype, 4), _tensor(trt, trt.float32, 3), _tensor(trt, types[0], 4)]
    offered = [desc.type.name for desc in plugin.get_supported_format_combinations(tensors, 2)]
    plugin.configure_plugin(tensors[:2], tensors[2:])
    built = []
    for tactic in plugin.get_valid_tactics():
        plugin.set_tactic(tactic)
        launch, extras = Launch(), Symbols()
        plugin.get_launch_params(dims, tensors, 2, launch, extras, symbolic)
        name, ptx = plugin.get_kernel([tensor.desc for tensor in tensors[:2]], [tensors[2].desc])
        axes = [f"{kind}_{axis}" for kind in ("grid", "block") for axis in "xyz"]
        built.append({
            "plugin": type(plugin).__name__, "types": [kind.name for kind in types], "offered": offered,
            "tactic": tactic, "kernel": name, "ptx": ptx.decode(),
            "sizes": [{
                "input": sizes,
                "output": [symbolic._get(extent)(sizes) for extent in output],
                "launch": [symbolic.value(getattr(launch, axis), sizes) for axis in axes],
                "shared": symbolic.value(launch.shared_mem, sizes),
                "extras": [symbolic.value(extras[index], sizes) for index in range(extras.nbSymExprs)],
                "extra_types": [extras[index].set["dtype"].name for index in range(extras.nbSymExprs)],
            } for sizes in SIZES],
        })  # fmt: skip
    return built


def _tensor(trt: Any, dtype: Any, rank: int) -> Any:
    tensor = trt.DynamicPluginTensorDesc()
    desc = tensor.desc
    desc.type, desc.format, desc.dims = dtype, trt.TensorFormat.LINEAR, trt.Dims([-1] * rank)
    tensor.desc = desc
    tensor.min = tensor.opt = tensor.max = trt.Dims([1] * rank)
    return tensor


def _remember_what_is_set(kind: type) -> None:
    """Of a class whose properties can be set but not read: what libnvinfer gets goes to the instance's `set` too."""

    def remember(self: Any, name: str, value: Any) -> None:
        vars(self).setdefault("set", {})[name] = value
        object.__setattr__(self, name, value)

    kind.__setattr__ = remember  # type: ignore[method-assign, assignment]


def main(version: str) -> None:
    trt = tensorrt_bindings.load(version)
    sys.modules.update({"tensorrt": trt, "tensorrt.plugin": trt.plugin})
    from trt_plugins import plugin

    plugin.register((8, 0))
    plugin.register((9, 0))  # again, for another GPU: the plugin stays registered, and its kernel changes
    _remember_what_is_set(importlib.import_module("tensorrt_bindings.plugin._tensor").SymExprImpl)
    trt.IDimensionExpr, trt.DimsExprs = type(Expressions().constant(0)), lambda length: [None] * length
    found = {
        f"{dtype.name} {align}": build(trt, dtype, align) for dtype in (trt.float32, trt.float16) for align in (0, 1)
    }
    print(json.dumps(found))


if __name__ == "__main__":
    main(sys.argv[1])
