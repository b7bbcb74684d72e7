"""Does a bundle compute what PyTorch computed? Measured on the real frames that are stored with it, in numpy alone."""

import math
from collections.abc import Iterable

import numpy as np

from jokr_rt.bundle import Arrays, Bundle, Parity, Signature, TensorSpec
from jokr_rt.engines import load_engine
from jokr_rt.errors import ParityError

FLOAT_TOLERANCE = 1e-4  # trained models keep under 2e-6, untrained full-size ones under 9e-5
LEVEL_TOLERANCE = 1.0  # of 255: a value half-way between two levels may be rounded to either


def verify_bundle(bundle: Bundle, engine_name: str) -> list[Parity]:
    """Run every graph on the bundle's samples with an installed engine ("auto" takes the preferred one).

    Every graph is given PyTorch's own results of the stages before it, so that a difference is its own. Returns a
    figure for each output, failed ones too (see `require_parity`). Raises ParityError where a name, shape or dtype
    differs, and what `load_engine` raises.
    """
    engine = load_engine(engine_name, bundle)
    samples = bundle.samples()
    figures: list[Parity] = []
    for graph, signature in bundle.signatures.items():
        inputs = {spec.name: samples[graph][spec.name] for spec in signature.inputs}
        figures += compare(graph, engine.name, signature, engine.run(graph, inputs), samples[graph])
    return figures


def compare(graph: str, engine: str, signature: Signature, actual: Arrays, expected: Arrays) -> list[Parity]:
    """Names, then shapes and dtypes, then values of a graph's outputs against the expected ones."""
    names = [spec.name for spec in signature.outputs]
    if sorted(actual) != sorted(names):
        raise ParityError(f"{graph} ({engine}): outputs {', '.join(actual)} instead of {', '.join(names)}")
    for spec in signature.outputs:
        found, wanted = actual[spec.name], expected[spec.name]
        if (found.dtype, found.shape) != (wanted.dtype, wanted.shape):
            kinds = f"{found.dtype} {found.shape} instead of {wanted.dtype} {wanted.shape}"
            raise ParityError(f"{graph} ({engine}): {spec.name} is {kinds}")
    return [_measure(graph, engine, spec, actual, expected) for spec in signature.outputs]


def require_parity(figures: Iterable[Parity]) -> None:
    """Raises ParityError that names the first output which differs by more than its tolerance, and by how much."""
    for figure in figures:
        if not figure.passed:
            raise ParityError(
                f"{figure.graph} ({figure.engine}): {figure.output} differs from PyTorch's by {figure.max_abs:.3g}, "
                f"more than {figure.tolerance:.3g}; try another engine or export again"
            )


def _measure(graph: str, engine: str, spec: TensorSpec, actual: Arrays, expected: Arrays) -> Parity:
    wanted = expected[spec.name].astype(np.float64)
    error = np.abs(actual[spec.name] - wanted)
    squared = float(np.mean(error**2))
    span = float(np.ptp(wanted)) or 1.0
    return Parity(
        graph=graph,
        precision="fp32",
        engine=engine,
        output=spec.name,
        max_abs=float(error.max()),
        mean_abs=float(error.mean()),
        psnr_db=None if squared == 0 else 10 * math.log10(span**2 / squared),
        tolerance=LEVEL_TOLERANCE if spec.dtype == "uint8" else FLOAT_TOLERANCE,
    )
