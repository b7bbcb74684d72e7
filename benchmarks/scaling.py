"""What does a frame cost as the model, the machine's share or the video grows? One axis at a time, from one model.

Models are seeded and untrained: weights do not change the speed. Every point is measured in a process of its own and
kept in OUT, so that a run that was stopped goes on where it was. Each axis becomes OUT/scaling-AXIS.json and .png.

    size, keypoints, width   of the model; a frame at a time
    batch                    frames in one call of the graphs
    threads                  cores that the process may use
    streams                  videos at once, in one process
    length                   frames of a video, from file to file: peak memory, and frames a second

    python benchmarks/scaling.py OUT [--only size,width,...] [--engine openvino] [--precision fp32]
"""

import hashlib
import os
from dataclasses import replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import click
from harness import Found, Program, Settings, names_in, remembered, training_options, write_json
from scaling_points import point

import jokr_rt
from jokr_rt.bench import cost, tasks
from jokr_rt.bench.machine import machine, revision, versions
from jokr_rt.bench.processes import Processes
from jokr_rt.bundle import FP32, HINTS
from jokr_rt.config import PRESETS, ModelConfig
from jokr_rt.engines import KINDS
from jokr_rt.errors import UsageError
from jokr_rt.evaluation.puppets import BROWN, TEST, Motion, write_video

AXES: dict[str, tuple[float, ...]] = {
    "size": (128, 192, 256, 384, 512),
    "keypoints": (5, 10, 20, 40),
    "width": (0.125, 0.25, 0.5, 1.0),
    "batch": (1, 2, 4, 8),
    "threads": tuple(range(1, (os.cpu_count() or 1) + 1)),
    "streams": (1, 2, 4),
    "length": (100, 400, 1600, 6400),
}
MODEL_AXES = ("size", "keypoints", "width")
BASE = PRESETS["realtime"]
FILM_SIDE = 128  # pixels, of the clips for `length`: quickly drawn


def code_digest() -> str:
    """Of all code that a point depends on."""
    root = Path(jokr_rt.__file__).parent
    digest = hashlib.sha256((Path(__file__).with_name("scaling_points.py")).read_bytes())
    for file in sorted([*root.rglob("*.py"), *(root.parent / "export").glob("*.py")]):
        digest.update(file.read_bytes())
    return digest.hexdigest()[:12]


CODE = code_digest()  # as it was imported


def measure(out: Path, config: ModelConfig, axis: str, value: float, settings: Settings) -> Found:
    """One point, of an untrained model that is kept in `out` for others."""
    with Processes() as processes:
        bundle = _bundle(out, config, settings["precision"], processes)
        if axis != "length":
            arguments = {"bundle": str(bundle), "axis": axis, "value": value} | settings
            processes.once(point, **arguments | {"repeats": 1})  # what an engine compiles, it keeps: not measured
            return processes.once(point, **arguments)
        with TemporaryDirectory(dir=out) as folder:
            clip = Path(folder, "walk.mp4")
            write_video(clip, BROWN, Motion.walk(int(value), TEST.seed, TEST.gait), FILM_SIDE)
            options = ("--engine", settings["engine"], "--precision", settings["precision"])
            report = processes.jokr("run", bundle, clip, "-o", clip.with_name("out.mp4"), *options)
    milliseconds = 1e3 * report["seconds"] / report["frames"]
    return {"frames": report["frames"], "ms": milliseconds, "peak_bytes": report["peak_bytes"]}


def points(out: Path, axis: str, base: ModelConfig, settings: Settings) -> list[Found]:
    """A row for each value of an axis; what was measured before is kept."""
    rows = []
    for value in AXES[axis]:
        config = changed(base, axis, value)
        key = {
            "settings": settings,
            "config": config.to_json(),
            "code": CODE,
            "machine": machine(),
            "versions": versions(),
        }
        folder = out / f"{axis}-{value:g}"
        found = remembered(folder, key, partial(measure, out, config, axis, value, settings))
        rows.append({"value": value, "flops": sum(cost.flops(config).values())} | found)
    return rows


def changed(base: ModelConfig, axis: str, value: float) -> ModelConfig:
    """A model with another value of one axis. What the extractor looks at keeps its ratio to the frame."""
    if axis == "size":
        return replace(base, size=int(value), extractor_size=int(value) * base.extractor_size // base.size)
    if axis == "keypoints":
        return replace(base, keypoints=int(value))
    return replace(base, width=value) if axis == "width" else base


def _bundle(out: Path, config: ModelConfig, precision: str, processes: Processes) -> Path:
    numbers = "-".join(f"{value:g}" for value in config.to_json().values())
    path = out / f"model-{numbers}-{precision}-{CODE}.jokr"
    if not path.exists():
        checkpoint = path.with_suffix(".safetensors")
        wanted = [] if precision in (FP32, *HINTS) else ["--precision", precision]
        processes.once(tasks.seed, config=config.to_json(), checkpoint=str(checkpoint))
        processes.jokr("export", checkpoint, "-o", path, *wanted)
        checkpoint.unlink()
    return path


def plot(path: Path, axis: str, rows: list[Found]) -> None:
    """Milliseconds a frame; where the model changes, dashed, what they would be in proportion to FLOPs; and memory."""
    from matplotlib.figure import Figure

    values, first = [row["value"] for row in rows], rows[0]
    figure = Figure(figsize=(9, 4), layout="constrained")
    speed, memory = figure.subplots(1, 2)
    speed.plot(values, [row["ms"] for row in rows], marker="o", label="measured")
    if axis in MODEL_AXES:
        speed.plot(values, [first["ms"] * row["flops"] / first["flops"] for row in rows], "--", label="as FLOPs grow")
        speed.legend()
    speed.set(xlabel=axis, ylabel="ms a frame", ylim=(0, None))
    memory.plot(values, [row["peak_bytes"] / 1e6 for row in rows], marker="o")
    memory.set(xlabel=axis, ylabel="peak memory, MB", ylim=(0, None))
    for panel in (speed, memory):
        panel.set_xscale("log")
        panel.set_xticks(values, [f"{value:g}" for value in values])
        panel.minorticks_off()
        panel.grid(alpha=0.25)
    figure.savefig(path)


@click.command(cls=Program, help=__doc__)
@click.argument("out", type=click.Path(path_type=Path, file_okay=False))
@click.option("--only", default="", metavar="AXIS,...", help=f"Of {', '.join(AXES)}.")
@click.option("--engine", default="openvino", show_default=True, help="As of jokr run.")
@click.option("--precision", default="fp32", show_default=True, help="As of jokr run.")
@click.option("--repeats", default=30, show_default=True, type=click.IntRange(min=1), help="Of a point's call.")
@training_options(**BASE.to_json())
def main(out: Path, only: str, engine: str, precision: str, repeats: int, **model: Any) -> None:
    base = ModelConfig.from_json(model)
    chosen = names_in(only, list(AXES), "--only")
    if precision not in (kind.precisions if (kind := KINDS.get(engine)) else ()):
        known = "; ".join(f"{name}: {', '.join(each.precisions)}" for name, each in KINDS.items())
        raise UsageError(f"--engine {engine} --precision {precision}: there is no such; choose from {known}")
    out.mkdir(parents=True, exist_ok=True)
    settings = {"engine": engine, "precision": precision, "repeats": repeats}
    about = {"machine": machine(), "versions": versions(), "revision": revision(), "model": base.to_json()}
    for axis in chosen:
        rows = points(out, axis, base, settings)
        write_json(out / f"scaling-{axis}.json", about | {"axis": axis, "settings": settings, "points": rows})
        plot(out / f"scaling-{axis}.png", axis, rows)
        for row in rows:
            click.echo(f"{axis:10} {row['value']:8g} {row['ms']:9.2f} ms a frame {row['peak_bytes'] / 1e6:8.0f} MB")


if __name__ == "__main__":
    main()
