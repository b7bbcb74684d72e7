"""Does a bundle compute what PyTorch computed? Measured on the real frames that are stored with it, in numpy alone."""

import math
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from jokr_rt.bundle import BF16, FP16, FP32, INT8, Arrays, Bundle, Parity, Signature, TensorSpec
from jokr_rt.engines import KINDS, DeviceEngine, Engine, Monitor, engine_module, load_engine
from jokr_rt.errors import ParityError


@dataclass(frozen=True)
class Tolerance:
    """What passes of a graph's outputs, and of whole frames: those that all graphs make in a row.

    floats: largest error of a float output, as a share of the largest magnitude that PyTorch gives there, or of 1
    where that is more: floats are rounded in proportion to what is summed, and sums that nearly cancel, such as a
    coordinate of 0, carry the rounding of terms of about 1. levels: of uint8. psnr_db: smallest PSNR of an output,
    instead of these where it is given. frame_psnr_db: of whole frames.
    """

    floats: float = math.inf
    levels: float = math.inf
    psnr_db: float | None = None
    frame_psnr_db: float = 0.0

    def of(self, spec: TensorSpec, expected: NDArray[Any]) -> float | None:
        """The largest error that passes, in the output's own units; None where its PSNR decides."""
        if self.psnr_db is not None:
            return None
        if spec.dtype == "uint8":
            return self.levels
        return self.floats * max(1.0, float(np.abs(expected).max()))


TOLERANCES = {
    # 800 times the rounding of one float32 operation (2^-23), for sums over some thousand terms in any order. A value
    # half-way between two levels may be rounded to either.
    FP32: Tolerance(1e-4, 1.0, frame_psnr_db=60.0),
    # Trained models keep under 3e-4 (keypoints), 1.5e-3 of appearance's largest value, and a level.
    FP16: Tolerance(2e-3, 2.0, frame_psnr_db=50.0),
    # Trained models keep 55 dB of frames.
    BF16: Tolerance(psnr_db=25.0, frame_psnr_db=45.0),
    # Frames are what counts. The export wants 42 dB of them; another processor may round the other way.
    INT8: Tolerance(psnr_db=0.0, frame_psnr_db=41.0),
}


def verify_bundle(
    bundle: Bundle, engine_name: str, precisions: Collection[str] | None = None, monitor: Monitor | None = None
) -> list[Parity]:
    """Run every graph on the bundle's samples with an installed engine ("auto" takes the preferred one).

    precisions: all that the bundle has, and the engine runs on this machine, unless given. Every graph is given
    PyTorch's own float32 results of the stages before it, so that a difference is its own; then all are run in a row.
    Returns a figure for each output and each direction's frames, failed ones too (see `require_parity`). Raises
    ParityError where a name, shape or dtype differs, and what `load_engine` raises.
    """
    samples = bundle.samples()
    engine = load_engine(engine_name, bundle, monitor=monitor)
    figures: list[Parity] = []
    try:
        for precision in bundle.precisions if precisions is None else precisions:
            if precisions is None and not _can_run(engine.name, precision):
                continue
            if precision != engine.precision:
                _free(engine)
                engine = load_engine(engine.name, bundle, precision, monitor)
            for graph, signature in bundle.signatures.items():
                inputs = {spec.name: samples[graph][spec.name] for spec in signature.inputs}
                actual = engine.run(graph, inputs)
                figures += compare(graph, engine.name, signature, actual, samples[graph], precision)
            figures += _compare_frames(bundle, engine, precision, samples)
    finally:
        _free(engine)
    return figures


def _can_run(engine: str, precision: str) -> bool:
    """Whether an engine runs a precision on this machine."""
    kind = KINDS[engine]
    return precision in kind.precisions and not (kind.asks_cpu and engine_module(engine).lacks(precision))


def _compare_frames(bundle: Bundle, engine: Engine, precision: str, samples: dict[str, Arrays]) -> Iterator[Parity]:
    """Of each direction: from the frame to the image, each graph given what the one before it made."""
    (spec,) = bundle.signatures["generator"].outputs
    first = len(samples["stn-a2b"]["keypoints"])
    halves = {"a2b": slice(0, first), "b2a": slice(first, None)}
    for direction, half in halves.items():
        keypoints = engine.run("extractor", {"frame": samples["extractor"]["frame"][half]})["keypoints"]
        warped = engine.run(f"stn-{direction}", {"keypoints": keypoints})["warped"]
        given = {"warped": warped, "appearance": samples["generator"]["appearance"][half]}
        image, expected = engine.run("generator", given)["image"], samples["generator"]["image"][half]
        wanted = TOLERANCES[precision].frame_psnr_db
        yield replace(
            _measure(direction, precision, engine.name, spec, image, expected), tolerance=None, min_psnr_db=wanted
        )


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
            where = f"{figure.graph} ({figure.engine}, {figure.precision}): {figure.output}"
            if figure.tolerance is None:
                how = f"keeps {figure.psnr_db:.1f} dB of PyTorch's, less than {figure.min_psnr_db:g}"
            else:
                how = f"differs from PyTorch's by {figure.max_abs:.3g}, more than {figure.tolerance:.3g}"
            raise ParityError(f"{where} {how}; try another engine or export again")


def _measure(
    graph: str, precision: str, engine: str, spec: TensorSpec, actual: NDArray[Any], expected: NDArray[Any]
) -> Parity:
    wanted = expected.astype(np.float64)
    error = np.abs(actual - wanted)
    squared = float(np.mean(error**2))
    span = spec.high - spec.low if spec.dtype == "uint8" else float(np.ptp(wanted)) or 1.0
    return Parity(
        graph=graph,
        precision=precision,
        engine=engine,
        output=spec.name,
        max_abs=float(error.max()),
        mean_abs=float(error.mean()),
        psnr_db=None if squared == 0 else 10 * math.log10(span**2 / squared),
        tolerance=TOLERANCES[precision].of(spec, wanted),
        min_psnr_db=TOLERANCES[precision].psnr_db,
    )
