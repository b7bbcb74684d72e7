"""The command line of `jokr live`. What runs streams is imported when it is called, not before."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from jokr_rt.cli_model import check_order, load_model
from jokr_rt.errors import UsageError
from jokr_rt.live.values import parse_rate, parse_seconds, parse_size

_PATH = click.Path(path_type=Path)
_RUN = ("bundle", "engine", "precision", "target", "watchdog", "on_hang", "prometheus")
_HERE = (*_RUN, "config", "as_json")
"""What is not of one stream, and may be typed beside --config."""


class _Value(click.ParamType):
    """What one of `jokr_rt.live.values` reads."""

    def __init__(self, name: str, parse: Callable[[str], Any]) -> None:
        self.name, self._parse = name, parse

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        try:
            return self._parse(value) if isinstance(value, str) else value
        except ValueError as error:
            self.fail(str(error), param, ctx)


_SECONDS, _SIZE, _RATE = _Value("time", parse_seconds), _Value("wxh", parse_size), _Value("fps", parse_rate)


class _Sections(click.Command):
    """Lists the options under headings: the ones before the first heading, then each heading's own."""

    SECTIONS = {
        "Camera and stream": "camera_size",
        "When it is lost or hangs": "on_loss",
        "Creature": "appearance",
        "Picture": "size",
        "Outputs": "rate",
        "Machine": "engine",
    }

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        headings = {first: heading for heading, first in self.SECTIONS.items()}
        sections: list[tuple[str, list[tuple[str, str]]]] = [("Options", [])]
        for param in self.get_params(ctx):
            if param.name in headings:
                sections.append((headings[param.name], []))
            if isinstance(param, click.Option) and (record := param.get_help_record(ctx)) is not None:
                sections[-1][1].append(record)
        for heading, records in sections:
            with formatter.section(heading):
                formatter.write_dl(records)


def _option(*names: str, text: str, **more: Any) -> Callable[[Any], Any]:
    return click.option(*names, help=text, **{"show_default": more.get("default") is not None, **more})


def _flag(name: str, text: str) -> Callable[[Any], Any]:
    return click.option(name, is_flag=True, help=text)


@click.command(cls=_Sections)
@click.argument("bundle", metavar="[BUNDLE]", required=False, type=_PATH)
@_option("--input", metavar="SOURCE", text="camera:0, rtsp://..., rtmp://..., udp://..., a pipe, - or a file.")
@_option("--output", metavar="SINK", multiple=True, text="May be repeated; see above.")
@_option("--direction", default="a2b", text="a2b: B moves like A; b2a: A like B; or their names, cat2fox.")
@_option("--config", metavar="FILE", type=_PATH, text="Several streams, from a TOML file, instead of the two above.")
@click.option("--json", "as_json", is_flag=True, help="Figures on stdout, every second, an object a line.")
@_option("--camera-size", type=_SIZE, metavar="WxH", text="Ask the webcam for it.")
@_option("--camera-rate", type=_RATE, metavar="FPS", text="Ask the webcam for it.")
@_option("--camera-format", metavar="NAME", text="Ask the webcam for it: mjpeg, yuyv422, ...")
@_option("--rtsp-transport", default="tcp", text="tcp, udp, udp_multicast or http.")
@_option("--hwaccel", default="none", text="Decode on a GPU: auto, or a kind such as cuda, vaapi, videotoolbox.")
@_flag("--realtime", "Play a file at its own rate.")
@_flag("--loop", "Play a file again and again.")
@click.option("--no-audio", is_flag=True, help="Leave the sound out.")
@_option("--open", default=10.0, type=_SECONDS, text="Longest wait for the source to answer.")
@_option("--on-loss", default="slate", text="Show a slate, freeze, passthrough (the gap), or stop.")
@_option("--stall", default=2.0, type=_SECONDS, text="Silence that counts as a loss, such as 2s or 500ms.")
@_option("--retries", type=click.IntRange(0), text="Attempts in a row to open it again.  [default: for ever]")
@_option("--watchdog", type=_SECONDS, text="Report what hangs for so long, and do what --on-hang says.")
@_option("--on-hang", default="restart", text="restart the engine or sink that hangs, or end.")
@_option("--appearance", metavar="PICTURE", text="Of the creature to draw, before black or transparent.")
@_option("--mask", default="none", text="static-background, alpha, or a segmentation network's .onnx file.")
@_option("--learn", default=2.0, type=_SECONDS, text="How long the static background is looked at.")
@_option("--smooth", default=3.0, metavar="HZ", text="Cutoff for keypoints at rest; lower lags more; 0: as found.")
@_option("--smooth-beta", default=4.0, metavar="HZ", text="How fast the cutoff rises with speed.")
@_option("--smooth-speed", default=1.0, metavar="HZ", text="Cutoff for the speed.")
@_option("--hold", default=0.1, metavar="0-1", text="Hold the last pose where the keypoints are less sure than this.")
@_option("--size", type=_SIZE, metavar="WxH", text="Of the output.  [default: the model's square]")
@_option("--background", default="black", metavar="WHAT", text="A colour's name, #rrggbb, or a picture.")
@_flag("--paste", "Show the creature before the source itself.")
@_option("--feather", default=3.0, metavar="PIXELS", text="Width of the creature's soft edge.")
@_flag("--keypoints", "Show in a corner what the model sees, and them in it.")
@_option("--rate", default="25", type=_RATE, metavar="FPS", text="Nominal, for receivers that want to know one.")
@_option("--bitrate", type=click.IntRange(1), metavar="BITS", text="At most, per second.  [default: constant quality]")
@_option("--keyframe-interval", default=2.0, type=_SECONDS, text="Between two keyframes.")
@_option("--queue", default=4, type=click.IntRange(1), text="Pictures that wait for a slow sink, at most.")
@_option("--sink-stall", default=5.0, type=_SECONDS, text="Longest wait for a receiver.")
@_option("--sink-retries", type=click.IntRange(0), text="Attempts in a row to open a sink again.  [default: for ever]")
@_flag("--overwrite", "Replace recordings that exist.")
@_option("--engine", default="auto", text="openvino, onnxruntime, onnxruntime-cuda, tensorrt, torch or torch-cuda.")
@_option("--precision", text="fp32, bf16, int8 or fp16.  [default: the fastest that bundle and engine have]")
@_option("--target", metavar="BUNDLE", multiple=True, type=_PATH, text="Another model, for the key n; may be repeated.")
@_option("--prometheus", metavar="PORT", type=click.IntRange(0, 65535), text="Figures for Prometheus, on 127.0.0.1.")
@click.pass_context
def live(ctx: click.Context, bundle: Path | None, config: Path | None, as_json: bool, **options: Any) -> None:
    """Retarget what a camera sees, for hours: the newest frame wins, and what is lost comes back.

    \b
    Sinks:  rec.mp4               a recording that plays even after a crash
            rtmp://  rtsp://      a stream; udp:// and tcp:// send MPEG-TS
            camera:9              a virtual camera (v4l2loopback, Linux)
            preview[:PORT]        MJPEG over HTTP, on this machine only
            -                     raw frames (RGB, 3 bytes a pixel) on stdout

    \b
    Keys:   space pause    n next target    k keypoints    s snapshot
            r record       b learn the background again    i statistics    q quit

    Ctrl-C and SIGTERM finish all files; SIGUSR1 prints statistics.
    """
    from jokr_rt.live.console import live_console
    from jokr_rt.live.controls import Controls, keys, signals
    from jokr_rt.live.memory import share_one_heap
    from jokr_rt.live.session import run_live

    streams, run = _streams(ctx, config, options)
    run["bundle"] = bundle or run.get("bundle")
    if run["bundle"] is None:
        raise UsageError("no BUNDLE: a folder that `jokr export` wrote; name it here, or in the file")
    check_order(Path(run["bundle"]), *(Path(stream.input) for stream in streams))
    if as_json and any("-" in stream.output for stream in streams):
        raise UsageError("--json and the output - both write to stdout; choose one")
    engine, precision = run.pop("engine"), run.pop("precision")
    for where in ("bundle", "target"):
        paths = run[where] if where == "target" else [run[where]]
        loads = [_loader(Path(path), engine, precision) for path in paths]
        run[where] = loads if where == "target" else loads[0]
    share_one_heap()
    controls = Controls()
    with signals(controls), keys(controls), live_console(as_json) as observer:
        run_live(streams=streams, controls=controls, observer=observer, **run)


def _loader(path: Path, engine: str, precision: str | None) -> Callable[[], Any]:
    context = click.get_current_context()  # another thread has none

    def load() -> Any:
        with context.scope(cleanup=False):
            return load_model(path, engine, precision)

    return load


def _streams(ctx: click.Context, config: Path | None, options: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    """Options of every stream, and what is said once for all of them; what is typed wins over the file."""
    from jokr_rt.live.config import read_config
    from jokr_rt.live.options import LiveOptions

    run = {key: options.pop(key) for key in _RUN if key in options}
    typed = [name for name in ctx.params if ctx.get_parameter_source(name) is ParameterSource.COMMANDLINE]
    if config is not None:
        of_stream = [name.replace("_", "-") for name in typed if name not in _HERE]
        if of_stream:
            raise UsageError(f"--{of_stream[0]} is of one stream; with --config, say it in {config}")
        read = read_config(config)
        return read.streams, run | {key: value for key, value in read.run.items() if key not in typed}
    if options["input"] is None or not options["output"]:
        raise UsageError("name an --input and at least one --output, or a --config with several streams")
    audio = not options.pop("no_audio")
    return (LiveOptions(audio=audio, **options),), run
