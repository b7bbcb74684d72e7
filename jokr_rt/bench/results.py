"""From what was measured to what is reported: JSON, in which every figure is derived from measured ones.

The report's "variants" are a list of objects with "engine", "precision" and "mode"; one that did not run has "skipped",
the reason, instead of figures. Milliseconds are of a frame, memory is in bytes. "busy" is the share of the processor
that other programs took when it began.
"""

import statistics
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jokr_rt.bench import cost
from jokr_rt.bench.figures import Floor, percentiles, ratio
from jokr_rt.bench.processes import Found
from jokr_rt.bench.variants import TORCH, Variant
from jokr_rt.bundle import Bundle
from jokr_rt.config import ModelConfig

FORMAT_VERSION = 1
_ITEMSIZES = {"fp32": 4, "bf16": 2, "fp16": 2, "int8": 1}
_DIGITS = 5


@dataclass(frozen=True)
class Subject:
    """What is measured. checkpoint: what the bundle was exported from, an untrained model. None where that is not
    known: then PyTorch runs an untrained model of the same config, whose speed is the same.
    """

    name: str
    bundle: Bundle
    checkpoint: Path | None = None


@dataclass
class Peaks:
    """What the machine can do at best, over the turns. reason: why that was not measured."""

    reason: str = ""
    turns: list[Found] = field(default_factory=list)

    def add(self, turn: Found) -> None:
        self.turns.append(turn)

    @property
    def flops_per_s(self) -> dict[str, float]:
        """By precision: of the layer that is fastest in the median turn."""
        if not self.turns:
            return {}
        found = {precision: list(layers) for precision, layers in self.turns[0]["flops_per_s"].items()}
        return {
            precision: max(
                statistics.median(turn["flops_per_s"][precision][layer] for turn in self.turns) for layer in layers
            )
            for precision, layers in found.items()
        }

    @property
    def read_bytes_per_s(self) -> float:
        """In the median turn."""
        return statistics.median(turn["read_bytes_per_s"] for turn in self.turns)

    def floors(self, config: ModelConfig) -> dict[str, Floor]:
        """Of a frame, by precision. Weights, frame and image are moved: the least that any engine has to."""
        flops, weights, pictures = sum(cost.flops(config).values()), cost.weights(config), 2 * 3 * config.size**2
        return {
            precision: Floor(flops, weights * _ITEMSIZES[precision] + pictures, peak, self.read_bytes_per_s)
            for precision, peak in self.flops_per_s.items()
        }


def results(about: dict[str, Any], subject: Subject, variants: list[Variant], peaks: Peaks) -> dict[str, Any]:
    """The report. about: what is true of all of it."""
    config = subject.bundle.config
    floors = peaks.floors(config)
    model = {"name": subject.name, "is_untrained": subject.checkpoint is not None, "config": config.to_json()}
    floor = {"skipped": peaks.reason} if peaks.reason else _floor(peaks, floors)
    found = about | {"model": model | {"flops": cost.flops(config)}, "floor": floor, "variants": rows(variants, floors)}
    rounded: dict[str, Any] = _rounded({"format_version": FORMAT_VERSION} | found)
    return rounded


def rows(variants: list[Variant], floors: dict[str, Floor]) -> list[dict[str, Any]]:
    """What is reported of each variant; one that does not run is there once, not in each mode."""
    eager = next((each for each in variants if each.engine == TORCH and not each.reason), None)
    found: list[dict[str, Any]] = []
    for variant in variants:
        modes = [each for each in variants if (each.engine, each.precision) == (variant.engine, variant.precision)]
        about: dict[str, Any] = {"engine": variant.engine, "precision": variant.precision, "mode": variant.mode}
        if not variant.reason:
            found.append(about | _figures(variant, eager, floors.get(variant.precision)))
        elif len({each.reason for each in modes}) > 1:
            found.append(about | {"skipped": variant.reason})
        elif variant is modes[0]:
            found.append(about | {"mode": None, "skipped": variant.reason})
    return found


def _figures(variant: Variant, eager: Variant | None, floor: Floor | None) -> dict[str, Any]:
    found = {
        "repeats": len(variant.milliseconds["frame"]),
        "ms": variant.ms,
        "inference_fps": 1e3 / variant.ms,
        "ratio_to_eager": ratio(eager.ms if eager else None, variant.ms),
        "ratio_to_floor": ratio(variant.ms, floor.ms if floor else None),
        "psnr_db": variant.psnr_db,
        "latency_ms": {stage: percentiles(times) for stage, times in variant.milliseconds.items()},
    }
    if not variant.runs:
        return found
    fps = [_fps(run) for run in variant.runs]
    first = [run["first_frame_s"] for run in variant.runs if run["first_frame_s"] is not None]
    loop = statistics.median(map(_fps, eager.runs)) if eager and eager.runs else None
    return found | {
        "end_to_end_fps": statistics.median(fps),
        "end_to_end_fps_range": [min(fps), max(fps)],
        "end_to_end_ratio": ratio(statistics.median(fps), loop),
        "first_frame_s": statistics.median(first) if first else None,
        "peak_bytes": max(run["peak_bytes"] for run in variant.runs),
        "frames": variant.runs[0]["frames"],
    }


def _fps(run: dict[str, Any]) -> float:
    """Of a run from file to file, however short: `jokr run` gives none for a few frames."""
    return float(run["frames"] / run["seconds"])


def _floor(peaks: Peaks, floors: dict[str, Floor]) -> dict[str, Any]:
    return {
        "peak_flops_per_s": peaks.flops_per_s,
        "read_bytes_per_s": peaks.read_bytes_per_s,
        "ms": {precision: floor.ms for precision, floor in floors.items()},
        "compute_ms": {precision: floor.compute_ms for precision, floor in floors.items()},
        "memory_ms": {precision: floor.memory_ms for precision, floor in floors.items()},
    }


def _rounded(found: Any) -> Any:
    """Floats to some digits: no measurement is better than that."""
    if isinstance(found, dict):
        return {name: _rounded(value) for name, value in found.items()}
    if isinstance(found, (list, tuple)):
        return [_rounded(value) for value in found]
    return float(f"{found:.{_DIGITS}g}") if isinstance(found, float) else found
