"""An evaluation as a page: its tables, what the model saw and drew, and the keypoints over time."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from tempfile import TemporaryDirectory

import jinja2
import numpy as np
from matplotlib import rc_context, style
from matplotlib.figure import Figure

from jokr_rt import __version__
from jokr_rt.errors import OutputError
from jokr_rt.evaluation.metrics import Frames
from jokr_rt.evaluation.results import Evaluation, Performance
from jokr_rt.evaluation.tables import arrow, evaluation_tables
from jokr_rt.frame import Frame
from jokr_rt.keypoints import draw_keypoints, keypoint_colours
from jokr_rt.video import write_png, write_video

PAGE = "index.html"
COLUMNS = 8
STYLES = {"light": "default", "dark": "dark_background"}
"""matplotlib's, by the colour scheme that the reader prefers."""


def prepare_folder(folder: Path) -> None:
    """Create the folder of a report, if it is not there, and write to it: better before an evaluation than after.

    Raises OutputError where that cannot be done.
    """
    with _workplace(folder):
        pass


def write_report(evaluation: Evaluation, folder: Path, command: str = "", against: Evaluation | None = None) -> Path:
    """Write a report into a folder, created if need be, and return the path of its page, `index.html`.

    Beside the page, for each direction, named "a2b" and "b2a": `a2b-sheet.png`, frames spread over the test clip, a row
    each for input, keypoints, output and truth, where there is one; `a2b.mp4`, the whole clip with these side by side
    (H.264); `a2b-keypoints-light.svg` and `-dark.svg`, the keypoints found over time. All is written aside and moved
    when it is complete, the page last; files of these names are replaced.

    command: what made it, to be shown. against: see `evaluation_tables`.

    Raises OutputError, in one line, where the folder cannot be written.
    """
    with _workplace(folder) as aside:
        for direction, result in evaluation.directions.items():
            panels = _panels(result.performance)
            write_png(aside / f"{direction}-sheet.png", _sheet(panels))
            _write_film(aside / f"{direction}.mp4", panels, result.performance.rate)
            for scheme, name in STYLES.items():
                _plot_keypoints(aside / f"{direction}-keypoints-{scheme}.svg", result.performance, name)
        (aside / PAGE).write_text(_render(evaluation, command, against), encoding="utf-8")
        for file in sorted(aside.iterdir(), key=lambda file: file.name == PAGE):
            os.replace(file, folder / file.name)
    return folder / PAGE


@contextmanager
def _workplace(folder: Path) -> Iterator[Path]:
    """A temporary folder within `folder`, so that what is made there can be moved into place."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(prefix=".report-", dir=folder) as aside:
            yield Path(aside)
    except OSError as error:
        # An OutputError names a file of the temporary folder, which is gone; what it came from says why.
        reason = getattr(error.__context__ if isinstance(error, OutputError) else error, "strerror", error)
        raise OutputError(f"{folder}: the report cannot be written ({reason}); choose another folder") from error


def _panels(performance: Performance) -> dict[str, Frames]:
    """What is shown of each frame, each (T, S, S, 3)."""
    pairs = zip(performance.source, performance.keypoints, strict=True)
    panels = {
        "input": performance.source,
        "keypoints": np.stack([draw_keypoints(rgb // 2, keypoints) for rgb, keypoints in pairs]),
        "output": performance.drawn,
    }
    return panels if performance.true is None else panels | {"truth": performance.true}


def _sheet(panels: dict[str, Frames]) -> Frames:
    """(rows * S, COLUMNS * S, 3)"""
    picked = np.linspace(0, len(panels["input"]) - 1, COLUMNS).round().astype(int)
    return np.concatenate([np.concatenate(list(frames[picked]), axis=1) for frames in panels.values()])


def _write_film(path: Path, panels: dict[str, Frames], rate: float) -> None:
    time_base = 1 / Fraction(rate).limit_denominator(1001)
    rows = zip(*panels.values(), strict=True)
    write_video(path, (Frame(np.concatenate(row, axis=1), index, time_base) for index, row in enumerate(rows)))


def _plot_keypoints(path: Path, performance: Performance, style_name: str) -> None:
    """x and y of every keypoint, in its colour, over seconds; transparent, and the same file for the same track."""
    track = performance.keypoints
    seconds = np.arange(len(track)) / performance.rate
    with style.context(style_name), rc_context({"svg.hashsalt": path.name, "font.size": 9}):
        figure = Figure(figsize=(8, 5), layout="constrained")
        axes = figure.subplots(2, sharex=True)
        for axis, (plot, label) in enumerate(zip(axes, ("x (right)", "y (down)"), strict=True)):
            for keypoint, colour in enumerate(keypoint_colours(track.shape[1]) / 255):
                plot.plot(seconds, track[:, keypoint, axis], color=tuple(colour), linewidth=1.2)
            plot.set(ylabel=f"{label}, half-widths", ylim=(-1, 1) if axis == 0 else (1, -1))
            plot.grid(alpha=0.25)
        axes[-1].set(xlabel="seconds", xlim=(0, max(seconds[-1], 1 / performance.rate)))
        figure.savefig(path, transparent=True, metadata={"Date": None})


def _render(evaluation: Evaluation, command: str, against: Evaluation | None) -> str:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("jokr_rt.evaluation", "."),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("report.html.jinja").render(
        evaluation=evaluation,
        tables=evaluation_tables(evaluation, against),
        arrow=arrow,
        command=command,
        version=__version__,
    )
