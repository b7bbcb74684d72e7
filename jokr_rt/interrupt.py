"""Ctrl-C at a moment of our choosing."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from threading import current_thread, main_thread
from types import FrameType


class Interrupt:
    """Whether Ctrl-C was pressed. A plain flag: a signal handler must not wait for a lock."""

    def __init__(self) -> None:
        self.requested = False

    def raise_if_requested(self) -> None:
        """Raises KeyboardInterrupt, once for however many presses."""
        if self.requested:
            self.requested = False
            raise KeyboardInterrupt

    def _request(self, signum: int, frame: FrameType | None) -> None:
        self.requested = True


@contextmanager
def deferred_interrupt() -> Iterator[Interrupt]:
    """Within the block Ctrl-C sets a flag instead of raising; one that nobody asked about is raised at its end.

    An exception out of nowhere tears a training step in two, and between a lock's acquisition and the block that
    releases it, it leaves the lock taken for good: queues, executors and progress bars all have such moments.
    Outside the main thread, which alone gets signals, and where Ctrl-C is ignored: no change.
    """
    interrupt = Interrupt()
    before = signal.getsignal(signal.SIGINT)
    if current_thread() is not main_thread() or before in (signal.SIG_IGN, None):
        yield interrupt
        return
    signal.signal(signal.SIGINT, interrupt._request)
    try:
        yield interrupt
    finally:
        signal.signal(signal.SIGINT, before)
    if interrupt.requested:
        signal.raise_signal(signal.SIGINT)
