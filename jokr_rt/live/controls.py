"""What a person can do to running streams: keys on a terminal, and signals."""

import os
import select
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from queue import Empty, SimpleQueue
from types import FrameType
from typing import Any

KEYS = {
    " ": ("pause", "pause or go on"),
    "n": ("next", "next target"),
    "k": ("keypoints", "show keypoints, or not"),
    "b": ("learn", "learn the static background again"),
    "s": ("snapshot", "save a snapshot"),
    "r": ("record", "start or end a recording"),
    "i": ("statistics", "print statistics"),
    "q": ("quit", "quit"),
}
"""What a key does: one of `jokr_rt.live.loop.ACTIONS`, "statistics" or "quit"; and in words."""

_LOOK_S = 0.2


class Controls:
    """What was asked for and not done yet. Any thread, and a signal handler, may ask.

    quit: whether the streams are to end.
    """

    def __init__(self) -> None:
        self.quit = False
        self._asked: SimpleQueue[str] = SimpleQueue()  # of which put is safe in a signal handler

    def press(self, key: str) -> None:
        """One of `KEYS`; others do nothing."""
        if key.lower() in KEYS:
            self.ask(KEYS[key.lower()][0])

    def ask(self, action: str) -> None:
        """See `KEYS`."""
        if action == "quit":
            self.quit = True
        else:
            self._asked.put(action)

    def actions(self) -> Iterator[str]:
        """What was asked for since the last call, but "quit"."""
        while True:
            try:
                yield self._asked.get_nowait()
            except Empty:
                return


@contextmanager
def signals(controls: Controls) -> Iterator[None]:
    """Within the block Ctrl-C and SIGTERM quit, SIGUSR1 asks for statistics. In the main thread, which gets them.

    A second Ctrl-C is raised: what was to end may not come to it, such as an engine that is being built.
    """

    def handle(number: int, frame: FrameType | None) -> None:
        if number == signal.SIGINT and controls.quit:
            raise KeyboardInterrupt
        controls.ask("statistics" if number == getattr(signal, "SIGUSR1", None) else "quit")

    before = {}
    for name in ("SIGINT", "SIGTERM", "SIGUSR1"):
        if hasattr(signal, name):
            number = getattr(signal, name)
            # A shell has commands in the background ignore Ctrl-C: it is meant for what is in front.
            if name != "SIGINT" or signal.getsignal(number) is not signal.SIG_IGN:
                before[number] = signal.signal(number, handle)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def keys(controls: Controls) -> Iterator[bool]:
    """Within the block keys on the terminal that is stdin do what `KEYS` says; yields whether there is one."""
    if not sys.stdin or not sys.stdin.isatty():
        yield False
        return
    ended = threading.Event()
    with ExitStack() as stack:
        read_key = stack.enter_context(_windows_terminal() if sys.platform == "win32" else _unix_terminal())

        def listen() -> None:
            while not ended.is_set():
                for key in read_key():
                    controls.press(key)

        listener = threading.Thread(target=listen, name="jokr-keys", daemon=True)
        listener.start()
        try:
            yield True
        finally:
            ended.set()
            listener.join(2 * _LOOK_S)


@contextmanager
def _unix_terminal() -> Iterator[Any]:
    """Keys come at once and are not shown. Yields what returns those that were pressed, after a short wait."""
    import termios
    import tty

    terminal = sys.stdin.fileno()
    before = termios.tcgetattr(terminal)

    def in_front() -> bool:
        return os.tcgetpgrp(terminal) == os.getpgrp()  # reading in the background would stop the process

    def read_key() -> str:
        ready, _, _ = select.select([terminal] if in_front() else [], [], [], _LOOK_S)
        return os.read(terminal, 64).decode(errors="ignore") if ready else ""

    if in_front():
        tty.setcbreak(terminal)
    try:
        yield read_key
    finally:
        if in_front():
            termios.tcsetattr(terminal, termios.TCSADRAIN, before)


@contextmanager
def _windows_terminal() -> Iterator[Any]:
    import msvcrt
    import time

    def read_key() -> str:
        time.sleep(_LOOK_S)
        pressed = ""
        while msvcrt.kbhit():  # type: ignore[attr-defined,unused-ignore]
            pressed += msvcrt.getwch()  # type: ignore[attr-defined,unused-ignore]
        return pressed

    yield read_key
