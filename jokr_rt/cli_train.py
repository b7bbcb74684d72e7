"""The command line of `jokr train`. PyTorch is imported when it is called, not before."""

import json
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from jokr_rt.cli_options import TypedCommand, typed_command
from jokr_rt.config import AUTO, PRESETS, ModelConfig
from jokr_rt.errors import UsageError, missing_extra

_PATH = click.Path(path_type=Path)
_MODEL = ["keypoints", "size", "extractor_size", "width"]


def _read_config(context: click.Context, parameter: click.Parameter, path: Path | None) -> dict[str, Any]:
    """What the file says takes the place of the options' defaults; its weights are merged with --weight later."""
    if path is None:
        return {}
    try:
        from jokr_rt.training.recipe import read_recipe
    except ImportError as error:
        raise missing_extra("jokr train", error) from error
    recipe = read_recipe(path)
    context.default_map = {key: value for key, value in recipe.items() if key != "weights"}
    return recipe


@click.command(cls=TypedCommand)
@click.option("--a", required=True, type=_PATH, help="Video A: a file or a folder of frames.")
@click.option("--a-masks", type=_PATH, help="Its masks, white on the object: video, folder, or alpha.")
@click.option("--b", required=True, type=_PATH, help="Video B.")
@click.option("--b-masks", type=_PATH, help="Its masks.")
@click.option("-o", "--output", required=True, type=_PATH, help="Folder for checkpoints, sheets and metrics.")
@click.option(
    "--config",
    type=_PATH,
    is_eager=True,
    callback=_read_config,
    help="Recipe in TOML: a, a_masks, b, b_masks (beside the file) and all from --preset to --save-every, such as "
    "extractor_size = 128; weights in a table [weights]. What is typed here wins.",
)
@click.option(
    "--preset",
    type=click.Choice([AUTO, *PRESETS]),
    default=AUTO,
    show_default=True,
    help="Size of the model; auto: the largest that this machine trains well in the time given.",
)
@click.option("--keypoints", type=int, help="Joint keypoints.  [default: the preset's]")
@click.option("--size", type=int, help="Side of the frames drawn, pixels.  [default: the preset's]")
@click.option("--extractor-size", type=int, help="Side of the frames looked at, pixels.  [default: the preset's]")
@click.option("--width", type=float, help="Multiplier of all channels.  [default: the preset's]")
@click.option(
    "--minutes", type=float, default=60.0, show_default=True, help="About how long to train, if --steps is not given."
)
@click.option("--steps", type=int, help="Optimizer steps.  [default: as many as --minutes allows]")
@click.option(
    "--geometry",
    type=float,
    default=0.4,
    show_default=True,
    help="Share of the steps, the first, that learn keypoints and shapes; the others learn pictures.",
)
@click.option(
    "--coarse",
    type=float,
    help="Share of the steps for pictures, the first, at half the size.  [default: 0.5 where the size allows it]",
)
@click.option(
    "--batch", type=int, default=6, show_default=True, help="Frames of each video in a step, in all processes."
)
@click.option(
    "--lr", type=float, default=5e-4, show_default=True, help="Learning rate; falls to 0 over each stage's second half."
)
@click.option(
    "--mirror/--no-mirror",
    default=None,
    help="Whether the creatures face opposite ways.  [default: found by what the pictures show]",
)
@click.option("--weight", "weights", multiple=True, metavar="LOSS=W", help="Weight of a loss, such as diversity=4.")
@click.option("--seed", type=int, default=0, show_default=True)
@click.option(
    "--holdout",
    type=int,
    default=0,
    metavar="N",
    help="Keep every Nth frame from training, for jokr evaluate --holdout N.",
)
@click.option("--sheet-every", type=int, default=500, show_default=True, help="Steps between contact sheets.")
@click.option("--save-every", type=int, default=500, show_default=True, help="Steps between checkpoints.")
@click.option("--device", type=click.Choice(["auto", "cpu", "cuda"]), default="auto", show_default=True)
@click.option(
    "--precision",
    type=click.Choice(["fp32", "bf16"]),
    help="Of the large networks.  [default: bf16 where it is measured to be faster]",
)
@click.option(
    "--compile", "compiled", is_flag=True, help="torch.compile the large networks: a slow start, then faster."
)
@click.option("--resume", is_flag=True, help="Go on with the run in the output folder, given the same options.")
@click.option("--overwrite", is_flag=True, help="Start anew in a folder that holds a checkpoint.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object for each step on stdout; words go to stderr.")
def train(
    output: Path,
    config: dict[str, Any],
    weights: tuple[str, ...],
    minutes: float,
    device: str,
    compiled: bool,
    resume: bool,
    overwrite: bool,
    as_json: bool,
    **options: Any,
) -> None:
    """Learn from two videos, without labels, to draw either creature in the motion of the other.

    The output folder gets checkpoint.safetensors, contact sheets, metrics.jsonl with the losses of every step (and the
    same for TensorBoard, where the package tensorboard is installed), and config.toml, which --config takes to make the
    same run again. Under torchrun several processes train together, as one would with the same --batch:
    torchrun --nproc-per-node 4 --no-python jokr train ...
    """
    try:
        from jokr_rt.training import distributed
        from jokr_rt.training.command import train_clips
    except ImportError as error:
        raise missing_extra("jokr train", error) from error
    from jokr_rt.console import loss_progress

    with distributed.session():
        _let_typed_options_win(options)
        clips = [options.pop(name) for name in ("a", "a_masks", "b", "b_masks")]
        wanted = _wanted(options, config.get("weights", {}), weights)
        with loss_progress(lines=not as_json) if distributed.is_leader() else nullcontext() as show:

            def report(step: int, steps: int, losses: dict[str, float], share: float) -> None:
                if show is not None:
                    show(step, steps, losses, share)
                if as_json:
                    click.echo(json.dumps({"step": step, "steps": steps, "losses": losses}))

            with _told_how_to_go_on():
                train_clips(
                    (clips[0], clips[2]),
                    (clips[1], clips[3]),
                    output,
                    wanted,
                    minutes=minutes,
                    device=device,
                    compiled=compiled,
                    resume=resume,
                    overwrite=overwrite,
                    say=lambda words: click.echo(words, err=True),
                    report=report,
                )


@contextmanager
def _told_how_to_go_on() -> Iterator[None]:
    """Ctrl-C's message says how, if anything was saved; torchrun keeps what was typed before `jokr` to itself."""
    from jokr_rt.training.distributed import world_size

    try:
        yield
    except KeyboardInterrupt as interrupt:
        if not interrupt.args:
            raise
        before = "torchrun ... " if world_size() > 1 else ""
        command = typed_command(without=("--overwrite", "--resume"), more=("--resume",))
        raise KeyboardInterrupt(*interrupt.args, f"go on with: {before}{command}") from None


def _wanted(options: dict[str, Any], weights: dict[str, float], typed_weights: tuple[str, ...]) -> dict[str, Any]:
    """Fields of TrainOptions, None where the choice is left to the machine."""
    from jokr_rt.training.losses import LossWeights

    options["config"] = _config(options)
    try:
        options["weights"] = LossWeights(**weights | dict(_weight(text) for text in typed_weights))
    except TypeError:
        known = ", ".join(LossWeights.__dataclass_fields__)
        raise UsageError(f"--weight {' '.join(typed_weights)}: the losses are {known}") from None
    return options


def _let_typed_options_win(options: dict[str, Any]) -> None:
    """What is typed also overrules what the file says of it in other words: its steps, where --minutes is typed."""
    source = click.get_current_context().get_parameter_source
    for typed, others in (("a", ["a_masks"]), ("b", ["b_masks"]), ("preset", _MODEL), ("minutes", ["steps"])):
        if source(typed) is ParameterSource.COMMANDLINE:
            options.update((name, None) for name in others if source(name) is ParameterSource.DEFAULT_MAP)


def _config(options: dict[str, Any]) -> ModelConfig | None:
    """Take what describes the model out of `options`: the preset, and what differs from it. None: to be chosen."""
    given = {name: options.pop(name) for name in _MODEL}
    changes: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
    name = options.pop("preset")
    if name == AUTO and not changes:
        return None
    preset = PRESETS["realtime" if name == AUTO else name]
    if "size" in changes and "extractor_size" not in changes:
        # A smaller picture keeps the preset's ratio, so that `--size 128` alone is a sensible model.
        changes["extractor_size"] = max(64, changes["size"] * preset.extractor_size // preset.size)
    return replace(preset, **changes)


def _weight(text: str) -> tuple[str, float]:
    name, _, value = text.partition("=")
    try:
        return name, float(value)
    except ValueError:
        raise UsageError(f"--weight {text}: give a loss and a number, such as diversity=4") from None
