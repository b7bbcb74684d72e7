"""The time that all of live runs on, so that a test can run it on a virtual one.

Nothing in jokr_rt.live calls `time` itself; a waiter holds its condition, as with `threading.Condition.wait`, and waits
in a loop on a predicate, since a clock may wake it for nothing.
"""

import threading
import time
from typing import Protocol


class Clock(Protocol):
    """What all waiting goes through."""

    def now(self) -> float:
        """Seconds, monotonic, from any origin."""
        ...

    def wait(self, condition: threading.Condition, seconds: float | None) -> bool:
        """Wait on a condition that the caller holds; false after `seconds` (None: no limit)."""
        ...


class RealClock:
    """The machine's."""

    def now(self) -> float:
        return time.monotonic()

    def wait(self, condition: threading.Condition, seconds: float | None) -> bool:
        return condition.wait(seconds)


def sleep(clock: Clock, seconds: float) -> None:
    """Let time pass on a clock."""
    condition, until = threading.Condition(), clock.now() + seconds
    with condition:
        while (left := until - clock.now()) > 0:
            clock.wait(condition, left)
