"""Finds what hangs, says where, and has it started again or ended."""

import sys
import threading
import traceback
from collections.abc import Callable, Sequence

from jokr_rt.clock import Clock
from jokr_rt.errors import EngineError, OutputError
from jokr_rt.live.inference import Inference
from jokr_rt.live.loop import Stream
from jokr_rt.live.model import LiveModel
from jokr_rt.live.sink import Sink

ON_HANG = ("restart", "end")


class Watchdog:
    """Looks, whenever it is called, for work that has taken longer than `seconds`: of the engine, a sink or a stream.

    on_hang: "restart" leaves the hung thread behind and goes on with a new one: the engine is loaded again, the sink
    opened again. (A stream's own thread cannot be started again; the stream ends, the others go on.) "end" ends the
    streams that the hung part serves, with their files finished. say: told what hangs, with all threads' stacks.
    """

    def __init__(
        self,
        seconds: float,
        on_hang: str,
        inference: Inference,
        models: Sequence[LiveModel],
        streams: Sequence[Stream],
        clock: Clock,
        say: Callable[[str], None],
    ) -> None:
        self.hangs = 0
        self._seconds, self._on_hang = seconds, on_hang
        self._inference, self._models, self._streams = inference, models, streams
        self._clock, self._say = clock, say

    def look(self) -> None:
        if self._inference.busy_s > self._seconds and not any(model.is_loading for model in self._models):
            self._engine_hangs()
        for stream in self._streams:
            for sink in list(stream.sinks):
                if sink.busy_s > self._seconds:
                    self._sink_hangs(stream, sink)
            if self._is_stuck(stream):
                self._bark(f"stream {stream.name}", "ended")
                stream.leave_behind(EngineError(f"{stream.name}: hung for {self._seconds:g} s, and was ended"))

    def _is_stuck(self, stream: Stream) -> bool:
        """One that waits for an engine which loads, or is being given up, is not."""
        if not stream.is_showing or stream.left_behind or self._inference.busy_s > 0:
            return False
        return self._clock.now() - stream.beat_s > 2 * self._seconds

    def _engine_hangs(self) -> None:
        reason = f"the engine hung for {self._seconds:g} s"
        self._bark("the engine", "started again" if self._on_hang == "restart" else "ended")
        for model in self._models:
            model.forget()
        self._inference.abandon(reason)
        if self._on_hang == "end":
            for stream in self._streams:
                stream.fail(EngineError(reason))

    def _sink_hangs(self, stream: Stream, sink: Sink) -> None:
        reason = f"{sink.name} hung for {self._seconds:g} s"
        self._bark(f"{stream.name}: {sink.name}", "opened again" if self._on_hang == "restart" else "ended")
        if self._on_hang == "restart":
            sink.restart(reason)
        else:
            stream.fail(OutputError(reason))

    def _bark(self, what: str, fate: str) -> None:
        self.hangs += 1
        self._say(f"{what} has hung for more than {self._seconds:g} s, and is {fate}; the threads' stacks:\n{stacks()}")


def stacks() -> str:
    """Where every thread is, innermost call last."""
    names = {thread.ident: thread.name for thread in threading.enumerate()}
    told = []
    for ident, frame in sys._current_frames().items():
        told.append(f"thread {names.get(ident, ident)}:\n{''.join(traceback.format_stack(frame))}")
    return "\n".join(told)
