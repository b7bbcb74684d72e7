"""The command line of `jokr studio`. What serves is imported when it is called, not before."""

import json
from pathlib import Path

import click

from jokr_rt.cli_model import check_order, load_model
from jokr_rt.cli_options import ENGINES, json_option, masks_option, precision_option
from jokr_rt.errors import UsageError, missing_extra

PORT = 8765


@click.command()
@click.argument("bundle", metavar="BUNDLE", type=click.Path(path_type=Path))
@click.argument("clip", metavar="[CLIP]", required=False, type=click.Path(path_type=Path))
@click.option("--port", type=click.IntRange(0, 65535), default=PORT, show_default=True, help="0 takes a free one.")
@click.option("--host", default="127.0.0.1", show_default=True, help="Elsewhere than here the address gets a token.")
@click.option("--engine", default="auto", show_default=True, help=f"auto, {ENGINES}, torch or torch-cuda.")
@precision_option
@masks_option
@json_option
def studio(
    bundle: Path,
    clip: Path | None,
    port: int,
    host: str,
    engine: str,
    precision: str | None,
    masks: Path | None,
    as_json: bool,
) -> None:
    """Watch, steer and edit the motion in a browser: with its camera, with CLIP, or with a clip dropped on the page.

    From elsewhere, `ssh -L 8765:localhost:8765 MACHINE` brings the page to your own browser, camera included. With
    --host everyone who has the address, token included, may come in; browsers then give no camera: that wants https.
    Ctrl-C ends it.
    """
    try:
        from jokr_rt.studio.server import serve
    except ImportError as error:
        raise missing_extra("jokr studio", error, "studio") from error
    from jokr_rt.video import open_masks, open_video

    if masks is not None and clip is None:
        raise UsageError("--masks are of the frames of a CLIP; name it as well")
    if clip is not None:
        check_order(bundle, clip)
        open_video(clip).close()
    if masks is not None:
        open_masks(masks).close()
    model, loaded = load_model(bundle, engine, precision)
    facts = {"engine": loaded.name, "precision": loaded.precision}

    def ready(address: str) -> None:
        words = f"{address}  ({', '.join(f'{name} {value}' for name, value in facts.items())}; Ctrl-C ends it)"
        click.echo(json.dumps({"address": address} | facts) if as_json else words)

    serve(model, loaded, clip=clip, masks=masks, host=host, port=port, ready=ready)
