"""What every engine checks alike: the graph it loaded, the arrays it is given, and the words it fails with."""

from collections.abc import Iterable
from pathlib import Path

from jokr_rt.bundle import Arrays, Signature
from jokr_rt.errors import BundleError, EngineError

Port = tuple[str, tuple[int | str, ...], str]
"""Name, shape and numpy's dtype name of a loaded graph's input or output; a dimension left open is "N"."""


def check_graph(path: Path, signature: Signature, inputs: Iterable[Port], outputs: Iterable[Port]) -> None:
    """Raises BundleError where a loaded graph has other inputs or outputs than the manifest says."""
    for kind, specs, ports in (("inputs", signature.inputs, inputs), ("outputs", signature.outputs, outputs)):
        expected = {spec.name: _describe(spec.dtype, spec.shape) for spec in specs}
        found = {name: _describe(dtype, shape) for name, shape, dtype in ports}
        if found != expected:
            ports_found, ports_expected = _list(found), _list(expected)
            raise BundleError(f"{path}: {kind} {ports_found} instead of the manifest's {ports_expected}; export again")


def check_inputs(graph: str, signature: Signature, inputs: Arrays) -> None:
    """Raises EngineError where arrays do not fit a graph: some engines would answer with empty or converted ones."""
    names = [spec.name for spec in signature.inputs]
    if sorted(inputs) != sorted(names):
        raise EngineError(f"{graph}: inputs {', '.join(inputs)} instead of {', '.join(names)}")
    try:
        for spec in signature.inputs:
            spec.check(inputs[spec.name])
    except ValueError as error:
        raise EngineError(f"{graph}: {error}") from None
    if len({len(array) for array in inputs.values()}) > 1:
        raise EngineError(f"{graph}: the inputs' batch sizes differ")


def failure(engine: str, what: str, error: Exception) -> EngineError:
    """An engine's own exception in one line: of OpenVINO's many, neither headings nor places in its source."""
    lines = [line.strip() for line in str(error).splitlines()]
    told = [line for line in lines if line and line[-1] != ":" and not line.startswith(("Exception from", "Check '"))]
    summary = [line.removeprefix("-- ") for line in told if line.startswith("-- ")]
    return EngineError(f"{engine}: {what}: {[*summary, *told, type(error).__name__][0]}")


def _describe(dtype: str, shape: tuple[int | str, ...]) -> str:
    return f"{dtype} ({', '.join(map(str, shape))})"


def _list(ports: dict[str, str]) -> str:
    return ", ".join(f"{name} {kind}" for name, kind in sorted(ports.items()))
