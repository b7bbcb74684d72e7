"""What TensorRT says while it works: its log, the progress of a build, and what it prints."""

import os
import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager

import tensorrt as trt

from jokr_rt.engines import Monitor
from jokr_rt.errors import EngineError
from jokr_rt.interrupt import Interrupt

_STEPS = 1000  # of a progress bar


class Log(trt.ILogger):
    """Keeps TensorRT's last words, for the message of the call that then fails."""

    def __init__(self) -> None:
        trt.ILogger.__init__(self)
        self._errors: deque[str] = deque(maxlen=1)

    def log(self, severity: trt.ILogger.Severity, msg: str) -> None:
        if severity in (trt.ILogger.Severity.ERROR, trt.ILogger.Severity.INTERNAL_ERROR):
            self._errors.append(" ".join(msg.split()))

    def failure(self, what: str) -> EngineError:
        """An error of TensorRT in one line; out of memory also says what to do."""
        reason = self._errors.pop() if self._errors else "TensorRT gives no reason"
        is_memory = "memory" in reason.lower()
        hint = "; free some on the GPU, or build with a smaller --workspace or --max-batch" if is_memory else ""
        return EngineError(f"tensorrt: {what}: {reason}{hint}")


LOG = Log()
"""One for the process: TensorRT keeps the first that it is given."""


@contextmanager
def stdout_to_stderr() -> Iterator[None]:
    """TensorRT's default logger prints on stdout, past Python, and stdout is for what a command was asked for."""
    stdout = os.dup(1)
    os.dup2(2, 1)
    try:
        yield
    finally:
        os.dup2(stdout, 1)
        os.close(stdout)


class Progress(trt.IProgressMonitor):
    """Turns TensorRT's phases, which lie within each other, into one bar; a Ctrl-C makes it give the build up."""

    def __init__(self, task: str, monitor: Monitor, interrupt: Interrupt) -> None:
        trt.IProgressMonitor.__init__(self)
        self._task, self._monitor, self._interrupt = task, monitor, interrupt
        self._lock = threading.Lock()  # TensorRT's own threads call, too
        self._phases: dict[str, tuple[str | None, int, int]] = {}  # parent, steps, steps done
        self._shown = 0

    def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
        with self._lock:
            self._phases[phase_name] = parent_phase, max(1, num_steps), 0

    def step_complete(self, phase_name: str, step: int) -> bool:
        with self._lock:
            if phase_name in self._phases:
                parent, steps, _ = self._phases[phase_name]
                self._phases[phase_name] = parent, steps, step + 1
            self._show(int(_STEPS * self._fraction(None)))
        return not self._interrupt.requested

    def phase_finish(self, phase_name: str) -> None:
        with self._lock:
            self._phases.pop(phase_name, None)

    def finish(self) -> None:
        self._show(_STEPS)

    def _show(self, done: int) -> None:
        self._shown = max(self._shown, min(done, _STEPS))
        self._monitor.step(self._task, self._shown, _STEPS)

    def _fraction(self, parent: str | None) -> float:
        """How much of the phases within `parent` is done: of each its steps, and the part of the next one."""
        within = [(name, steps, done) for name, (its, steps, done) in self._phases.items() if its == parent]
        return max(((done + self._fraction(name)) / steps for name, steps, done in within), default=0.0)
