"""Does a bundle compute what PyTorch computed? Measured on the real frames that are stored with it, in numpy alone."""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from jokr_rt.bundle import FP32, Arrays, Bundle, Parity, Signature, TensorSpec
from jokr_rt.engines import KINDS, DeviceEngine, Engine, load_engine
from jokr_rt.errors import ParityError


@dataclass(frozen=True)
class Tolerance:
    """floats: largest error of a float output. levels: of uint8. is_relative: floats is of an output's largest value,
    where that is more than 1, as numbers of 16 bits are rounded."""

    floats: float
    levels: float
    is_relative: bool = False

    def of(self, spec: TensorSpec, expected: NDArray[Any]) -> float:
        """The largest error that passes, in the output's own units."""
        if spec.dtype == "uint8":
            return self.levels
        return self.floats * max(1.0, float(np.abs(expected).max())) if self.is_relative else self.floats


TOLERANCES = {
    # Trained models keep under 2e-6, untrained full-size ones under 9e-5. A value half-way between two levels may be
    # rounded to either.
    FP32: Tolerance(1e-4, 1.0),
    # Trained models keep under 3e-4 (keypoints), 1.5e-3 of appearance's largest value, and a level.
    "fp16": Tolerance(2e-3, 2.0, is_relative=True),
}


def verify_bundle(bundle: Bundle, engine_name: str) -> list[Parity]:
    """Run every graph on the bundle's samples with an installed engine ("auto" takes the preferred one).

    In every precision that the bundle has and the engine runs. Every graph is given PyTorch's own float32 results of
    the stages before it, so that a difference is its own. Returns a figure for each output, failed ones too (see
    `require_parity`). Raises ParityError where a name, shape or dtype differs, and what `load_engine` raises.
    """
    samples = bundle.samples()
    engine = load_engine(engine_name, bundle)
    figures: list[Parity] = []
    try:
        for precision in bundle.precisions:
            if precision not in KINDS[engine.name].precisions:
                continue
            if precision != engine.precision:
                _free(engine)
                engine = load_engine(engine.name, bundle, precision)
            for graph, signature in bundle.signatures.items():
                inputs = {spec.name: samples[graph][spec.name] for spec in signature.inputs}
                actual = engine.run(graph, inputs)
                figures += compare(graph, engine.name, signature, actual, samples[graph], precision)
    finally:
        _free(engine)
    return figures


def _free(engine: Engine) -> None:
    if isinstance(engine, DeviceEngine):
        engine.close()


def compare(
    graph: str, engine: str, signature: Signature, actual: Arrays, expected: Arrays, precision: str = FP32
) -> list[Parity]:
    """Names, then shapes and dtypes, then values of a graph's outputs against the expected ones."""
    names = [spec.name for spec in signature.outputs]
    if sorted(actual) != sorted(names):
        raise ParityError(f"{graph} ({engine}): outputs {', '.join(actual)} instead of {', '.join(names)}")
    for spec in signature.outputs:
        found, wanted = actual[spec.name], expected[spec.name]
        if (found.dtype, found.shape) != (wanted.dtype, wanted.shape):
            kinds = f"{found.dtype} {found.shape} instead of {wanted.dtype} {wanted.shape}"
            raise ParityError(f"{graph} ({engine}): {spec.name} is {kinds}")
    return [
        _measure(graph, precision, engine, spec, actual[spec.name], expected[spec.name]) for spec in signature.outputs
    ]


def require_parity(figures: Iterable[Parity]) -> None:
    """Raises ParityError that names the first output which differs by more than its tolerance, and by how much."""
    for figure in figures:
        if not figure.passed:
            raise ParityError(
                f"{figure.graph} ({figure.engine}, {figure.precision}): {figure.output} differs from PyTorch's by "
                f"{figure.max_abs:.3g}, more than {figure.tolerance:.3g}; try another engine or export again"
            )


def _measure(
    graph: str, precision: str, engine: str, spec: TensorSpec, actual: NDArray[Any], expected: NDArray[Any]
) -> Parity:
    wanted = expected.astype(np.float64)
    error = np.abs(actual - wanted)
    squared = float(np.mean(error**2))
    span = float(np.ptp(wanted)) or 1.0
    return Parity(
        graph=graph,
        precision=precision,
        engine=engine,
        output=spec.name,
        max_abs=float(error.max()),
        mean_abs=float(error.mean()),
        psnr_db=None if squared == 0 else 10 * math.log10(span**2 / squared),
        tolerance=TOLERANCES[precision].of(spec, wanted),
    )
