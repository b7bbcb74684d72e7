"""The command line of `jokr train`. PyTorch is imported when it is called, not before."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from jokr_rt.config import PRESETS, ModelConfig
from jokr_rt.errors import EngineMissingError, UsageError

_PATH = click.Path(path_type=Path)


@click.command()
@click.option("--a", "first", required=True, type=_PATH, help="Video A: a file or a folder of frames.")
@click.option("--a-masks", "first_masks", type=_PATH, help="Its masks, white on the object: video, folder, or alpha.")
@click.option("--b", "second", required=True, type=_PATH, help="Video B.")
@click.option("--b-masks", "second_masks", type=_PATH, help="Its masks.")
@click.option("-o", "--output", required=True, type=_PATH, help="Folder for checkpoints and contact sheets.")
@click.option(
    "--preset", type=click.Choice(list(PRESETS)), default="full", show_default=True, help="Size of the model."
)
@click.option("--keypoints", type=int, help="Joint keypoints.  [default: the preset's]")
@click.option("--size", type=int, help="Side of the frames drawn, pixels.  [default: the preset's]")
@click.option("--extractor-size", type=int, help="Side of the frames looked at, pixels.  [default: the preset's]")
@click.option("--width", type=float, help="Multiplier of all channels.  [default: the preset's]")
@click.option("--epochs", type=int, default=100, show_default=True, help="Times that the longer video is seen.")
@click.option("--steps", type=int, help="Optimizer steps, instead of epochs.")
@click.option("--batch", type=int, default=16, show_default=True, help="Frames of each video in a step.")
@click.option(
    "--lr", type=float, default=2e-4, show_default=True, help="Learning rate; falls to 0 over the second half."
)
@click.option("--weight", "weights", multiple=True, metavar="LOSS=W", help="Weight of a loss, such as diversity=4.")
@click.option("--seed", type=int, default=0, show_default=True)
@click.option("--sheet-every", type=int, default=250, show_default=True, help="Steps between contact sheets.")
@click.option("--save-every", type=int, default=250, show_default=True, help="Steps between checkpoints.")
@click.option("--device", type=click.Choice(["auto", "cpu", "cuda"]), default="auto", show_default=True)
@click.option("--resume", is_flag=True, help="Go on with the run in the output folder, given the same options.")
@click.option("--overwrite", is_flag=True, help="Start anew in a folder that holds a checkpoint.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object for each step on stdout; words go to stderr.")
def train(
    first: Path,
    first_masks: Path | None,
    second: Path,
    second_masks: Path | None,
    output: Path,
    weights: tuple[str, ...],
    device: str,
    resume: bool,
    overwrite: bool,
    as_json: bool,
    **options: Any,
) -> None:
    """Learn from two videos, without labels, to draw either creature in the motion of the other."""
    config = _config(options)
    try:
        from jokr_rt.training.command import train_clips
        from jokr_rt.training.losses import LossWeights
        from jokr_rt.training.train import TrainOptions
    except ImportError as error:
        raise missing_extra("jokr train", error) from error
    try:
        loss_weights = LossWeights(**dict(_weight(text) for text in weights))
    except TypeError:
        known = ", ".join(LossWeights.__dataclass_fields__)
        raise UsageError(f"--weight {' '.join(weights)}: the losses are {known}") from None
    from jokr_rt.console import loss_progress

    with loss_progress() as show:

        def report(step: int, steps: int, losses: dict[str, float]) -> None:
            show(step, steps, losses)
            if as_json:
                click.echo(json.dumps({"step": step, "steps": steps, "losses": losses}))

        train_clips(
            (first, second),
            (first_masks, second_masks),
            output,
            TrainOptions(config=config, weights=loss_weights, **options),
            device=device,
            resume=resume,
            overwrite=overwrite,
            say=lambda words: click.echo(words, err=True),
            report=report,
        )


def missing_extra(what: str, error: ImportError) -> EngineMissingError:
    """What to raise where PyTorch or another package of the extra `train` is not installed."""
    return EngineMissingError(f"{what} needs the extra train ({error}): pip install 'jokr-rt[train]'")


def _config(options: dict[str, Any]) -> ModelConfig:
    """Take what describes the model out of `options`: the preset, and what differs from it."""
    given = {name: options.pop(name) for name in ("keypoints", "size", "extractor_size", "width")}
    changes: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
    preset = PRESETS[options.pop("preset")]
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
