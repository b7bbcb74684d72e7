"""Processes for what is measured: one each, so that engines do not share threads, memory or a warm cache."""

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import IO, Any

from jokr_rt.errors import EngineError

Found = dict[str, Any]
Task = Callable[..., Iterator[Found]]
_TASK = "from jokr_rt.bench.child import main; main()"
_COMMAND = """
import atexit
from jokr_rt.bench.child import listen, tell_peak_memory
listen()
atexit.register(tell_peak_memory)
from jokr_rt.cli import main
main()
"""
_SECONDS_TO_END = 10.0


class Process:
    """A Python that runs `program`, in this interpreter and with this package. Its words on stderr are kept aside.

    It is in a session of its own: Ctrl-C is for the parent to hear, who ends its children.
    """

    def __init__(self, program: str, *arguments: str) -> None:
        self._words: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115, closed with the process
        self._process = subprocess.Popen(
            [sys.executable, "-c", program, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._words,
            env=os.environ | {"PYTHONPATH": _python_path()},
            start_new_session=True,
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self.requests, self.answers = self._process.stdin, self._process.stdout

    def words(self) -> str:
        """What it has said on stderr."""
        self._words.seek(0)
        return self._words.read().decode(errors="replace").strip()

    @property
    def pid(self) -> int:
        return self._process.pid

    def kill(self) -> None:
        """At once."""
        self._process.kill()

    def wait(self) -> int:
        """Until it ends by itself. Returns its exit code, negative for a signal's."""
        return self._process.wait()

    def let_go(self) -> None:
        """Tell it to end."""
        with suppress(BrokenPipeError):  # it has already
            self.requests.close()

    def close(self) -> None:
        """End it, by force if it takes long, and what it has started."""
        self.let_go()
        try:
            self._process.wait(_SECONDS_TO_END)
        except subprocess.TimeoutExpired:
            self.kill()
            self.wait()
        with suppress(ProcessLookupError):  # there is nothing left
            os.killpg(self.pid, signal.SIGKILL)
        self.answers.close()
        self._words.close()


class Child(Process):
    """A task (see `jokr_rt.bench.child`), which answers when it is ready, and then once for every turn."""

    def __init__(self, task: Task, arguments: Found) -> None:
        super().__init__(_TASK)
        self.task, self.arguments = task.__name__, arguments
        self._send({"task": f"{task.__module__}.{task.__name__}", "arguments": arguments})

    def turn(self) -> Found:
        """Ask for the next answer. Raises EngineError as `answer` does."""
        self._send({})
        return self.answer()

    def answer(self) -> Found:
        """Wait for it. Raises EngineError with the reason, in one line, where there will be none."""
        line = self.answers.readline()
        if not line:
            raise EngineError(f"its process ended with {self.wait()}: {_last_line(self.words()) or 'without a word'}")
        answer: Found = json.loads(line)
        if "error" in answer:
            raise EngineError(answer["error"])
        return answer

    def _send(self, request: Found) -> None:
        with suppress(BrokenPipeError):  # what it would answer will be missed, and the reason asked for
            self.requests.write(json.dumps(request).encode() + b"\n")
            self.requests.flush()


class Processes:
    """Starts processes, and ends them all when it is left, however that comes about."""

    def __init__(self) -> None:
        self._running: list[Process] = []

    def __enter__(self) -> "Processes":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for process in self._running:
            process.let_go()  # all at once
        for process in self._running:
            process.close()
        self._running.clear()

    def child(self, task: Task, **arguments: Any) -> Child:
        """A task, which stays until it is ended. It is a function of a module; its arguments are what JSON can hold."""
        child = Child(task, arguments)
        self._running.append(child)
        return child

    def once(self, task: Task, **arguments: Any) -> Found:
        """The one answer of a task. Raises EngineError with the reason where there is none."""
        child = self.child(task, **arguments)
        found = child.answer()
        self.end(child)
        return found

    def jokr(self, *arguments: str | Path) -> Found:
        """What a command prints with --json, and "peak_bytes", the most memory it had. Raises EngineError."""
        process = Process(_COMMAND, *map(str, arguments), "--json")
        self._running.append(process)
        out = process.answers.read()
        code = process.wait()
        *words, peak = process.words().splitlines() or [""]
        self.end(process)
        if code or not peak.isdigit():
            reason = _last_line("\n".join(words)).removeprefix("jokr: error: ")
            raise EngineError(reason or f"jokr {arguments[0]} ended with {code}")
        return json.loads(out) | {"peak_bytes": int(peak)}

    def end(self, process: Process) -> None:
        """End one that was started here."""
        process.close()
        self._running.remove(process)


def _python_path() -> str:
    """So that a child finds what this process finds."""
    return os.pathsep.join(path for path in sys.path if path)


def _last_line(words: str) -> str:
    return words.splitlines()[-1] if words else ""
