"""What a person or a program sees of running streams: a status line, and figures as JSON lines."""

import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime, timezone

from rich.console import Console
from rich.live import Live
from rich.text import Text

from jokr_rt.live.figures import StreamFigures, summary


class LiveConsole:
    """An observer (see `jokr_rt.live.session.Observer`): words and the status lines on stderr, JSON on stdout.

    as_json: whether figures are printed, every second, an object for each stream on a line of its own.
    """

    def __init__(self, console: Console, live: Live | None, as_json: bool) -> None:
        self._console, self._live, self._as_json = console, live, as_json

    def say(self, words: str) -> None:
        self._console.print(Text(words), soft_wrap=True)

    def figures(self, figures: Sequence[StreamFigures]) -> None:
        if self._as_json:
            now = datetime.now(timezone.utc).isoformat(timespec="milliseconds")
            for each in figures:
                print(json.dumps({"time": now} | each.to_json()), flush=True)
        if self._live is not None:
            lines = Text("\n".join(map(summary, figures)), no_wrap=True, overflow="ellipsis")
            self._live.update(lines, refresh=True)


@contextmanager
def live_console(as_json: bool) -> Iterator[LiveConsole]:
    """Within the block the terminal that is stderr has a status line for each stream; elsewhere there is none."""
    console = Console(stderr=True, highlight=False)
    if not console.is_terminal:
        yield LiveConsole(console, None, as_json)
        return
    with Live(console=console, auto_refresh=False, transient=True, redirect_stdout=sys.stdout.isatty()) as live:
        yield LiveConsole(console, live, as_json)
