"""What is compared: each engine in each precision and mode."""

import statistics
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

from jokr_rt.bench.figures import percentiles
from jokr_rt.bench.processes import Found
from jokr_rt.bundle import BF16, FP16, FP32, INT8
from jokr_rt.engines import ENGINES, KINDS, MODES
from jokr_rt.errors import UsageError

TORCH, ALL = "torch", "all"
LATENCY, THROUGHPUT = MODES
PRECISIONS = (FP32, BF16, FP16, INT8)


@dataclass
class Variant:
    """An engine in a precision and a mode, and what was found of it.

    reason: why it does not run, if it does not. milliseconds: by stage; "frame"
    is all of one. fps: of each turn. runs: what was told of each run from file to file. psnr_db: to what is drawn in
    fp32; None where that is another model's.
    """

    engine: str
    precision: str
    mode: str
    reason: str = ""
    milliseconds: dict[str, list[float]] = field(default_factory=dict)
    fps: list[float] = field(default_factory=list)
    runs: list[Found] = field(default_factory=list)
    psnr_db: float | None = None

    def __str__(self) -> str:
        return f"{self.engine} {self.precision} {self.mode}"

    @property
    def ms(self) -> float:
        """Milliseconds that a frame takes: the median frame; of several at once, the share of the median turn."""
        if self.mode == LATENCY:
            return percentiles(self.milliseconds["frame"])["p50"]
        return 1e3 / statistics.median(self.fps)

    @property
    def is_file_to_file(self) -> bool:
        """Whether that is measured, too: in the mode of `jokr run`, and PyTorch in the loop that a user would write."""
        return not self.reason and (self.mode == THROUGHPUT or self.engine == TORCH)


def choose_variants(engines: Sequence[str], precisions: Sequence[str]) -> list[Variant]:
    """The baselines, PyTorch and an engine in fp32, and then every engine in every precision and mode.

    engines, precisions: names; none of them, or "all", are those that need no GPU. Raises UsageError for unknown ones.
    """
    bundled = [name for name in _chosen("engine", engines, (TORCH, *KINDS), (TORCH, *ENGINES)) if name != TORCH]
    wanted = _chosen("precision", precisions, PRECISIONS, PRECISIONS)
    pairs = [((bundled or ENGINES)[0], FP32), *((engine, precision) for engine in bundled for precision in wanted)]
    found = [Variant(engine, precision, mode) for engine, precision in dict.fromkeys(pairs) for mode in MODES]
    return [Variant(TORCH, FP32, LATENCY), *found]


def _chosen(kind: str, names: Sequence[str], known: Collection[str], usual: Collection[str]) -> list[str]:
    for name in names:
        if name not in (*known, ALL):
            raise UsageError(f"unknown {kind} {name!r}; choose {ALL}, {', '.join(known)}")
    return list(usual if ALL in names or not names else dict.fromkeys(names))
