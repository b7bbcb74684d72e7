"""Whether a test leaves a thread behind."""

import threading

_before: set[threading.Thread] = set()


def note_threads() -> None:
    """Those that are there are not the test's."""
    _before.clear()
    _before.update(threading.enumerate())


def no_thread_is_left() -> bool:
    """Of ours, since the test began."""
    return not [each for each in threading.enumerate() if each.name.startswith("jokr") and each not in _before]
