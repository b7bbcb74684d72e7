"""All live streams of a process: one engine, one thread for each stream, and one that watches over them."""

import gc
import logging
import threading
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Protocol

from jokr_rt.bundle import open_bundle
from jokr_rt.clock import Clock, RealClock, sleep
from jokr_rt.engines import Engine, load_engine
from jokr_rt.errors import JokrError, UsageError
from jokr_rt.live.changes import Changes
from jokr_rt.live.controls import Controls
from jokr_rt.live.figures import Meter, StreamFigures, summary
from jokr_rt.live.inference import Inference
from jokr_rt.live.loop import CLOSE_S, Stream
from jokr_rt.live.masks import open_mask
from jokr_rt.live.memory import TIDY_S, collecting_little
from jokr_rt.live.model import LiveModel, Load
from jokr_rt.live.options import LiveOptions
from jokr_rt.live.picture import Pictures
from jokr_rt.live.prometheus import serve_metrics
from jokr_rt.live.sink import Sink
from jokr_rt.live.sinks import open_sink
from jokr_rt.live.source import LiveSource
from jokr_rt.live.watchdog import ON_HANG, Watchdog
from jokr_rt.retarget import Model

_TICK_S = 0.05
_LAST_FRAME_S = 1.0
SOURCE_CLOSE_S = 3.0
FIGURES_S = 1.0
"""Seconds between two lines of figures."""

_log = logging.getLogger("jokr_rt.live")


class Observer(Protocol):
    """Who is told what happens. All is called in the thread of `Session.run`, but `say`, which any thread calls."""

    def say(self, words: str) -> None:
        """Something happened; one line, but for the stacks of what hangs."""
        ...

    def figures(self, figures: Sequence[StreamFigures]) -> None:
        """Every second, and at the end: of every stream, of the time since the last call."""
        ...


class _Log:
    def say(self, words: str) -> None:
        _log.warning("%s", words)

    def figures(self, figures: Sequence[StreamFigures]) -> None:
        pass


class Session:
    """Streams that share a process and its inference. `run` returns when all have ended, or `controls` asked for it."""

    def __init__(
        self,
        streams: Sequence[Stream],
        inference: Inference,
        watchdog: Watchdog | None,
        controls: Controls,
        observer: Observer,
        clock: Clock,
    ) -> None:
        self.streams = streams
        self._inference, self._watchdog, self._controls = inference, watchdog, controls
        self._observer, self._clock = observer, clock
        self._meters = [Meter(stream) for stream in streams]
        self._changes = [Changes(stream, observer.say) for stream in streams]

    def run(self) -> None:
        for stream in self.streams:
            stream.thread.start()
        pause, next_figures_s = threading.Condition(), self._clock.now() + FIGURES_S
        next_tidy_s = self._clock.now() + TIDY_S
        try:
            while self._is_going() and not self._controls.quit:
                with pause:
                    self._clock.wait(pause, _TICK_S)
                for each in self._changes:
                    each.tell()
                if self._watchdog is not None:
                    self._watchdog.look()
                for action in self._controls.actions():
                    self._do(action)
                if (now := self._clock.now()) >= next_figures_s:
                    next_figures_s = max(next_figures_s + FIGURES_S, now)
                    self._tell()
                if now >= next_tidy_s:
                    next_tidy_s = now + TIDY_S
                    gc.collect()
        finally:
            self._stop()
        self._tell()

    def _is_going(self) -> bool:
        return any(stream.thread.is_alive() and not stream.left_behind for stream in self.streams)

    def _do(self, action: str) -> None:
        if action == "statistics":
            for stream in self.streams:
                self._observer.say(summary(Meter(stream).read(self._clock.now())))
        else:
            for stream in self.streams:
                stream.do(action)

    def _tell(self) -> None:
        now = self._clock.now()
        self._observer.figures([meter.read(now) for meter in self._meters])

    def _stop(self) -> None:
        """End every stream after its present frame; a frame that does not come to its end fails."""
        for stream in self.streams:
            stream.stop()
        until = self._clock.now() + _LAST_FRAME_S
        while any(stream.is_showing for stream in self.streams) and self._clock.now() < until:
            sleep(self._clock, _TICK_S)
        self._inference.close(0)
        for stream in self.streams:
            if not stream.left_behind:
                stream.thread.join(SOURCE_CLOSE_S + (1 + len(stream.sinks)) * CLOSE_S)
            if stream.thread.is_alive() and not stream.left_behind:
                stream.leave_behind(JokrError(f"{stream.name}: did not end, and was left behind"))


def run_live(
    bundle: str | Path | Load,
    streams: LiveOptions | Sequence[LiveOptions],
    *,
    engine: str = "auto",
    precision: str | None = None,
    target: Sequence[str | Path | Load] = (),
    watchdog: float | None = None,
    on_hang: str = "restart",
    prometheus: int | None = None,
    controls: Controls | None = None,
    observer: Observer | None = None,
    clock: Clock | None = None,
) -> list[StreamFigures]:
    """Retarget live streams until they end or `controls` says so; returns their figures since the start.

    bundle: its path, or what loads a model and its engine. engine, precision: see `jokr_rt.engines.load_engine`.
    target: more bundles, to which the key n switches; without any it switches to the other direction.
    watchdog: seconds that an engine, a sink or a stream may hang; None is for good. on_hang: see
    `jokr_rt.live.watchdog.Watchdog`. prometheus: port of the figures on 127.0.0.1. observer: told what happens; without
    one it is logged.

    Raises, before anything starts, UsageError, InputError, OutputError, BundleError, EngineError; and at the end, with
    all outputs finished, what a stream has failed with.
    """
    every = [streams] if isinstance(streams, LiveOptions) else list(streams)
    _check(every, watchdog, on_hang)
    clock, observer, controls = clock or RealClock(), observer or _Log(), controls or Controls()
    models = [LiveModel(_loader(each, engine, precision), len(every) > 1) for each in (bundle, *target)]
    inference = Inference(clock)
    with ExitStack() as stack:
        for model in models:
            stack.callback(model.close)
        stack.callback(inference.close, _LAST_FRAME_S)
        begins = [_prepare(options, models, inference, clock, observer.say, stack) for options in every]
        started = [begin() for begin in begins]  # no source plays while another stream's engine is loaded
        dog = None
        if watchdog is not None:
            dog = Watchdog(watchdog, on_hang, inference, models, started, clock, observer.say)
        if prometheus is not None:
            url = stack.enter_context(serve_metrics(prometheus, lambda: _since_start(started, clock)))
            observer.say(f"figures for Prometheus: {url}")
        with collecting_little():
            Session(started, inference, dog, controls, observer, clock).run()
        figures = _since_start(started, clock)
    _raise_failures(started)
    return figures


def _check(streams: Sequence[LiveOptions], watchdog: float | None, on_hang: str) -> None:
    if not streams:
        raise UsageError("no stream; a configuration needs at least one [[stream]]")
    if on_hang not in ON_HANG:
        raise UsageError(f"unknown on-hang {on_hang!r}; choose {' or '.join(ON_HANG)}")
    if watchdog is not None and not watchdog > 0:
        raise UsageError(f"watchdog must be a time above 0 s, not {watchdog}")
    for what, values in (
        ("name", [options.name for options in streams]),
        ("output", [output for options in streams for output in options.output if output != "preview"]),
    ):
        twice = {value for value in values if values.count(value) > 1}
        if twice:
            raise UsageError(f"{what} {min(twice)} is there twice; each needs its own")
    for options in streams:
        options.check()


def _loader(bundle: str | Path | Load, engine: str, precision: str | None) -> Load:
    if not isinstance(bundle, (str, Path)):
        return bundle

    def load() -> tuple[Model, Engine]:
        opened = open_bundle(bundle)
        return opened, load_engine(engine, opened, precision)

    return load


def _prepare(
    options: LiveOptions,
    models: Sequence[LiveModel],
    inference: Inference,
    clock: Clock,
    say: Callable[[str], None],
    stack: ExitStack,
) -> Callable[[], Stream]:
    """All of a stream but its source, with which it begins. What was opened is closed by `stack`."""
    direction = models[0].direction(options.direction)  # its name there; the other models' creatures have others
    targets = [models[0].target(direction, options.appearance)]
    targets += [model.target(direction) for model in models[1:]]
    for each in targets:
        inference(each.load, None)
    if len(targets) == 1:  # the other direction is loaded when somebody asks for it
        targets.append(models[0].target(models[0].other(direction)))
    pictures = Pictures(options, targets, inference, open_mask(options.mask, options.learn), clock)

    def open_output(spec: str) -> Sink:
        sink = open_sink(spec, (pictures.width, pictures.height), options.sink(), clock)
        stack.callback(_close_quietly, sink)
        return sink

    sinks = [open_output(spec) for spec in options.output]
    say(f"{options.name}: {pictures.target.name} on {models[0].engine}, to {', '.join(sink.name for sink in sinks)}")

    def begin() -> Stream:
        capture = options.capture(pictures.target.model.size)
        source = LiveSource(options.input, capture, clock, retries=options.retries, backoff=options.backoff)
        stack.callback(source.close)
        return Stream(options, source, pictures, sinks, clock, open_output, say)

    return begin


def _close_quietly(sink: Sink) -> None:
    with suppress(JokrError):  # the stream that had it has told
        sink.close(0)


def _since_start(streams: Sequence[Stream], clock: Clock) -> list[StreamFigures]:
    return [Meter(stream).read(clock.now()) for stream in streams]


def _raise_failures(streams: Sequence[Stream]) -> None:
    """The one error, or one that tells of several."""
    failed = [(stream, stream.error) for stream in streams if stream.error is not None]
    if not failed:
        return
    if len(streams) == 1:
        raise failed[0][1]
    told = "; ".join(f"{stream.name}: {error}" for stream, error in failed)
    raise type(failed[0][1])(f"{len(failed)} of {len(streams)} streams failed: {told}")
