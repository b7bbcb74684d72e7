"""Arguments and options that commands share, and the line that says what runs."""

import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

_TYPED = "jokr_rt.cli_options.typed"
DIRECTION = "a2b: B moves like A; b2a: A like B; or by the names that `jokr info` shows, such as cat2fox."
ENGINES = "openvino, onnxruntime, onnxruntime-cuda, tensorrt"

STANDARD = "-"
"""Where a file is named: stdin or stdout."""

_Decorator = Callable[[Any], Any]


def say(words: str) -> None:
    """One line on stderr."""
    click.echo(" ".join(words.splitlines()), err=True)


class TypedCommand(click.Command):
    """Keeps what was typed, for `typed_command`."""

    def make_context(self, info_name: str | None, args: list[str], *rest: Any, **more: Any) -> click.Context:
        typed = ["jokr", info_name or "", *args]
        context = super().make_context(info_name, args, *rest, **more)
        context.meta[_TYPED] = typed
        return context


def typed_command(*, without: tuple[str, ...] = (), more: tuple[str, ...] = ()) -> str:
    """The running command as it was typed, less some words and with more of them, for a shell."""
    words = click.get_current_context().meta[_TYPED]
    return shlex.join([*(word for word in words if word not in without), *more])


class PathOrPipe(click.Path):
    """A Path, or the text "-". `./-` is a Path, and so names a file."""

    def __init__(self) -> None:
        super().__init__(path_type=Path)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        return value if value == STANDARD else super().convert(value, param, ctx)


def argument_path(name: str, metavar: str) -> _Decorator:
    return click.argument(name, metavar=metavar, type=click.Path(path_type=Path))


def argument_input(name: str, metavar: str) -> _Decorator:
    """A path, or - for stdin: see `jokr_rt.cli_pipes.standard_input`."""
    return click.argument(name, metavar=metavar, type=PathOrPipe())


def option_output(text: str) -> _Decorator:
    """A path, or - for stdout: see `jokr_rt.cli_pipes.standard_output`."""
    return click.option("-o", "--output", required=True, type=PathOrPipe(), help=text)


def option_path(*names: str, required: bool = False, text: str) -> _Decorator:
    return click.option(*names, required=required, type=click.Path(path_type=Path), help=text)


def _together(*options: _Decorator) -> _Decorator:
    """As one, in this order in the help."""

    def decorate(command: Any) -> Any:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


json_option = click.option("--json", "as_json", is_flag=True, help="One JSON object on stdout; words go to stderr.")
overwrite_option = click.option("--overwrite", is_flag=True, help="Replace the output where it exists.")
masks_option = option_path("--masks", text="A mask for each frame, white on the object: a video or a folder.")
edits_option = option_path("--edits", text="What becomes of the motion: a document of the studio's, or your own.")
appearance_option = option_path(
    "--appearance",
    text="A picture of the creature to draw, before black or transparent, instead of the bundle's own.",
)
video_output_option = option_output("Video to write: .mp4, .mov, .mkv or .webm; or - for Matroska on stdout.")
precision_option = click.option(
    "--precision", help="fp32, bf16, int8 or fp16, as bundle and engine have it.  [default: the fastest of them]"
)
engine_options = _together(
    click.option("--engine", default="auto", show_default=True, help=f"auto, {ENGINES}, torch or torch-cuda."),
    precision_option,
    click.option(
        "--mode",
        default="throughput",
        show_default=True,
        help="throughput: several frames at once, for files; latency: one, with all cores on it.",
    ),
)
video_options = _together(
    click.option("--size", type=int, help="Side of the output in pixels.  [default: the model's]"),
    click.option(
        "--codec", help="Video codec, such as libx264, libx265 or libvpx-vp9.  [default: by the output's name]"
    ),
    click.option("--crf", type=click.IntRange(0, 63), default=18, show_default=True, help="Quality: lower is better."),
)
