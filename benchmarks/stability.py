"""Do runs of training end usable? Pairs of creatures, several seeds each, a small model, through `jokr train`.

Pairs: the puppets PUPPETS, and the two folders of --clips, each with frames/ and masks/. Every fifth frame is held out.
Which way the creatures face is left to training to find. A run is usable where

- training did not stop,
- its keypoints do not lie on one spot,
- on held-out frames, worse creature: the silhouette drawn from its own keypoints overlaps the true one by IOU, and its
  colours are nearer to the truth than those of the mean frame (PSNR on the creature),
- for puppets, whose true map between the two is known: it mirrors where it should, and its rotation, scale and shift
  are off by MAP at most, which is twice the bars of `jokr evaluate`.

Each run is a process of its own and becomes a line of OUT/runs.jsonl as soon as it is measured. Called again, the
runs that are there with these settings, this code and this machine are not made again.

    OMP_NUM_THREADS=1 python benchmarks/stability.py OUT --clips A B [--only PAIR SEED]
"""

import json
import resource
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np
from harness import Found, Program, Settings, circumstances, machine_line, training_options

from jokr_rt.bundle import DIRECTIONS
from jokr_rt.errors import JokrError, UsageError
from jokr_rt.evaluation import metrics
from jokr_rt.evaluation.data import MIN_FRAMES, EvaluationData, clip_data
from jokr_rt.evaluation.evaluate import SMALL, evaluate
from jokr_rt.evaluation.puppets import FAMILIES, TRAINING, true_theta, write_clip
from jokr_rt.names import clip_names
from jokr_rt.training.checkpoint import Checkpoint, load_checkpoint
from jokr_rt.training.engine import TorchEngine
from jokr_rt.training.guard import ONE_SPOT
from jokr_rt.training.train import CHECKPOINT

PUPPETS = ("quadruped", "walker-mirrored")
SEEDS = (0, 1, 2)
HOLDOUT = 5
IOU = 0.8
MAP = {"rotation": 10.0, "scale": 20.0, "shift": 10.0}
"""Degrees, % of the true scale, % of the frame's width."""
SHOWN = {"iou": 3, "legs_iou": 3, "psnr_db": 1, "mean_frame_db": 1, "spread": 2, "rotation": 1, "scale": 1, "shift": 1}
"""Measures of the table and their decimals."""


@dataclass(frozen=True)
class Pair:
    """Two folders with frames/ and masks/. family: of puppets, or "" for clips whose truth nobody knows."""

    name: str
    folders: tuple[Path, Path]
    family: str = ""


@click.command(cls=Program, help=__doc__)
@click.argument("out", type=click.Path(path_type=Path))
@click.option("--clips", nargs=2, type=click.Path(path_type=Path), help="Two folders: a pair of real creatures.")
@click.option("--only", nargs=2, type=(str, int), metavar="PAIR SEED", help="This run alone.")
@click.option("--precision", default="fp32", show_default=True)
@training_options(
    size=64, extractor_size=64, width=0.25, keypoints=14, batch=6, steps=1000, lr=5e-4, walk=TRAINING.frames
)
def main(out: Path, clips: tuple[Path, Path] | None, only: tuple[str, int] | None, **settings: Any) -> None:
    pairs = _pairs(out, clips, settings)
    runs = [(name, seed) for name in pairs for seed in SEEDS]
    if only is not None:
        if only[0] not in pairs:
            raise UsageError(f"--only {only[0]}: there is no such pair; choose from {', '.join(pairs)}")
        runs = [only]
    if settings["size"] > SMALL:
        raise UsageError(f"--size {settings['size']}: give at most {SMALL}, the size that PSNR is measured at")
    if settings["walk"] < MIN_FRAMES:
        raise UsageError(f"--walk {settings['walk']}: give at least {MIN_FRAMES} frames")
    out.mkdir(parents=True, exist_ok=True)
    key = circumstances(settings)
    for name, seed in runs:
        if _recall(out, name, seed, key) is None:
            click.echo(f"{name} {seed}", err=True)
            line = {"pair": name, "seed": seed} | run(out, pairs[name], seed, settings) | key
            with (out / "runs.jsonl").open("a", encoding="utf-8") as file:
                file.write(json.dumps(line, allow_nan=False) + "\n")
    lines = [line for name, seed in runs if (line := _recall(out, name, seed, key)) is not None]
    click.echo(table(lines))
    words = ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in sorted(settings.items()))
    click.echo(f"{sum(not line['faults'] for line in lines)} of {len(lines)} usable; {words}")
    click.echo(machine_line(sum(line["cpu_seconds"] for line in lines)))


def run(out: Path, pair: Pair, seed: int, settings: Settings) -> Found:
    """Train and measure: {"cpu_seconds" of training, "measures", "faults" in words, none where it is usable}."""
    if pair.family:
        _write_puppets(pair, settings)
    folder = out / f"{pair.name}-{seed}"
    before = _cpu_seconds()
    stopped = _train(pair, folder, seed, settings)
    seconds = _cpu_seconds() - before
    measures = {} if stopped else measure(load_checkpoint(folder / CHECKPOINT), pair)
    return {"cpu_seconds": seconds, "measures": measures, "faults": [stopped] if stopped else faults(measures)}


def measure(checkpoint: Checkpoint, pair: Pair) -> dict[str, float]:
    """Each the worse of both creatures or directions. rotation, scale, shift: see `MAP`; mirrored: 1 where the map
    mirrors if and only if it should. These four for puppets alone."""
    (a, b), names = pair.folders, (checkpoint.domains["a"], checkpoint.domains["b"])
    data = clip_data(
        checkpoint.model.config.size, names, (a / "frames", b / "frames"), (a / "masks", b / "masks"), 10**6, HOLDOUT
    )
    engine = TorchEngine(checkpoint)
    found = list(evaluate(engine, engine, data, model_name="").directions.values())
    own = [each.own for each in found if each.own is not None]
    tracks = [each.performance.keypoints for each in found]
    away = [np.linalg.norm(track - track.mean(axis=1, keepdims=True), axis=-1).mean() for track in tracks]
    measures = {
        "iou": min(each.iou for each in own),
        "legs_iou": min(each.legs_iou for each in own),
        **_nearest_to_the_mean_frame(data, {each.target: each.own.psnr_db for each in found if each.own}),
        "spread": float(min(away)),
    }
    return measures | (_map_errors(checkpoint, pair.family) if pair.family else {})


def faults(measures: dict[str, float]) -> list[str]:
    """Why a run is not usable, in words; none where it is."""
    checks = {
        f"silhouettes overlap by less than {IOU}": measures["iou"] >= IOU,
        "no better than the mean frame": measures["psnr_db"] > measures["mean_frame_db"],
        "keypoints on one spot": measures["spread"] > ONE_SPOT,
        "the map mirrors and should not, or the reverse": measures.get("mirrored", 1) == 1,
    }
    checks |= {f"{name} off by more than {most:g}": measures.get(name, 0) <= most for name, most in MAP.items()}
    return [words for words, good in checks.items() if not good]


def table(lines: list[dict[str, Any]]) -> str:
    """In Markdown."""
    heads = ["pair", "seed", *(name.replace("_", " ") for name in SHOWN), "CPU minutes", "usable"]
    rows = [heads, ["---"] * len(heads)]
    for line in lines:
        found = line["measures"]
        cells = [f"{found[name]:.{places}f}" if name in found else "" for name, places in SHOWN.items()]
        verdict = "; ".join(line["faults"]) or "yes"
        rows.append([line["pair"], str(line["seed"]), *cells, f"{line['cpu_seconds'] / 60:.1f}", verdict])
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _pairs(out: Path, clips: tuple[Path, Path] | None, settings: Settings) -> dict[str, Pair]:
    pairs = {}
    if clips is not None:
        name = "-".join(clip_names(*(clip / "frames" for clip in clips)))
        pairs[name] = Pair(name, clips)
    for family in PUPPETS:
        first, second = (out / f"{family}-{settings['size']}x{settings['walk']}" / name for name in FAMILIES[family])
        pairs[family] = Pair(family, (first, second), family)
    return pairs


def _write_puppets(pair: Pair, settings: Settings) -> None:
    for folder, puppet in zip(pair.folders, FAMILIES[pair.family].values(), strict=True):
        write_clip(folder, puppet, puppet.program(settings["walk"], TRAINING.seed, TRAINING.gait), settings["size"])


def _train(pair: Pair, folder: Path, seed: int, settings: Settings) -> str:
    """What training said when it stopped, or "" where it did not. Raises JokrError where it could not begin."""
    words = [sys.executable, "-c", "from jokr_rt.cli import main; main()", "train", "--overwrite", "-o", folder]
    for side, clip in zip("ab", pair.folders, strict=True):
        words += [f"--{side}", clip / "frames", f"--{side}-masks", clip / "masks"]
    given = {name: value for name, value in settings.items() if name != "walk"} | {"seed": seed, "holdout": HOLDOUT}
    for name, value in given.items():
        words += [f"--{name.replace('_', '-')}", value]
    done = subprocess.run(list(map(str, words)), capture_output=True, text=True)
    told = (done.stderr.strip().splitlines() or ["no word"])[-1].removeprefix("jokr: error: ")
    if done.returncode in (0, 1) and (done.returncode == 0 or told.startswith("step ")):
        return told if done.returncode else ""
    raise JokrError(f"{pair.name} {seed}: jokr train ended with {done.returncode}: {told}")


def _cpu_seconds() -> float:
    """Of all processes that were started here and have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _nearest_to_the_mean_frame(data: EvaluationData, psnr_db: dict[str, float]) -> dict[str, float]:
    """Of the creature that gains least over it: PSNR on the creature, of the model and of its training's mean frame."""
    found = []
    for domain in data.domains.values():
        assert domain.test.held_out is not None
        true = domain.test.pick(domain.test.held_out)
        mean = np.rint(domain.training.on_black.mean(axis=0)).astype(np.uint8)
        same = np.broadcast_to(mean, true.on_black.shape)
        found.append((psnr_db[domain.name], metrics.psnr_db(same, true.on_black, true.silhouettes)))
    ours, theirs = min(found, key=lambda pair: pair[0] - pair[1])
    return {"psnr_db": ours, "mean_frame_db": theirs}


def _map_errors(checkpoint: Checkpoint, family: str) -> dict[str, float]:
    creatures, errors, right = dict(zip("ab", FAMILIES[family].values(), strict=True)), [], True
    for direction, (source, target) in DIRECTIONS.items():
        true = true_theta(creatures[source], creatures[target])
        theta = checkpoint.model.stn(direction).theta.detach().double().numpy()
        errors.append(metrics.affine_errors(theta, true))
        right &= bool(np.linalg.det(theta[:, :2]) * np.linalg.det(true[:, :2]) > 0)
    return dict(zip(MAP, map(max, zip(*errors, strict=True)), strict=True)) | {"mirrored": float(right)}


def _recall(out: Path, pair: str, seed: int, key: dict[str, Any]) -> dict[str, Any] | None:
    """The line of a run that was made under these circumstances."""
    path, wanted = out / "runs.jsonl", {"pair": pair, "seed": seed} | key
    for text in path.read_text(encoding="utf-8").splitlines() if path.exists() else []:
        try:
            line = json.loads(text)
        except ValueError:
            raise UsageError(f"{path}: holds a line that is no run; delete the line and run this again") from None
        if {name: line.get(name) for name in wanted} == wanted:
            return dict(line)
    return None


if __name__ == "__main__":
    main()
