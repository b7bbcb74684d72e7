"""A recording double of the module `tensorrt`, on top of the real bindings, for machines without libnvinfer.

Used in the pytest process, by the fixture `tensorrt_double` of conftest.py: while the test runs, `import tensorrt` is
the double, and the fixture is the test's `Double`, which sees every call and injects faults. The module is the same in
all tests, so that code which imported it keeps a valid reference.

    def test_builds(tensorrt_double):
        ...                                              # builds and runs an engine
        assert tensorrt_double.arguments("IBuilderConfig.set_memory_pool_limit")[0]["pool_size"] == 1 << 30
        assert [call.name for call in tensorrt_double.calls][:2] == ["Builder", "Builder.create_network"]

What is real: enums, Dims, Logger, IProgressMonitor and all else that DOUBLED does not list, the module's functions,
`tensorrt.plugin` and the plugin registry. What is doubled takes and returns what the signatures of the bindings say, or
raises TypeError; an attribute which the bindings lack raises AttributeError; one which they have and the double lacks
raises NotImplementedError. Parameter names are theirs: a version that renames one breaks the double.

It behaves like TensorRT as far as this project can tell. Parsing reads the ONNX graph: inputs, outputs, a layer per
node; a node with `plugin_namespace` is a PLUGIN_V3 layer if the registry has its creator, else its function's body is
taken, silently. Building needs a profile for each dynamic input, drives the progress monitor, and returns a plan with a
checksum; the runtime reads such plans only. `execute_async_v3` computes the graph with ONNX Runtime at the addresses
that were set, so these must be host memory; `Double.enqueue` decides when.

Calls are named "Class" (constructor), "Class.method", "Class.property" (read), "Class.property=" (set to "value").
"""

import sys
import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

import pytest

from tests import tensorrt_bindings, tensorrt_builder_double, tensorrt_runtime_double
from tests.tensorrt_signatures import Call, double_of

DOUBLED = (*tensorrt_builder_double.CLASSES, *tensorrt_runtime_double.CLASSES)


@dataclass
class ParserFault:
    """An error that the ONNX parser is to report."""

    desc: str
    node_name: str = ""
    node_operator: str = ""
    local_function_stack: tuple[str, ...] = ()


@dataclass
class Double:
    """What the double saw, and what is to go wrong: a call that can fail takes the first of its list, if there is one.

    build, deserialize, context: the call logs this at severity ERROR and returns None, as TensorRT reports failures.
    execute: execute_async_v3 logs it and returns False.
    timing_cache: set_timing_cache(cache, ignore_mismatch=False) returns False, as for a cache of another device.
    parser: OnnxParser.parse returns False, with all of these errors.
    phases: name and number of steps of each phase that the progress monitor hears of, each within the one before.
    enqueue: gets the handle of the stream, and the work that execute_async_v3 would put on it.
    """

    build: list[str] = field(default_factory=list)
    deserialize: list[str] = field(default_factory=list)
    context: list[str] = field(default_factory=list)
    execute: list[str] = field(default_factory=list)
    timing_cache: list[str] = field(default_factory=list)
    parser: list[ParserFault] = field(default_factory=list)
    phases: Sequence[tuple[str, int]] = (("Building engine", 2), ("Tactics", 3))
    enqueue: Callable[[int, Callable[[], None]], None] = lambda stream, work: work()

    calls: list[Call] = field(default_factory=list)
    objects: "weakref.WeakSet[Any]" = field(default_factory=weakref.WeakSet)

    def arguments(self, name: str) -> list[dict[str, Any]]:
        """The arguments of each call of that name, in order."""
        return [call.arguments for call in self.calls if call.name == name]

    def alive(self, name: str) -> int:
        """How many objects of a doubled class exist, such as "IExecutionContext"."""
        return sum(type(item).__name__ == name for item in self.objects)


def make(real: ModuleType) -> ModuleType:
    """The double of the real module `real`. Its attribute `double` is the `Double` that its objects report to."""
    module = ModuleType("tensorrt", real.__doc__)
    module.__dict__.update({key: value for key, value in vars(real).items() if not key.startswith("_")})
    module.__dict__.update(
        __version__=real.__version__, __path__=[], __spec__=ModuleSpec("tensorrt", None), double=Double()
    )
    for behaviour in DOUBLED:
        setattr(module, behaviour.__name__, double_of(behaviour, getattr(real, behaviour.__name__), module))
    return module


def install(patch: pytest.MonkeyPatch, version: str = tensorrt_bindings.NEWEST) -> Double:
    """Make the double of a version's bindings what `import tensorrt` gives until `patch` is undone."""
    module = _of(version)
    module.double = Double()
    patch.setitem(sys.modules, "tensorrt", module)
    patch.setitem(sys.modules, "tensorrt.plugin", module.plugin)
    return module.double


@cache
def _of(version: str) -> Any:
    return make(tensorrt_bindings.load(version))
