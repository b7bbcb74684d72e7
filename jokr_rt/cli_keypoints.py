"""The command lines of `jokr keypoints` and `jokr render`: motion out of a clip, and into a video."""

import json
from pathlib import Path
from typing import Any

import click

from jokr_rt.cli_model import check_order, counted, load_retargeter, medians, print_report, words_of
from jokr_rt.cli_options import (
    DIRECTION,
    STANDARD,
    appearance_option,
    argument_input,
    argument_path,
    edits_option,
    engine_options,
    json_option,
    masks_option,
    option_output,
    overwrite_option,
    video_options,
    video_output_option,
)
from jokr_rt.cli_pipes import standard_input, standard_output


@click.command()
@argument_path("model", "BUNDLE")
@argument_input("source", "INPUT")
@option_output("JSON file to write, or - for stdout.")
@click.option(
    "--direction",
    default="a2b",
    show_default=True,
    help="a2b: A is in the clip; b2a: B is; or by name, such as cat2fox.",
)
@masks_option
@engine_options
@overwrite_option
@json_option
def keypoints(
    model: Path,
    source: Path | str,
    output: Path | str,
    direction: str,
    masks: Path | None,
    engine: str,
    precision: str | None,
    mode: str,
    overwrite: bool,
    as_json: bool,
) -> None:
    """Write where the keypoints are in each frame of INPUT: what `jokr render` draws from.

    The file is there once all of INPUT, which may be - for stdin, was read.
    """
    from jokr_rt.console import frame_progress
    from jokr_rt.documents import check_output
    from jokr_rt.stream import find_tracks
    from jokr_rt.tracks import format_tracks, write_tracks

    check_order(model, Path(source))
    standard_output(output, as_json)
    if isinstance(output, Path):
        check_output(output, overwrite)
    retargeter, runs = load_retargeter(model, direction, engine, precision, mode)
    with standard_input(source) as clip, frame_progress() as progress:
        tracks = find_tracks(retargeter, clip, masks=masks, progress=progress)
    if isinstance(output, Path):
        write_tracks(output, tracks, overwrite)
    else:
        click.echo(format_tracks(tracks), nl=False)
    count, stages = tracks.keypoints.shape[1], retargeter.timings.milliseconds()
    if as_json:
        told = {"frames": len(tracks), "keypoints": count, "domain": tracks.domain, "stages": stages}
        click.echo(json.dumps({"output": str(output)} | runs | told))
    else:
        found = f"{count} keypoints in {counted(len(tracks))} of {tracks.domain}"
        click.echo(f"{output}: {found}, {words_of(runs)}{medians(stages, len(tracks))}", err=output == STANDARD)


@click.command()
@argument_path("model", "BUNDLE")
@argument_input("tracks", "TRACKS")
@video_output_option
@click.option("--direction", help=f"{DIRECTION}  [default: by whose motion TRACKS is, or a2b]")
@edits_option
@appearance_option
@engine_options
@video_options
@overwrite_option
@json_option
def render(
    model: Path,
    tracks: Path | str,
    output: Path | str,
    direction: str | None,
    edits: Path | None,
    appearance: Path | None,
    engine: str,
    precision: str | None,
    mode: str,
    as_json: bool,
    **options: Any,
) -> None:
    """Draw a creature in the poses of TRACKS, which `jokr keypoints` wrote, or you by hand; no other video is needed.

    TRACKS may be - for stdin. The pictures are those of `jokr run` for the clip, with the same edits, without sound.
    """
    from jokr_rt.console import frame_progress
    from jokr_rt.edits import read_edits
    from jokr_rt.stream import render_stream
    from jokr_rt.tracks import read_tracks

    check_order(model, Path(tracks))
    written = standard_output(output, as_json)
    with standard_input(tracks) as path:
        motion = read_tracks(path)
    document = None if edits is None else read_edits(edits)
    retargeter, runs = load_retargeter(
        model, direction, engine, precision, mode, domain=motion.domain, appearance=appearance
    )
    with frame_progress() as progress:
        report = render_stream(retargeter, motion, written, edits=document, progress=progress, **options)
    print_report(output, runs, report, as_json)
