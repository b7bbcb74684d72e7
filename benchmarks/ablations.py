"""Which number does each part of training buy? The puppets, learnt with all of it and without each part.

The same seed and steps, each run in a process of its own, measured as `jokr evaluate --data puppets` does. A Markdown
table is printed, the worse of both directions in each cell, and in brackets the difference to `full`. Numbers and
contact sheets stay in OUT; the same command goes on where an interrupted one stopped.

    python benchmarks/ablations.py OUT [--seeds 0,1,2] [--only no-cycle,no-stn] [--json]
"""

import json
import statistics
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
import torch
from harness import (
    SHOWN,
    Found,
    Program,
    Variant,
    check,
    held_out,
    kept,
    machine,
    machine_line,
    measures,
    names_in,
    numbers_in,
    puppet_training,
    training_options,
    write_json,
    write_puppets,
)

from jokr_rt.console import frame_progress, loss_progress
from jokr_rt.errors import TrainingError
from jokr_rt.training import stage, train
from jokr_rt.training.data import on_black
from jokr_rt.training.train import Training
from jokr_rt.training.views import TextureBatch, TextureLoader


def without(*losses: str) -> Variant:
    return Variant({"weights": dict.fromkeys(losses, 0.0)})


def _fix_map(training: Training) -> None:
    """At the identity."""
    learner = training.stage.learner
    for networks in (learner, training.stage.average):
        networks.transformer.theta.data.copy_(torch.eye(2, 3))
    for group in training.stage.optimizers["learner"].param_groups:
        if any(weight is learner.transformer.theta for weight in group["params"]):
            group["rate"] = 0.0


def _take_looks_from_the_frame_itself(training: Training) -> None:
    views = TextureLoader._views

    def own_looks(loader: TextureLoader, step: int, random: torch.Generator) -> TextureBatch:
        batch = views(loader, step, random)
        return replace(batch, looks=on_black(batch.targets))

    TextureLoader._views = own_looks  # type: ignore[method-assign]


def _keep_the_raw_weights(training: Training) -> None:
    stage.AVERAGE_DECAY = 0.0


def _show_everything_at_once(training: Training) -> None:
    train.BACKGROUNDS = (-1.0, 0.0)


FULL = "full"
VARIANTS = {
    FULL: Variant(),
    "no-domain-confusion": without("confusion", "matching"),
    "no-matching": without("matching"),
    "no-classifier": without("confusion"),
    "no-stn": Variant(change=_fix_map),
    "map-that-mirrors": Variant({"mirror": True}),
    "no-equivariance": without("equivariance"),
    "with-temporal": Variant({"weights": {"temporal": 2.0}}),
    "no-sparsity": without("sparsity"),
    "no-diversity": without("diversity"),
    "no-coverage": without("coverage"),
    "no-sparsity-diversity-coverage": without("sparsity", "diversity", "coverage"),
    "no-first-phase-on-black": Variant(change=_show_everything_at_once),
    "no-silhouettes": without("silhouette", "shape"),
    "no-shape": without("shape"),
    "no-mask": without("mask"),
    "no-cycle": without("cycle"),
    "no-cross-frame-appearance": Variant(change=_take_looks_from_the_frame_itself),
    "no-differences": without("differences"),
    "no-perceptual": without("perceptual"),
    "no-feature-matching": without("features"),
    "no-adversarial": without("adversarial", "features"),
    "no-averaged-weights": Variant(change=_keep_the_raw_weights),
}


def run(folder: Path, variant: str, **settings: Any) -> Found:
    """Train and measure: {"measures", "seconds"}; or {"error", "seconds"} where a loss did not stay finite."""
    start = time.perf_counter()
    training = puppet_training(folder, settings)
    VARIANTS[variant].change(training)
    try:
        with loss_progress() as report:
            checkpoint = training.run(report)
    except TrainingError as error:
        return {"error": str(error), "seconds": time.perf_counter() - start}
    with frame_progress() as progress:
        found = measures(checkpoint, held_out(settings), progress)
    return {"measures": found, "seconds": time.perf_counter() - start}


def summary(found: dict[str, dict[int, Found]]) -> list[dict[str, Any]]:
    """For each variant means over the seeds, how far the seeds lie apart, and the difference of the means to `full`."""
    rows: list[dict[str, Any]] = []
    for name, runs in found.items():
        row: dict[str, Any] = {"variant": name, "runs": {str(seed): run for seed, run in runs.items()}}
        rows.append(row)
        failures = [run["error"] for run in runs.values() if "error" in run]
        if failures:
            row["error"] = failures[0]
            continue
        values = {name: [run["measures"][name] for run in runs.values()] for name in SHOWN}
        row["measures"] = {name: statistics.fmean(each) for name, each in values.items()}
        row["range"] = {name: max(each) - min(each) for name, each in values.items()}
        if "measures" in rows[0]:
            row["difference"] = {name: row["measures"][name] - rows[0]["measures"][name] for name in SHOWN}
    return rows


def markdown(rows: list[dict[str, Any]], seeds: list[int]) -> str:
    lines = [["variant", *(heading for heading, _ in SHOWN.values())], ["---", *["---:"] * len(SHOWN)]]
    for row in rows:
        lines.append([row["variant"], *_cells(row)])
        if row["variant"] == FULL and len(seeds) > 1 and "range" in row:
            ranges = (f"{row['range'][name]:.{decimals}f}" for name, (_, decimals) in SHOWN.items())
            lines.append([f"{FULL}, range over {len(seeds)} seeds", *ranges])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _cells(row: dict[str, Any]) -> list[str]:
    if "error" in row:
        return [f"failed: {row['error']}", *[""] * (len(SHOWN) - 1)]
    cells = [f"{row['measures'][name]:.{decimals}f}" for name, (_, decimals) in SHOWN.items()]
    if row["variant"] == FULL or "difference" not in row:
        return cells
    differences = (f"{row['difference'][name]:+.{decimals}f}" for name, (_, decimals) in SHOWN.items())
    return [f"{cell} ({difference})" for cell, difference in zip(cells, differences, strict=True)]


@click.command(cls=Program, help=__doc__)
@click.argument("out", type=click.Path(path_type=Path, file_okay=False))
@click.option("--only", default="", metavar="NAME,...", help=f"Instead of all; `{FULL}` always. {', '.join(VARIANTS)}.")
@click.option("--seeds", default="0", show_default=True, metavar="N,...", help="One run of each variant for each.")
@training_options(
    frames=96, walk=192, steps=400, size=64, extractor_size=64, width=0.25, keypoints=20, batch=6, lr=8e-4
)
@click.option("--json", "as_json", is_flag=True, help="One JSON object on stdout instead of the table.")
def main(out: Path, only: str, seeds: str, as_json: bool, **settings: Any) -> None:
    chosen = dict.fromkeys([FULL, *names_in(only, list(VARIANTS), "--only")])
    numbers = numbers_in(seeds, int, "--seeds") or [0]
    check(settings)
    write_puppets(out, settings)
    found: dict[str, dict[int, Found]] = {name: {} for name in chosen}
    for name, runs in found.items():
        for seed in numbers:
            own = settings | VARIANTS[name].settings | {"variant": name, "seed": seed}
            runs[seed] = kept(out / f"{name}-{seed}", run, own)
    rows = summary(found)
    seconds = sum(run["seconds"] for runs in found.values() for run in runs.values())
    result = {"machine": machine(), "seconds": seconds, "settings": settings, "variants": rows}
    write_json(out / "ablations.json", result)
    if as_json:
        click.echo(json.dumps(result, allow_nan=False))
        return
    said = ", ".join(f"{name.replace('_', ' ')} {value:g}" for name, value in sorted(settings.items()))
    click.echo(f"{markdown(rows, numbers)}\n\n{said}, seeds {seeds}\n{machine_line(seconds)}")


if __name__ == "__main__":
    main()
