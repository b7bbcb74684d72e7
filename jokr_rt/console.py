"""What people see: tables, and progress on a terminal. Words go to stderr where stdout is for JSON."""

import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeRemainingColumn,
)
from rich.table import Table
from rich.text import Text

from jokr_rt.bundle import Bundle, Parity, Signature, TensorSpec
from jokr_rt.evaluation import tables
from jokr_rt.evaluation.results import Evaluation

_SHOWN_LOSSES = ("reconstruction", "cycle", "adversarial", "confusion")
_WIDTH_OF_A_FILE = 160  # so that a table is not broken where stdout is no terminal


class _Speed(ProgressColumn):
    def render(self, task: Task) -> Text:
        return Text(f"{task.speed or 0:.1f} fps")


@contextmanager
def frame_progress() -> Iterator[Callable[[int, int | None], None]]:
    """A bar with frames, fps and time left on stderr, on a terminal only. Yields what to call after every frame."""
    columns = BarColumn(), MofNCompleteColumn(), _Speed(), TimeRemainingColumn()
    console = Console(stderr=True)
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        task = progress.add_task("", total=None)
        yield lambda done, total: progress.update(task, completed=done, total=max(done, total) if total else None)


@contextmanager
def loss_progress() -> Iterator[Callable[[int, int, dict[str, float]], None]]:
    """A bar with steps, time left and some losses on stderr, on a terminal only. Yields what to call after a step."""
    columns = BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), TextColumn("{task.description}")
    console = Console(stderr=True)
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        task = progress.add_task("")

        def update(step: int, steps: int, losses: dict[str, float]) -> None:
            shown = "  ".join(f"{name} {losses[name]:.3f}" for name in _SHOWN_LOSSES)
            progress.update(task, completed=step, total=steps, description=shown)

        yield update


@contextmanager
def step_progress() -> Iterator[Callable[[str], None]]:
    """A line on stderr that says what is being done, on a terminal only. Yields what to call at every step."""
    console = Console(stderr=True)
    with console.status("") as status:
        yield lambda step: status.update(escape(step))


def print_tables(*tables: Table) -> None:
    """On stdout, an empty line between them."""
    console = Console(width=None if sys.stdout.isatty() else _WIDTH_OF_A_FILE)
    for index, table in enumerate(tables):
        console.print(*[""] * min(index, 1), table, sep="\n")


def parity_table(figures: Iterable[Parity], signatures: dict[str, Signature]) -> Table:
    """How far each output is from PyTorch's."""
    table = _table("graph", "output", "shape", "engine", right=("max error", "mean error", "PSNR dB", "tolerance"))
    table.add_column("")
    for figure in figures:
        (spec,) = (spec for spec in signatures[figure.graph].outputs if spec.name == figure.output)
        psnr = "exact" if figure.psnr_db is None else f"{figure.psnr_db:.1f}"
        numbers = f"{figure.max_abs:.2g}", f"{figure.mean_abs:.2g}", psnr, f"{figure.tolerance:.2g}"
        verdict = "[green]ok[/]" if figure.passed else "[bold red]FAILED[/]"
        table.add_row(figure.graph, figure.output, _shape(spec), figure.engine, *numbers, verdict)
    return table


def bundle_tables(bundle: Bundle) -> tuple[Table, Table]:
    """What the model is, and what graphs it has."""
    model = _table("model", "")
    config = bundle.config
    rows: dict[str, Any] = {
        "bundle": bundle.root,
        "domains": ", ".join(f"{domain}: {name}" for domain, name in bundle.domains.items()),
        "directions": ", ".join(bundle.directions),
        "frames": f"{config.size} x {config.size}, {config.keypoints} keypoints",
        "width": f"{config.width:g}, extractor looks at {config.extractor_size} x {config.extractor_size}",
        "precisions": ", ".join(bundle.precisions),
    }
    for name, value in rows.items():
        model.add_row(name, escape(str(value)))
    graphs = _table("graph", "precision", "inputs", "outputs", right=("opset", "MB"))
    for graph in bundle.graphs:
        signature = bundle.signatures[graph.name]
        sides = signature.inputs, signature.outputs
        ports = ("\n".join(f"{spec.name} {_shape(spec)}" for spec in specs) for specs in sides)
        megabytes = (bundle.root / graph.file).stat().st_size / 1e6
        graphs.add_row(graph.name, graph.precision, *ports, str(graph.opset), f"{megabytes:.2f}")
    return model, graphs


def evaluation_tables(evaluation: Evaluation) -> list[Table]:
    """What was measured: bars, frames, measures, applications."""
    shown = []
    for words in tables.evaluation_tables(evaluation):
        name, *numbers = words.header
        table = _table(name, right=numbers)
        table.title, table.title_justify, table.title_style = escape(words.title), "left", "bold underline"
        for row in words.rows:
            table.add_row(*(_verdict(escape(cell)) for cell in row.cells))
        shown.append(table)
    return shown


def _verdict(cell: str) -> str:
    colours = {"aim met": "green", "bar met": "green", "MISSED": "bold red"}
    return f"[{colours[cell]}]{cell}[/]" if cell in colours else cell


def _table(*left: str, right: Iterable[str] = ()) -> Table:
    table = Table(box=None, header_style="bold", pad_edge=False)
    for name in left:
        table.add_column(name)
    for name in right:
        table.add_column(name, justify="right")
    return table


def _shape(spec: TensorSpec) -> str:
    return f"{spec.dtype} ({', '.join(map(str, spec.shape))})"
