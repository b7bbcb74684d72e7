"""A report of `jokr_rt.bench.results` in words, for terminal and README alike."""

from typing import Any

from jokr_rt.bench.figures import PSNR_CAP
from jokr_rt.evaluation.tables import Row, Table

Found = dict[str, Any]


def benchmark_tables(found: Found) -> list[Table]:
    """What ran, how long its stages take, and the machine's floor."""
    tables = [variant_table(found), _stage_table([row for row in found["variants"] if "skipped" not in row])]
    return tables if "skipped" in found["floor"] else [*tables, _floor_table(found["floor"])]


def skipped(found: Found) -> list[tuple[str, str]]:
    """What did not run, and why."""
    rows = [(variant_name(row), row["skipped"]) for row in found["variants"] if "skipped" in row]
    floor = found["floor"]
    return [*rows, ("the machine's floor", floor["skipped"])] if "skipped" in floor else rows


def variant_table(found: Found) -> Table:
    """A row for each variant that ran."""
    header = ("variant", "ms", "fps", "× PyTorch", "× floor", "PSNR dB", "file to file fps", "× loop", "first frame s",
              "peak MB")  # fmt: skip
    rows = [Row(_cells(row)) for row in found["variants"] if "skipped" not in row]
    return Table(title(found), "", header, tuple(rows))


def title(found: Found) -> str:
    """Which model, and how much of a computation it is."""
    model = found["model"]
    size, gigaflops = model["config"]["size"], sum(model["flops"].values()) / 1e9
    untrained = ", untrained" if model["is_untrained"] else ""
    return f"{model['name']}{untrained}: {size} x {size}, {gigaflops:.3g} GFLOP a frame"


def variant_name(row: Found) -> str:
    """Engine, precision, and the mode, if it runs in any."""
    return ", ".join(filter(None, (f"{row['engine']} {row['precision']}", row["mode"])))


def psnr_words(psnr_db: float | None) -> str:
    """dB; nothing where there was nothing to compare with."""
    if psnr_db is None:
        return ""
    return "exact" if psnr_db >= PSNR_CAP else f"{psnr_db:.1f}"


def _cells(row: Found) -> tuple[str, ...]:
    megabytes = row["peak_bytes"] / 1e6 if "peak_bytes" in row else None
    return (
        variant_name(row),
        _number(row["ms"], 1),
        _number(row["inference_fps"], 1),
        _number(row["ratio_to_eager"], 2),
        _number(row["ratio_to_floor"], 2),
        psnr_words(row["psnr_db"]),
        _number(row.get("end_to_end_fps"), 1),
        _number(row.get("end_to_end_ratio"), 2),
        _number(row.get("first_frame_s"), 2),
        _number(megabytes, 0),
    )


def _stage_table(rows: list[Found]) -> Table:
    stages = dict.fromkeys(stage for row in rows for stage in row["latency_ms"])
    header = ("ms", *(f"{stage} p{percent}" for stage in stages for percent in (50, 95, 99)))
    cells = []
    for row in rows:
        times = (row["latency_ms"].get(stage, {}).get(f"p{percent}") for stage in stages for percent in (50, 95, 99))
        cells.append(Row((variant_name(row), *(_number(time, 1) for time in times))))
    return Table("Latency", "", header, tuple(cells))


def _floor_table(floor: Found) -> Table:
    header = ("precision", "peak GFLOP/s", "ms of arithmetic", "ms of reading", "ms at least")
    rows = []
    for name, peak in floor["peak_flops_per_s"].items():
        parts = (_number(floor[part][name], 2) for part in ("compute_ms", "memory_ms", "ms"))
        rows.append(Row((name, _number(peak / 1e9, 0), *parts)))
    return Table(f"The machine's floor, reading {floor['read_bytes_per_s'] / 1e9:.1f} GB/s", "", header, tuple(rows))


def _number(value: float | None, decimals: int) -> str:
    return "" if value is None else f"{value:.{decimals}f}"
