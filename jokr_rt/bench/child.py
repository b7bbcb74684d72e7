"""What runs in a process of its own: it is told its task on stdin, and answers on stdout, a line of JSON each.

A task is a generator function: its first answer is that it is ready, every further one is a turn, made when it is asked
for.
"""

import json
import os
import sys
import threading
import time
from collections.abc import Iterator
from importlib import import_module
from io import FileIO
from pathlib import Path
from queue import SimpleQueue
from typing import Any

from jokr_rt.errors import JokrError

Found = dict[str, Any]
_SECONDS_TO_END = 2.0


def main() -> None:
    """Answer until stdin ends."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what a library prints is not an answer
    requests = listen()
    request = json.loads(requests.get())
    for answer in _answers(request):
        answers.write(json.dumps(answer) + "\n")
        answers.flush()
        if not requests.get():
            break


def listen() -> "SimpleQueue[bytes]":
    """The lines of stdin as they come, at its end an empty one. Soon after that the process ends, whatever it is at.

    A child so does not outlive its parent, whatever became of that.
    """
    lines: SimpleQueue[bytes] = SimpleQueue()
    # Unbuffered: a thread that waits within a buffer holds its lock, which Python, when it ends, wants.
    stdin = FileIO(0, closefd=False)

    def run() -> None:
        for line in stdin:
            lines.put(line)
        lines.put(b"")
        time.sleep(_SECONDS_TO_END)  # for the main thread to end by itself
        os._exit(1)

    threading.Thread(target=run, daemon=True).start()
    return lines


def tell_peak_memory() -> None:
    """As the last line on stderr, in bytes."""
    print(peak_bytes(), file=sys.stderr)


def peak_bytes() -> int:
    """The most memory that this process has had at a time.

    Linux's own figure for this program alone: `getrusage` counts in what its parent had when it was started.
    """
    try:
        lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
        (kilobytes,) = (line.split()[1] for line in lines if line.startswith("VmHWM:"))
        return 1024 * int(kilobytes)
    except (OSError, ValueError):
        import resource

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def _answers(request: Found) -> Iterator[Found]:
    try:
        module, _, name = request["task"].rpartition(".")
        yield from getattr(import_module(module), name)(**request["arguments"])
    except JokrError as error:
        yield {"error": str(error)}
    except Exception as error:  # one that fails must not take the others with it
        yield {"error": " ".join(f"{type(error).__name__}: {error}".splitlines())}
