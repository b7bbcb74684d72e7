"""What keeps a process that runs for weeks at the size that it has after its first minutes."""

import ctypes
import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress

TIDY_S = 60.0
"""Seconds between two full collections while streams run."""

_M_ARENA_MAX = -8  # of glibc's malloc.h


def share_one_heap() -> None:
    """Have all threads of this process take memory from one heap, where the C library is glibc; else do nothing.

    It gives each thread a heap of its own. Pictures are made in one thread and freed in another, so that each heap gets
    holes that the others cannot use: over minutes a process grows by megabytes though nothing in it does.
    """
    if sys.platform == "linux":
        with suppress(AttributeError):  # another C library
            ctypes.CDLL(None).mallopt(_M_ARENA_MAX, 1)


@contextmanager
def collecting_little() -> Iterator[None]:
    """Within the block full collections pass over what was there before: they take 0.1 ms, and not the time of a frame.

    They are worth having for the interpreter's lists of freed objects, too, which they empty, and which grow otherwise.
    """
    gc.collect()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()
