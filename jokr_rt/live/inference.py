"""The one thread in which a process infers: streams hand it work, and what waits for one function goes as one batch.

A thread that hangs inside an engine cannot be ended. It can be left behind, with whatever it holds: `abandon` fails
what it was doing and what waits, and the next call starts another one.
"""

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from jokr_rt.clock import Clock
from jokr_rt.errors import EngineError

Work = Callable[[Sequence[Any]], Sequence[Any]]
"""Results for items, one each, in order."""


@dataclass(eq=False)
class _Job:
    work: Work
    item: Any
    done: bool = False
    result: Any = None
    error: BaseException | None = None

    def finish(self, result: Any = None, error: BaseException | None = None) -> None:
        if not self.done:
            self.done, self.result, self.error = True, result, error


class Inference:
    """Runs the work of any number of threads in one of its own, so that engines need not be safe for several.

    batches: how often more than one item went at once.
    """

    def __init__(self, clock: Clock) -> None:
        self.batches = 0
        self._clock = clock
        self._changed = threading.Condition()
        self._waiting: list[_Job] = []
        self._running: list[_Job] = []
        self._since: float | None = None
        self._thread: threading.Thread | None = None
        self._closed = False

    def __call__(self, work: Work, item: Any) -> Any:
        """`work([item])[0]`, together with other threads' items for the same work that wait.

        What fails in a batch is tried alone, so that a bad item is its own caller's only. Raises what `work` does;
        EngineError where it was abandoned or closed.
        """
        job = _Job(work, item)
        with self._changed:
            if self._closed:
                raise EngineError("inference has ended")
            self._waiting.append(job)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="jokr-infer", daemon=True)
                self._thread.start()
            self._changed.notify_all()
            while not job.done:
                self._clock.wait(self._changed, None)
        if job.error is not None:
            raise job.error
        return job.result

    @property
    def busy_s(self) -> float:
        """How long the present work has taken."""
        since = self._since
        return 0.0 if since is None else self._clock.now() - since

    @property
    def thread(self) -> threading.Thread | None:
        return self._thread

    def abandon(self, reason: str) -> None:
        """Leave a hung thread behind: its work and all that waits fail for this reason; the next call has a new one."""
        with self._changed:
            self._thread = None
            self._fail(reason)

    def close(self, seconds: float) -> None:
        """Fail what waits, and let the thread end; wait for it so long at most."""
        with self._changed:
            self._closed = True
            thread = self._thread
            self._fail("inference has ended")
        if thread is not None:
            thread.join(seconds)

    def _fail(self, reason: str) -> None:
        for job in (*self._running, *self._waiting):
            job.finish(error=EngineError(reason))
        self._waiting, self._running, self._since = [], [], None
        self._changed.notify_all()

    def _run(self) -> None:
        me = threading.current_thread()
        while True:
            with self._changed:
                while not self._waiting and not self._closed and self._thread is me:
                    self._clock.wait(self._changed, None)
                if self._closed or self._thread is not me:
                    return
                work = self._waiting[0].work
                jobs = [job for job in self._waiting if job.work == work]
                self._waiting = [job for job in self._waiting if job.work != work]
                self._running, self._since = jobs, self._clock.now()
            outcomes = _outcomes(work, [job.item for job in jobs])
            with self._changed:
                if self._thread is not me:
                    return
                for job, (result, error) in zip(jobs, outcomes, strict=True):
                    job.finish(result, error)
                self.batches += len(jobs) > 1
                self._running, self._since = [], None
                self._changed.notify_all()


def _outcomes(work: Work, items: list[Any]) -> list[tuple[Any, BaseException | None]]:
    try:
        return [(result, None) for result in work(items)]
    except Exception as error:
        if len(items) == 1:
            return [(None, error)]
        return [outcome for item in items for outcome in _outcomes(work, [item])]
