"""How fast is `jokr run`, whole, on each engine? Decoding, inference and encoding of a real file.

Every run is a process of its own; engines take turns (A B C A B C ...), so that a noisy machine disturbs all alike.
PyTorch, which runs the checkpoint eagerly, is the baseline.

    python benchmarks/engines.py BUNDLE CHECKPOINT CLIP [--repeats 5] [--json]
"""

import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import click

ENGINES = ("torch", "onnxruntime", "openvino")


def run_once(model: Path, clip: Path, engine: str, folder: str) -> dict[str, Any]:
    """The report of one `jokr run`, as JSON."""
    output = Path(folder, f"{engine}.mp4")
    command = [str(Path(sys.executable).with_name("jokr")), "run", str(model), str(clip), "-o", str(output)]
    done = subprocess.run(
        [*command, "--engine", engine, "--overwrite", "--json"], capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise click.ClickException(done.stderr.strip())
    report: dict[str, Any] = json.loads(done.stdout)
    return report


def summary(reports: dict[str, list[dict[str, Any]]]) -> list[dict[str, Any]]:
    """Per engine medians over the runs; `ratio` is the baseline's time over the engine's."""
    rows = []
    for engine, runs in reports.items():
        stages = {stage: statistics.median(run["stages"][stage]["p50"] for run in runs) for stage in runs[0]["stages"]}
        fps = [run["fps"] for run in runs]
        rows.append(
            {"engine": engine, "fps": statistics.median(fps), "fps_range": [min(fps), max(fps)], "stages_ms": stages}
        )
    for row in rows:
        row["ratio"] = row["fps"] / rows[0]["fps"]
    return rows


@click.command(help=__doc__)
@click.argument("bundle", type=click.Path(path_type=Path, exists=True))
@click.argument("checkpoint", type=click.Path(path_type=Path, exists=True))
@click.argument("clip", type=click.Path(path_type=Path, exists=True))
@click.option("--repeats", default=5, show_default=True, help="Runs of each engine.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object on stdout.")
def main(bundle: Path, checkpoint: Path, clip: Path, repeats: int, as_json: bool) -> None:
    models = {engine: checkpoint if engine == "torch" else bundle for engine in ENGINES}
    reports: dict[str, list[dict[str, Any]]] = {engine: [] for engine in ENGINES}
    with tempfile.TemporaryDirectory() as folder:
        for turn in range(repeats):
            for engine, model in models.items():
                reports[engine].append(run_once(model, clip, engine, folder))
                click.echo(f"turn {turn + 1} of {repeats}: {engine} {reports[engine][-1]['fps']:.1f} fps", err=True)
    rows = summary(reports)
    machine = {"processor": platform.processor() or platform.machine(), "cores": os.cpu_count()}
    if as_json:
        click.echo(json.dumps({"machine": machine, "frames": reports["torch"][0]["frames"], "engines": rows}))
        return
    for row in rows:
        low, high = row["fps_range"]
        stages = ", ".join(f"{stage} {value:.1f}" for stage, value in row["stages_ms"].items())
        speed = f"{row['fps']:7.1f} fps ({low:.1f}-{high:.1f}) x{row['ratio']:.2f}"
        click.echo(f"{row['engine']:12} {speed}   median ms: {stages}")


if __name__ == "__main__":
    main()
