"""What people see: tables, and progress on a terminal. Words go to stderr where stdout is for JSON."""

import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TaskID,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table
from rich.text import Text

from jokr_rt.bundle import Bundle, Parity, Quantisation, Signature, TensorSpec
from jokr_rt.engines import Monitor
from jokr_rt.errors import LayerCost
from jokr_rt.retarget import known_directions

if TYPE_CHECKING:
    from jokr_rt.evaluation.results import Evaluation
    from jokr_rt.evaluation.tables import Table as TableOfWords

_SHOWN_LOSSES = ("silhouette", "equivariance", "matching", "reconstruction", "perceptual", "cycle", "adversarial")
_BAR = 20  # columns, so that the rest has room on 80
_LINE_SECONDS = 30.0  # between lines about steps, where there is no terminal
_LINE_STEPS = (1, 30)  # of a run: that it goes, and how long it will take
_WIDTH_OF_A_FILE = 160  # so that a table is not broken where stdout is no terminal


class _Speed(ProgressColumn):
    def render(self, task: Task) -> Text:
        return Text("" if task.speed is None else f"{task.speed:.1f} fps")


@contextmanager
def frame_progress() -> Iterator[Callable[[int, int | None], None]]:
    """A bar with frames, fps and time left on stderr, on a terminal only. Yields what to call after every frame."""
    columns = BarColumn(), MofNCompleteColumn(), _Speed(), TimeRemainingColumn()
    console = Console(stderr=True)
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        task = progress.add_task("", total=None)
        yield lambda done, total: progress.update(task, completed=done, total=max(done, total) if total else None)


@contextmanager
def loss_progress(
    *, lines: bool = True, now: Callable[[], float] = time.monotonic
) -> Iterator[Callable[[int, int, dict[str, float], float], None]]:
    """Steps, time left and some losses on stderr. Yields what to call after a step: with its number, the number of all,
    its losses, and the share of the time that is done, about; for a step of one stage takes longer than of another.

    A bar on a terminal; elsewhere, with `lines`, a line after the first, the thirtieth and the last step, and every
    half a minute. now: seconds, from any origin.
    """
    console = Console(stderr=True)
    columns = BarColumn(_BAR), TimeRemainingColumn(), TextColumn("{task.description}")
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        task = progress.add_task("", total=1.0)

        def update(step: int, steps: int, losses: dict[str, float], share: float) -> None:
            room = console.width - (_BAR + len(f" {steps}/{steps} 0:00:00  "))
            words = f"{step}/{steps} {_losses_within(room, losses)}"
            progress.update(task, completed=share, description=words)

        yield update if console.is_terminal or not lines else _StepLines(console, now)


class _StepLines:
    """Says of some steps how they went, how many there are and how long the rest will take, a line each."""

    def __init__(self, console: Console, now: Callable[[], float]) -> None:
        self._console, self._now = console, now
        self._first: tuple[int, float, float] | None = None  # step, share and time; a resumed run begins anywhere
        self._said = -_LINE_SECONDS

    def __call__(self, step: int, steps: int, losses: dict[str, float], share: float) -> None:
        at = self._now()
        self._first = first, before, since = self._first or (step, share, at)
        if step - first + 1 not in _LINE_STEPS and step != steps and at - self._said < _LINE_SECONDS:
            return
        self._said = at
        left = f", {_hours((at - since) / (share - before) * (1 - share))} left" if first < step < steps else ""
        words = f"step {step} of {steps}{left}: {_losses_within(_WIDTH_OF_A_FILE, losses)}"
        self._console.print(words, markup=False, highlight=False, soft_wrap=True)


def _losses_within(room: int, losses: dict[str, float]) -> str:
    """As many of the losses that tell most as there is room for."""
    shown = ""
    for name in [name for name in _SHOWN_LOSSES if name in losses] or losses:
        longer = f"{shown}  {name} {losses[name]:.3f}".lstrip()
        if len(longer) > room:
            break
        shown = longer
    return shown


def _hours(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{rest:02}"


@contextmanager
def step_progress() -> Iterator[Callable[[str], None]]:
    """A line on stderr that says what is being done, on a terminal only. Yields what to call at every step."""
    console = Console(stderr=True)
    with console.status("") as status:
        yield lambda step: status.update(escape(step))


class _BuildMonitor(Monitor):
    """Words on stderr, above a bar for each task."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._tasks: dict[str, TaskID] = {}

    def say(self, words: str) -> None:
        self._progress.console.print(words, markup=False, highlight=False, soft_wrap=True)

    def step(self, task: str, done: int, total: int) -> None:
        if task not in self._tasks:
            self._tasks[task] = self._progress.add_task(escape(task))
        self._progress.update(self._tasks[task], completed=done, total=total)


@contextmanager
def build_progress() -> Iterator[Monitor]:
    """Who tells the user of an engine that is being built: words on stderr, and bars where that is a terminal."""
    columns = TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeElapsedColumn()
    console = Console(stderr=True)
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        yield _BuildMonitor(progress)


def print_tables(*tables: Table, stderr: bool = False) -> None:
    """On stdout, or else stderr, an empty line between them."""
    stream = sys.stderr if stderr else sys.stdout
    console = Console(stderr=stderr, width=None if stream.isatty() else _WIDTH_OF_A_FILE)
    for index, table in enumerate(tables):
        console.print(*[""] * min(index, 1), table, sep="\n")


def parity_table(figures: Iterable[Parity], signatures: dict[str, Signature]) -> Table:
    """How far each output is from PyTorch's; in rows named by a direction, after all graphs in a row.

    Errors and tolerance have the output's own units.
    """
    columns = "max error", "mean error", "PSNR dB", "tolerance"
    table = _table("graph", "output", "shape", "engine", "precision", right=columns)
    table.add_column("")
    for figure in figures:
        # Of whole frames the graph's name is the direction's, and the output the generator's.
        signature = signatures.get(figure.graph, signatures["generator"])
        (spec,) = (spec for spec in signature.outputs if spec.name == figure.output)
        psnr = "exact" if figure.psnr_db is None else f"{figure.psnr_db:.1f}"
        numbers = f"{figure.max_abs:.2g}", f"{figure.mean_abs:.2g}", psnr, _bound(figure)
        verdict = "[green]ok[/]" if figure.passed else "[bold red]FAILED[/]"
        table.add_row(figure.graph, figure.output, _shape(spec), figure.engine, figure.precision, *numbers, verdict)
    return table


def _bound(figure: Parity) -> str:
    if figure.tolerance is None:
        return f"{figure.min_psnr_db:g} dB"
    return f"{figure.tolerance:.2g}{' level(s)' if figure.output == 'image' else ''}"


def sensitivity_table(costs: Iterable[LayerCost]) -> Table:
    """What each layer costs in int8."""
    table = _table("layer", right=("share of the work", "PSNR dB with it alone in int8"))
    for cost in costs:
        table.add_row(escape(cost.layer), f"{cost.work:.1%}", f"{cost.psnr_db:.1f}")
    return table


def bundle_tables(bundle: Bundle) -> tuple[Table, Table]:
    """What the model is, and what graphs it has."""
    model = _table("model", "")
    config = bundle.config
    rows: dict[str, Any] = {
        "bundle": bundle.root,
        "domains": ", ".join(f"{domain}: {name}" for domain, name in bundle.domains.items()),
        "directions": known_directions(bundle.domains),
        "frames": f"{config.size} x {config.size}, {config.keypoints} keypoints",
        "width": f"{config.width:g}, extractor looks at {config.extractor_size} x {config.extractor_size}",
        "precisions": ", ".join(bundle.precisions),
        **_quantisation_rows(bundle.quantisation),
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


def _quantisation_rows(made: Quantisation | None) -> dict[str, str]:
    if made is None:
        return {}
    lost = "" if made.truth_loss_db is None else f", {made.truth_loss_db:.2f} dB lost against the truth"
    return {
        "int8": f"{made.psnr_db:.1f} dB of what fp32 draws{lost}",
        "int8 calibrated on": f"{made.calibration}: {made.frames} frames, and {made.held_out} to measure",
        "not in int8": ", ".join(made.float_layers) or "no layer that it is for",
    }


def plan_tables(report: dict[str, Any]) -> list[Table]:
    """What `jokr build --json` tells of each engine: what became of it or would, what it depends on, and its layers."""
    plans = report["plans"]
    table = _table("graph", "engine", "", "sampler", "key", "why", right=("MB",))
    for plan in plans:
        digest = plan["digest"][:12] if plan["digest"] else "not known here"
        sampler = plan.get("sampler", plan["key"]["sampler"])
        size = f"{plan['bytes'] / 1e6:.2f}" if "bytes" in plan else ""
        file = Path(plan["file"])
        table.add_row(
            plan["graph"],
            f"{file.parent.name}/{file.name}",
            _became(plan),
            sampler,
            digest,
            escape(plan["reason"]),
            size,
        )
    key = _table("key", "")
    parts = next((plan["key"] for plan in plans if plan["key"]["kernel"] != "none"), plans[0]["key"])
    graphs = "\n".join(f"{plan['key']['graph']} {plan['graph']}" for plan in plans)
    for part, value in (parts | {"graph": graphs}).items():
        key.add_row(part, escape(value or "not known here"))
    layers = [_layer_table(plan) for plan in plans if "layers" in plan]
    return [table, key, *layers]


def _became(plan: dict[str, Any]) -> str:
    if "would_build" in plan:
        return "would be built" if plan["would_build"] else "is there"
    return f"built in {plan['seconds']:.1f} s" if plan["built"] else "was there"


def _layer_table(plan: dict[str, Any]) -> Table:
    table = _table(f"layers of {plan['graph']}", "type", "tactic")
    for layer in plan["layers"]:
        table.add_row(*(escape(str(layer.get(name, ""))) for name in ("Name", "LayerType", "TacticName")))
    return table


def evaluation_tables(evaluation: "Evaluation", against: "Evaluation | None" = None) -> list[Table]:
    """What was measured: bars, frames, measures, applications; and what another model reached, beside it."""
    from jokr_rt.evaluation import tables  # takes long to import, and `jokr run` shows none

    return [_in_words(words) for words in tables.evaluation_tables(evaluation, against)]


def benchmark_tables(report: dict[str, Any]) -> list[Table]:
    """What `jokr bench --json` tells: variants, their stages, the floor, and what did not run."""
    from jokr_rt.bench import tables as bench_tables

    shown = [_in_words(words) for words in bench_tables.benchmark_tables(report)]
    skipped = _table("did not run", "why")
    for name, reason in bench_tables.skipped(report):
        skipped.add_row(escape(name), escape(reason))
    return [*shown, skipped] if skipped.row_count else shown


def _in_words(words: "TableOfWords") -> Table:
    name, *numbers = words.header
    table = _table(name, right=numbers)
    table.title, table.title_justify, table.title_style = escape(words.title), "left", "bold underline"
    for row in words.rows:
        table.add_row(*(_verdict(escape(cell)) for cell in row.cells))
    return table


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
