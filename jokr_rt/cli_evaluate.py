"""The command line of `jokr evaluate`. What measures is imported when it is called, not before."""

import json
import shlex
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from jokr_rt.cli_model import check_order, load_model
from jokr_rt.cli_options import TypedCommand, say, typed_command
from jokr_rt.errors import UsageError, missing_extra

if TYPE_CHECKING:
    from jokr_rt.bundle import Bundle
    from jokr_rt.evaluation.data import EvaluationData
    from jokr_rt.evaluation.results import Evaluation
    from jokr_rt.training.engine import TorchEngine

_PATH = click.Path(path_type=Path)
_CLIP_FRAMES = 600  # of a clip, unless --frames says otherwise: decoded and drawn frames are held in memory
PUPPETS = "puppets"


class _DataCommand(TypedCommand):
    """Lets `--data A B` name two clips, which click knows only as `--data A --data B`."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if args.count("--data") == 1:
            after = args.index("--data") + 2
            if after < len(args) and args[after - 1] != PUPPETS and not args[after].startswith("-"):
                args = [*args[:after], "--data", *args[after:]]
        return super().parse_args(ctx, args)


@click.command(cls=_DataCommand)
@click.argument("model", metavar="MODEL", type=_PATH)
@click.option(
    "--data", required=True, multiple=True, metavar="puppets|A B", help="The puppets, or two clips (or --data twice)."
)
@click.option(
    "--family", metavar="NAME", help="Of puppets.  [default: the one that the model's domains are named after]"
)
@click.option("--a-masks", type=_PATH, help="Masks of clip A, white on the object: video, folder, or alpha.")
@click.option("--b-masks", type=_PATH, help="Masks of clip B.")
@click.option("--on-black", is_flag=True, help="Let the model see the creatures before black, as run --masks does.")
@click.option(
    "--frames",
    type=click.IntRange(min=16),
    help=f"Frames to measure, from the start.  [default: 96 of the puppets, {_CLIP_FRAMES} of clips]",
)
@click.option(
    "--holdout", type=int, default=0, metavar="N", help="Measure own frames on every Nth, which jokr train kept out."
)
@click.option("--against", type=_PATH, metavar="MODEL", help="Another model, to compare with on the same data.")
@click.option("--engine", default="auto", show_default=True, help="Those of jokr run; auto takes torch for a file.")
@click.option("--precision", help="As of jokr run.")
@click.option("--report", type=_PATH, help="Folder for a page of tables, plots, pictures and videos.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object on stdout; words go to stderr.")
def evaluate(
    model: Path,
    data: tuple[str, ...],
    family: str | None,
    a_masks: Path | None,
    b_masks: Path | None,
    on_black: bool,
    frames: int | None,
    holdout: int,
    against: Path | None,
    engine: str,
    precision: str | None,
    report: Path | None,
    as_json: bool,
) -> None:
    """Measure how well MODEL, a bundle or a checkpoint, retargets.

    Against ground truth with --data puppets, for a model of a family of puppets (quadruped, walker, flower, or one of
    these with -mirrored, whose second faces the other way): on walks that training never saw. On any two clips with
    --data A B: what can be measured without truth; with masks, how well each creature's own frames are drawn again,
    with --holdout those that training never saw. The exit code is 0 where a bar is missed, too.
    """
    _check(data, family, a_masks, b_masks, holdout)
    check_order(model, *map(Path, data))
    try:
        import jokr_rt.evaluation.evaluate  # noqa: F401

        if report is not None:
            from jokr_rt.evaluation import report as page
    except ImportError as error:
        raise missing_extra("jokr evaluate", error, "evaluate") from error
    from jokr_rt.console import evaluation_tables, print_tables

    if report is not None:
        page.prepare_folder(report)

    def measure(path: Path) -> "Evaluation":
        return _measure(path, engine, precision, data, family, (a_masks, b_masks), frames, holdout, on_black)

    found, other = measure(model), None if against is None else measure(against)
    if as_json:
        told = found.to_json() | ({} if other is None else {"against": other.to_json()})
        click.echo(json.dumps(told, allow_nan=False))
    else:
        print_tables(*evaluation_tables(found, other))
    if report is not None:
        index = page.write_report(found, report, command=typed_command(), against=other)
        say(f"report: {index}")


def _measure(
    path: Path,
    engine: str,
    precision: str | None,
    data: tuple[str, ...],
    family: str | None,
    masks: tuple[Path | None, Path | None],
    frames: int | None,
    holdout: int,
    on_black: bool,
) -> "Evaluation":
    from jokr_rt.console import frame_progress
    from jokr_rt.evaluation.data import before_black
    from jokr_rt.evaluation.evaluate import evaluate as measure

    model, loaded = load_model(path, "torch" if engine == "auto" and path.is_file() else engine, precision)
    _check_holdout(path, model, holdout)
    measured = _data(model, data, family, masks, frames, holdout)
    if on_black:
        measured = before_black(measured)
    for words in (f"{path}: engine {loaded.name}, precision {loaded.precision}", *measured.notes):
        say(words)
    with frame_progress() as progress:
        return measure(model, loaded, measured, model_name=str(path), progress=progress)


def _check_holdout(path: Path, model: "Bundle | TorchEngine", holdout: int) -> None:
    """Raises UsageError where training saw the frames."""
    kept = model.recipe.get("holdout")
    if holdout and kept != holdout:
        trained = "kept none from training" if kept == 0 else f"was trained with --holdout {kept}"
        if kept is None:
            say(
                f"{path}: does not say what it was trained with; unless with --holdout {holdout}, it knows these frames"
            )
        else:
            raise UsageError(f"{path}: {trained}, so that it knows frames of --holdout {holdout}; train it with that")


def _check(data: tuple[str, ...], family: str | None, a_masks: Path | None, b_masks: Path | None, holdout: int) -> None:
    if holdout < 0 or holdout == 1:
        raise UsageError(f"--holdout must be 0, or 2 or more: one frame of so many is measured; not {holdout}")
    if holdout and PUPPETS in data:
        raise UsageError("--holdout is for two clips; the puppets have a walk that training never saw")
    if PUPPETS in data and len(data) > 1:
        raise UsageError("--data puppets stands alone; for two clips give --data A B (a clip of that name: ./puppets)")
    if family is not None and data != (PUPPETS,):
        raise UsageError("--family is for --data puppets; leave it out")
    if family is not None:
        from jokr_rt.evaluation.puppets import FAMILIES

        if family not in FAMILIES:
            raise UsageError(f"unknown family {family!r}; there are {', '.join(FAMILIES)}")
    if data == (PUPPETS,) and (a_masks or b_masks):
        raise UsageError("--a-masks, --b-masks: the puppets bring their own masks; leave them out")
    if len(data) != 2 and data != (PUPPETS,):
        raise UsageError(f"--data {shlex.join(data)}: give puppets or two clips, --data A B")


def _data(
    model: "Bundle | TorchEngine",
    data: tuple[str, ...],
    family: str | None,
    masks: tuple[Path | None, Path | None],
    frames: int | None,
    holdout: int,
) -> "EvaluationData":
    from jokr_rt.evaluation.data import clip_data, puppet_data
    from jokr_rt.evaluation.puppets import FAMILIES, PROBE, TEST

    size, names = model.config.size, (model.domains["a"], model.domains["b"])
    if data == (PUPPETS,):
        test, probe = (replace(walk, frames=frames or walk.frames) for walk in (TEST, PROBE))
        creatures = None if family is None else FAMILIES[family]
        return puppet_data(size, names, test=test, probe=probe, creatures=creatures)
    first, second = map(Path, data)
    return clip_data(size, names, (first, second), masks, frames or _CLIP_FRAMES, holdout)
