"""What the benchmarks of training share: puppets to train on, a process for each run, results that are kept."""

import hashlib
import json
import os
import platform
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field, fields, replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any, TypeVar

import click
import torch

import jokr_rt
from jokr_rt.bench.machine import processor
from jokr_rt.config import ModelConfig
from jokr_rt.errors import JokrError, UsageError
from jokr_rt.evaluation.bars import PUPPET_BARS
from jokr_rt.evaluation.data import MIN_FRAMES, EvaluationData, puppet_data
from jokr_rt.evaluation.puppets import PROBE, PUPPETS, TEST, TRAINING, Walk, write_clip
from jokr_rt.training.checkpoint import Checkpoint
from jokr_rt.training.data import Clip, load_clip
from jokr_rt.training.engine import TorchEngine
from jokr_rt.training.losses import LossWeights
from jokr_rt.training.options import TrainOptions
from jokr_rt.training.train import Training

Settings = dict[str, Any]
Found = dict[str, Any]
Command = TypeVar("Command", bound=Callable[..., Any])
SHOWN = dict(
    zip(
        [measure for measure, *_ in PUPPET_BARS],
        [
            ("PSNR gain, dB", 2), ("SSIM", 3), ("joint error, relative", 2), ("joint ratio", 2),
            ("domain accuracy, %", 1), ("rotation error, degrees", 1), ("scale error, %", 1), ("shift error, %", 1),
            ("appearance IoU", 3), ("flicker", 2),
        ],
        strict=True,
    )
)  # fmt: skip
"""Heading and decimals of each bar's measure."""


class Program(click.Command):
    """What is wrong is one line on stderr."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except (JokrError, OSError) as error:
            click.echo(f"error: {' '.join(str(error).splitlines())}", err=True)
            ctx.exit(getattr(error, "exit_code", JokrError.exit_code))
        except BrokenProcessPool:
            click.echo("error: the process of a run died, perhaps for want of memory; run this again", err=True)
            ctx.exit(JokrError.exit_code)


def training_options(**defaults: float) -> Callable[[Command], Command]:
    """Options of these names and defaults, which mean what those of `jokr train` mean."""

    def add(command: Command) -> Command:
        for name, default in reversed(defaults.items()):
            option = click.option(f"--{name.replace('_', '-')}", default=default, show_default=True)
            command = option(command)
        return command

    return add


def names_in(text: str, known: list[str], option: str) -> list[str]:
    """The names of a list with commas, in the order of `known`; all of them where `text` is empty."""
    names = text.split(",") if text else known
    for name in names:
        if name not in known:
            raise UsageError(f"{option} {name}: there is no such; choose from {', '.join(known)}")
    return [name for name in known if name in names]


def numbers_in(text: str, kind: type, option: str) -> list[Any]:
    """The numbers of a list with commas, none below 0, each once."""
    try:
        numbers = [kind(number) for number in text.split(",")] if text else []
    except ValueError:
        raise UsageError(f"{option} {text}: give numbers with commas between") from None
    if any(not 0 <= number < 2**63 for number in numbers):
        raise UsageError(f"{option} {text}: each must be 0 or more, and finite")
    return list(dict.fromkeys(numbers))


def kept(folder: Path, work: Callable[..., Found], settings: Settings) -> Found:
    """What `work(folder, **settings)` finds in a process of its own, kept in `folder`.

    It is not done again where it was done with these settings and this code on this machine: training is repeatable.
    """

    def find() -> Found:
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:  # not forked: threads may be running
            found = pool.submit(work, folder, **settings).result()
        if code_digest() != CODE:
            raise JokrError(
                f"{folder.name}: the code of jokr_rt changed since this began; run this again, or on a copy"
            )
        return found

    return remembered(folder, circumstances(settings), find)


def circumstances(settings: Settings) -> dict[str, Any]:
    """What must be the same for a training to come out the same."""
    return {"settings": settings, "code": CODE, "machine": machine()}


def remembered(folder: Path, key: dict[str, Any], find: Callable[[], Found]) -> Found:
    """What `find` finds; it is kept in `folder`, and not looked for again with the same key."""
    path = folder / "result.json"
    result = recall(path, key)
    if result is not None:
        click.echo(f"{folder.name}: kept from before", err=True)
        return dict(result["found"])
    click.echo(folder.name, err=True)
    folder.mkdir(parents=True, exist_ok=True)
    found = find()
    write_json(path, key | {"found": found})
    return found


def recall(path: Path, key: dict[str, Any]) -> dict[str, Any] | None:
    """What `write_json` wrote, if there is such a file and it holds all of `key`. Raises UsageError."""
    if not path.exists():
        return None
    try:
        values = dict(json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, TypeError):
        raise UsageError(f"{path}: is no result of a run; delete it and run this again") from None
    return values if {name: values.get(name) for name in key} == key else None


def write_json(path: Path, values: dict[str, Any]) -> None:
    """Atomically."""
    partial = path.with_name(path.name + ".part")
    partial.write_text(json.dumps(values, indent=1, allow_nan=False) + "\n", encoding="utf-8")
    os.replace(partial, path)


def code_digest() -> str:
    """Of the code that trains and measures."""
    root = Path(jokr_rt.__file__).parent
    digest = hashlib.sha256()
    for file in sorted([*root.glob("training/*.py"), *root.glob("evaluation/*.py")]):
        digest.update(file.read_bytes())
    return digest.hexdigest()[:16]


CODE = code_digest()  # as it was imported


def machine() -> dict[str, Any]:
    return {
        "processor": processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "torch": torch.__version__,
    }


def machine_line(seconds: float) -> str:
    """The machine in words, and how long it took."""
    about = machine()
    cores = f"{about['processor']}, {about['cores']} cores, threads used: {about['threads']}"
    return f"{cores}; Python {about['python']}, torch {about['torch']}; {seconds:.0f} s"


def write_puppets(out: Path, settings: Settings) -> None:
    """The clips that the puppets' models are trained on: `walk` frames of `size` pixels, below `out`."""
    for name, puppet in PUPPETS.items():
        write_clip(_puppets(out, settings) / name, puppet, _walk(settings).motion(), settings["size"])


def load_puppets(out: Path, settings: Settings) -> tuple[Clip, Clip]:
    """What `write_puppets` wrote."""
    folders = (_puppets(out, settings) / name for name in PUPPETS)
    first, second = (load_clip(folder / "frames", folder / "masks", settings["size"]) for folder in folders)
    return first, second


def _puppets(out: Path, settings: Settings) -> Path:
    return out / f"puppets-{settings['size']}x{settings['walk']}"


def _walk(settings: Settings) -> Walk:
    return replace(TRAINING, frames=settings["walk"])


def options(settings: Settings) -> TrainOptions:
    """What settings mean that are named as the options of `jokr train`; beside them perhaps `weights`, of losses.

    Sheet and checkpoint are made after the last step. Raises UsageError.
    """
    steps = settings["steps"]
    return TrainOptions(
        config=ModelConfig(**{each.name: settings[each.name] for each in fields(ModelConfig)}),
        weights=LossWeights(**settings.get("weights", {})),
        steps=steps,
        sheet_every=steps,
        save_every=steps,
        **{name: settings[name] for name in ("batch", "lr", "seed", "precision", "mirror") if name in settings},
    )


def check(settings: Settings) -> None:
    """Raises UsageError for what a run would refuse only after the clips are drawn."""
    options(settings)
    for name in ("walk", "frames"):
        if settings[name] < MIN_FRAMES:
            raise UsageError(f"--{name} {settings[name]}: give at least {MIN_FRAMES} frames")


@dataclass(frozen=True)
class Variant:
    """settings: those that differ. change: what else is done to a training before its first step.

    It may set constants of modules, which stay set: a run has a process of its own.
    """

    settings: Settings = field(default_factory=dict)
    change: Callable[[Training], object] = lambda training: None


def puppet_training(folder: Path, settings: Settings) -> Training:
    """A run in `folder`, on the CPU, with the puppets beside the folder."""
    return Training(load_puppets(folder.parent, settings), options(settings), folder, torch.device("cpu"))


def held_out(settings: Settings) -> EvaluationData:
    """What a model of the puppets is measured on: walks of `frames` that training never saw."""
    test, probe = (replace(walk, frames=settings["frames"]) for walk in (TEST, PROBE))
    return puppet_data(settings["size"], training=_walk(settings), test=test, probe=probe)


def measures(
    checkpoint: Checkpoint, data: EvaluationData, progress: Callable[[int, int | None], None] = lambda done, total: None
) -> dict[str, float]:
    """The bars' measures of a model, each the worse of both directions."""
    from jokr_rt.evaluation.evaluate import evaluate  # slow to import, for runs that are timed only

    engine = TorchEngine(checkpoint)
    found = evaluate(engine, engine, data, model_name="", progress=progress)
    return {bar.measure: bar.value for bar in found.bars}
