"""How fast is a step of training, and how good is a model after minutes of it? On the puppets.

Speed: runs are each a process of its own; variants take turns (A B C A B C ...), so that a noisy machine disturbs all
alike. `this-code` is the baseline. Of a run the second half of each stage counts, in which all losses are on: the
median step of the geometry and that of the texture, and of both, in the run's proportions, the mean.

Quality: for each of --minutes a training of as many steps as fit, by the speed of `this-code` just measured, for the
learning rate falls over each stage. The bars' measures along the way, on a shortened held-out walk, are drawn to
OUT/training.png; what is drawn means nothing before the second stage has begun. Measuring does not count as training
time. Stopped, it goes on at the last point when called again.

    OMP_NUM_THREADS=2 python benchmarks/training.py OUT [--minutes 10,40] [--only bf16] [--json]
"""

import json
import statistics
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import click
import torch
from harness import (
    SHOWN,
    Found,
    Program,
    Settings,
    Variant,
    check,
    circumstances,
    held_out,
    kept,
    machine,
    machine_line,
    measures,
    names_in,
    numbers_in,
    puppet_training,
    recall,
    training_options,
    write_json,
    write_puppets,
)

from jokr_rt.console import loss_progress
from jokr_rt.errors import UsageError
from jokr_rt.evaluation.bars import PUPPET_BARS
from jokr_rt.training.options import Pace
from jokr_rt.training.train import Training
from jokr_rt.training.views import GeometryLoader, TextureLoader

POINTS = 8  # of a curve


def _make_batches_in_line(training: Training) -> None:
    for loader in (GeometryLoader, TextureLoader):
        loader.batch = loader.make  # type: ignore[attr-defined]


BASELINE = "this-code"
VARIANTS = {
    BASELINE: Variant(),
    "batches-in-line": Variant(change=_make_batches_in_line),
    "bf16": Variant({"precision": "bf16"}),
    "1-thread": Variant(change=lambda training: torch.set_num_threads(1)),
    "2-threads": Variant(change=lambda training: torch.set_num_threads(2)),
}


def time_steps(folder: Path, variant: str, **settings: Any) -> Found:
    """Train, and time the steps: {"seconds": of the mean step, "geometry", "texture": of the median one, "threads"}."""
    training = puppet_training(folder, settings)
    VARIANTS[variant].change(training)
    times = [time.perf_counter()]
    with loss_progress() as show:

        def report(step: int, steps: int, losses: dict[str, float], share: float) -> None:
            show(step, steps, losses, share)
            times.append(time.perf_counter())

        training.run(report)
    each, first = [after - before for before, after in pairwise(times)], training.options.geometry_steps
    geometry, texture = (statistics.median(part[len(part) // 2 :]) for part in (each[:first], each[first:]))
    mean = Pace(geometry, texture, texture).seconds(training.options) / training.steps
    return {"seconds": mean, "geometry": geometry, "texture": texture, "threads": torch.get_num_threads()}


def learn(folder: Path, **settings: Any) -> Found:
    """Train and measure along the way: {"points": [{"step", "minutes", "measures"}]}; the model stays in `folder`.

    One that was stopped goes on at its last point.
    """
    data = held_out(settings)
    training, points = _begun(folder, settings)
    marks = {max(1, round(training.steps * (index + 1) / POINTS)) for index in range(POINTS)}
    start = time.perf_counter() - (60 * points[-1]["minutes"] if points else 0)
    with loss_progress() as show:

        def report(step: int, steps: int, losses: dict[str, float], share: float) -> None:
            nonlocal start
            show(step, steps, losses, share)
            if step in marks:
                now = time.perf_counter()
                found = measures(training.checkpoint(), data)
                points.append({"step": step, "minutes": (now - start) / 60, "measures": found})
                training.save()
                write_json(folder / "points.json", circumstances(settings) | {"points": points})
                start += time.perf_counter() - now

        training.run(report)
    return {"points": points}


def _begun(folder: Path, settings: Settings) -> tuple[Training, list[dict[str, Any]]]:
    """A run in `folder`, where it was stopped if that was in these circumstances, and its points so far."""
    training = puppet_training(folder, settings)
    before = recall(folder / "points.json", circumstances(settings))
    if before is None:
        return training, []
    training.resume()
    if training.step != before["points"][-1]["step"]:  # stopped between the two files: begin anew
        return puppet_training(folder, settings), []
    return training, before["points"]


def speeds(runs: dict[str, list[Found]]) -> list[dict[str, Any]]:
    """Per variant medians over the runs; `ratio` is its steps per second over the baseline's."""
    rows: list[dict[str, Any]] = []
    for name, each in runs.items():
        rates = [1 / run["seconds"] for run in each]
        rate = statistics.median(rates)
        rows.append({"variant": name, "threads": each[0]["threads"], "steps_per_second": rate})
        rows[-1] |= {"range": [min(rates), max(rates)], "ratio": rate / rows[0]["steps_per_second"]}
        rows[-1] |= {stage: statistics.median(run[stage] for run in each) for stage in ("geometry", "texture")}
    return rows


def plot(path: Path, curves: list[dict[str, Any]]) -> None:
    """A panel for each measure, with its bar (dashed) and aim (dotted): a line for each run."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(16, 6), layout="constrained")
    for panel, (measure, _, _, bar, aim, _) in zip(
        figure.subplots(2, len(PUPPET_BARS) // 2).flat, PUPPET_BARS, strict=True
    ):
        for curve in curves:
            minutes, values = zip(*((at["minutes"], at["measures"][measure]) for at in curve["points"]), strict=True)
            panel.plot(minutes, values, marker=".", label=f"{curve['steps']} steps")
        if measure.startswith("joint"):  # the first minutes' are tens of times the last ones'
            panel.set_yscale("log")
        panel.axhline(bar, color="grey", linestyle="--")
        panel.axhline(aim, color="grey", linestyle=":")
        panel.set(title=SHOWN[measure][0], xlabel="minutes of training")
        panel.grid(alpha=0.25)
    panel.legend()
    figure.savefig(path)


def _curves(out: Path, minutes: list[float], settings: Settings, rate: float) -> list[dict[str, Any]]:
    curves = []
    for length in minutes:
        steps = max(2, round(length * 60 * rate))  # one of each stage
        curves.append({"steps": steps, **kept(out / f"curve-{length:g}", learn, settings | {"steps": steps})})
    return curves


def _print(result: dict[str, Any]) -> None:
    for row in result["speed"]:
        low, high = row["range"]
        speed = f"{row['steps_per_second']:6.2f} steps/s ({low:.2f}-{high:.2f}) x{row['ratio']:.2f}"
        steps = f"geometry {row['geometry']:.2f} s a step, texture {row['texture']:.2f} s"
        click.echo(f"{row['variant']:16} {speed}   {steps}   threads: {row['threads']}")
    for curve in result["curves"]:
        last = curve["points"][-1]
        values = (f"{heading} {last['measures'][name]:.{digits}f}" for name, (heading, digits) in SHOWN.items())
        click.echo(f"{last['minutes']:.1f} minutes, {last['step']} steps: {'; '.join(values)}")


@click.command(cls=Program, help=__doc__)
@click.argument("out", type=click.Path(path_type=Path, file_okay=False))
@click.option("--only", default="", metavar="NAME,...", help=f"Of {', '.join(VARIANTS)}; `{BASELINE}` always.")
@click.option("--repeats", default=5, show_default=True, type=click.IntRange(min=1), help="Timed runs of each variant.")
@click.option("--minutes", default="", metavar="M,...", help="Lengths of the trainings whose quality to measure.")
@training_options(steps=40, frames=48, walk=192, size=128, extractor_size=64, width=0.25, keypoints=20, batch=6)
@training_options(lr=8e-4, seed=0)
@click.option("--json", "as_json", is_flag=True, help="One JSON object on stdout.")
def main(out: Path, only: str, repeats: int, minutes: str, as_json: bool, **settings: Any) -> None:
    begun = time.perf_counter()
    chosen = names_in(only, list(VARIANTS), "--only")
    lengths = numbers_in(minutes, float, "--minutes")
    if 0 in lengths:
        raise UsageError(f"--minutes {minutes}: none may be 0")
    check(settings)
    write_puppets(out, settings)
    runs: dict[str, list[Found]] = {name: [] for name in dict.fromkeys([BASELINE, *chosen])}
    for turn in range(1, repeats + 1):
        for name, each in runs.items():
            own = settings | VARIANTS[name].settings | {"variant": name}
            each.append(kept(out / f"{name}-{turn}", time_steps, own))
    speed = speeds(runs)
    curves = _curves(out, lengths, settings, speed[0]["steps_per_second"])
    result = {"machine": machine(), "settings": settings, "speed": speed, "curves": curves}
    write_json(out / "training.json", result)
    if curves:
        plot(out / "training.png", curves)
    if as_json:
        click.echo(json.dumps(result, allow_nan=False))
        return
    _print(result)
    click.echo(machine_line(time.perf_counter() - begun))


if __name__ == "__main__":
    main()
