"""What the real TensorRT bindings accept, read from the signatures that pybind11 writes into its docstrings.

    build_serialized_network(self: tensorrt_bindings.tensorrt.Builder, network: ..., config: ...) -> ...IHostMemory

`bind(overloads, arguments, module)` checks a call as pybind11 would: number, names and types of the arguments. Where
pybind11 converts generously (anything to bool, None to any pointer) this is stricter: nobody means that.

`double_of` makes of a class that behaves like one of the bindings a class that also accepts just what theirs does.
"""

import ctypes
import inspect
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy as np

OPEN, CLOSE = "([{<", ")]}>"
NAMESPACES = ("tensorrt_bindings.tensorrt.", "tensorrt.tensorrt.", "nvinfer1::", "nvonnxparser::")


def signatures(member: Any) -> tuple[inspect.Signature, ...]:
    """The overloads of a method, a constructor, or a property's getter or setter, annotated in pybind11's words."""
    lines = [
        line.split(". ", 1)[-1]
        for line in (member.__doc__ or "").splitlines()
        if re.match(r"(\d+\. )?\w*\(.*\) -> ", line)
    ]
    found = tuple(_parse(line) for line in lines if "(*args, **kwargs)" not in line)
    if not found:
        raise LookupError(f"the bindings document no signature of {member!r}")
    return found


def bind(
    name: str,
    overloads: Sequence[inspect.Signature],
    args: Sequence[object],
    kwargs: dict[str, object],
    module: ModuleType,
) -> tuple[dict[str, object], str]:
    """The arguments by name with defaults absent, and the annotated result, of the first overload that accepts them.

    Raises TypeError as pybind11 does if none accepts them.
    """
    for signature in overloads:
        try:
            bound = signature.bind(*args, **kwargs)
        except TypeError:
            continue
        given = bound.arguments
        if all(accepts(signature.parameters[key].annotation, value, module) for key, value in given.items()):
            return dict(given), signature.return_annotation
    shown = ", ".join([*map(repr, args), *(f"{key}={value!r}" for key, value in kwargs.items())])
    supported = "\n".join(f"    {name}{signature}" for signature in overloads)
    raise TypeError(f"{name}(): incompatible function arguments. Supported:\n{supported}\nInvoked with: {shown}")


def accepts(annotation: str, value: object, module: ModuleType) -> bool:
    """Whether pybind11 takes `value` for a parameter of type `annotation`; classes are looked up in `module`."""
    head, _, inner = annotation.partition("[")
    parts = split(inner[:-1]) if inner else []
    if head in CONTAINERS:
        return isinstance(value, CONTAINERS[head]) and all(accepts(parts[0], item, module) for item in value if parts)
    if head in PLAIN:
        return PLAIN[head](value)
    kind = named(annotation, module)
    if kind is module.Dims and isinstance(value, (tuple, list)):  # implicitly convertible
        return len(value) <= kind.MAX_DIMS and all(map(_is_integer, value))
    return isinstance(value, kind)


def named(annotation: str, module: ModuleType) -> type:
    """The class that an annotation names, by its Python or its C++ name. Raises LookupError if there is none."""
    path = annotation
    for namespace in NAMESPACES:
        path = path.removeprefix(namespace)
    path = re.sub(r"^v_\d+_\d+::", "", path).replace("::", ".")
    for candidate in (path, path.removeprefix("I")):  # nvinfer1::IBuilder is Builder in Python
        found: Any = module
        for part in candidate.split("."):
            found = getattr(found, part, None)
        if isinstance(found, type):
            return found
    raise LookupError(f"tests/tensorrt_signatures.py does not know the type {annotation!r}")


def split(text: str) -> list[str]:
    """`text` cut at its commas, but not within brackets or quotes."""
    parts, depth, quoted = [""], 0, False
    for character in text:
        quoted ^= character == "'"
        depth += 0 if quoted else (character in OPEN) - (character in CLOSE)
        if character == "," and not depth and not quoted:
            parts.append("")
        else:
            parts[-1] += character
    return [part.strip() for part in parts if part.strip()]


def _parse(line: str) -> inspect.Signature:
    inside, _, result = line.partition("(")[2].rpartition(") -> ")
    parameters: list[inspect.Parameter] = []
    optional = True
    for part in reversed(split(inside)):  # in C++ a default may precede a parameter without; then it is of no use
        name, _, annotation = part.partition(": ")
        annotation, _, default = annotation.partition(" = ")
        optional &= bool(default)
        positional = name == "self" or re.fullmatch(r"arg\d+", name)
        kind = inspect.Parameter.POSITIONAL_ONLY if positional else inspect.Parameter.POSITIONAL_OR_KEYWORD
        value = default if optional else inspect.Parameter.empty
        parameters.insert(0, inspect.Parameter(name, kind, annotation=annotation, default=value))
    return inspect.Signature(parameters, return_annotation=result)


def _is_integer(value: object) -> bool:
    return hasattr(value, "__index__") or (
        hasattr(value, "__int__") and not isinstance(value, (str, float, np.ndarray))
    )


def _is_buffer(value: object) -> bool:
    try:
        memoryview(value)  # type: ignore[arg-type]
    except TypeError:
        return False
    return True


CONTAINERS: dict[str, tuple[type, ...]] = {
    "list": (list,), "tuple": (tuple,), "List": (list,), "collections.abc.Sequence": (list, tuple),
}  # fmt: skip
PLAIN: dict[str, Callable[[Any], bool]] = {
    "int": _is_integer,
    "typing.SupportsInt": _is_integer,
    "float": lambda value: isinstance(value, (int, float)),
    "typing.SupportsFloat": lambda value: isinstance(value, (int, float)),
    "bool": lambda value: isinstance(value, bool),
    "str": lambda value: isinstance(value, str),
    "None": lambda value: value is None,
    "buffer": _is_buffer,
    "typing_extensions.Buffer": _is_buffer,
    "object": lambda value: True,
}


@dataclass
class Call:
    """One call: its name, and its arguments by the names of the bindings, those that were given."""

    name: str
    arguments: dict[str, Any]


class Doubled:
    """A class of the bindings; `_real` is theirs, `_trt` the double of the module. Its own state starts with "_"."""

    _real: type
    _trt: Any

    def __init__(self) -> None:
        raise TypeError(f"tensorrt.{type(self).__name__}: No constructor defined!")

    def _make(self, name: str, **attributes: Any) -> Any:
        kind = getattr(self._trt, name)
        made = kind.__new__(kind)
        vars(made).update(attributes)
        self._trt.double.objects.add(made)
        return made

    def _memory(self, content: bytes) -> Any:
        array = ctypes.c_ubyte * len(content)
        kind = type(array)(
            "IHostMemory", (self._trt.IHostMemory, array), {}
        )  # a buffer, as in the bindings, and nothing else
        return kind.from_buffer_copy(content)

    def _fails(self, faults: list[str], logger: Any) -> bool:
        if faults:
            logger.log(self._trt.ILogger.ERROR, faults.pop(0))
            return True
        return False

    def __getattr__(self, name: str) -> Any:
        kind = type(self).__name__
        if name.startswith("_") or not hasattr(self._real, name):
            raise AttributeError(f"'tensorrt.{kind}' object has no attribute {name!r}")
        raise NotImplementedError(f"the double of TensorRT does not simulate {kind}.{name}")

    def __setattr__(self, name: str, value: Any) -> None:
        if name.startswith("_"):
            return object.__setattr__(self, name, value)
        kind, attribute = type(self).__name__, getattr(self._real, name, None)
        if not isinstance(attribute, property) or attribute.fset is None:
            raise AttributeError(f"'tensorrt.{kind}' object has no attribute {name!r} that can be set")
        bind(name, signatures(attribute.fset), (self, value), {}, self._trt)
        self._trt.double.calls.append(Call(f"{kind}.{name}=", {"value": value}))
        return object.__setattr__(self, f"_{name}", value)


def double_of(behaviour: type, real: type, module: Any) -> type:
    """`behaviour`, whose public members are those that `real` has too, and check and record each use."""
    name = behaviour.__name__
    members: dict[str, Any] = {"_real": real, "_trt": module, "__doc__": real.__doc__}
    for key, member in vars(behaviour).items():
        if not hasattr(real, key) and not key.startswith("_"):
            members[key] = property(lambda self, key=key: self.__getattr__(key))  # not in this version: AttributeError
        elif isinstance(member, property):
            getter = getattr(real, key).fget
            members[key] = property(_checked(f"{name}.{key}", member.fget, getter, module))
        elif not key.startswith("_"):
            members[key] = _checked(f"{name}.{key}", member, getattr(real, key), module)
    if "__init__" in vars(behaviour):
        members["__init__"] = _checked(name, vars(behaviour)["__init__"], real.__init__, module)
    return type(name, (behaviour,), members)


def _checked(name: str, function: Callable[..., Any], real: Any, module: Any) -> Callable[..., Any]:
    overloads = signatures(real)

    def call(self: Any, *args: Any, **kwargs: Any) -> Any:
        arguments, returns = bind(name, overloads, (self, *args), kwargs, module)
        given = {key: value for key, value in arguments.items() if key not in ("self", "arg0")}
        module.double.calls.append(Call(name, given))
        result = function(self, **given)
        if result is not None and not accepts(returns, result, module):
            raise TypeError(f"the double of {name} returned {result!r}, the bindings return {returns}")
        if "." not in name:
            module.double.objects.add(self)
        return result

    return call
