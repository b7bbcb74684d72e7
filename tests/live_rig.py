"""A whole session of scripted streams on a virtual clock; see `tests.live_doubles`."""

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

from jokr_rt.clock import sleep
from jokr_rt.live.controls import Controls
from jokr_rt.live.figures import StreamFigures
from jokr_rt.live.inference import Inference
from jokr_rt.live.loop import Stream
from jokr_rt.live.model import LiveModel, Target
from jokr_rt.live.options import LiveOptions
from jokr_rt.live.picture import Pictures
from jokr_rt.live.session import Session
from jokr_rt.live.sink import Shown, Sink, SinkOptions
from jokr_rt.live.source import LiveSource
from jokr_rt.live.watchdog import Watchdog
from jokr_rt.video.capture import CaptureOptions
from tests.live_doubles import NumberModel, Script, ScriptedCapture, ScriptedOutput, VirtualClock, number_of

FRAME_S = 0.04
OPTIONS = LiveOptions("scripted", ("scripted",), smooth=0, stall=0.5)


class Spy(Sink):
    """A sink that also keeps what it was given: (number, live, age when put, time_s)."""

    def __init__(self, output: ScriptedOutput, clock: VirtualClock, options: SinkOptions) -> None:
        super().__init__("spy", lambda: output, options, clock)
        self.given: list[tuple[int, bool, float, Any]] = []
        self._spy_clock = clock

    def put(self, shown: Shown) -> None:
        age = self._spy_clock.now() - shown.captured_s
        self.given.append((number_of(shown.image), shown.live, age, shown.time_s))
        super().put(shown)


@dataclass
class Rig:
    """Streams of scripts into scripted outputs, on a virtual clock; `run` is a whole session."""

    clock: VirtualClock
    model: NumberModel
    scripts: Sequence[Script]
    outputs: Sequence[Sequence[ScriptedOutput]]
    options: LiveOptions = OPTIONS
    watchdog_s: float | None = None
    on_hang: str = "restart"
    seconds: float = 4.0
    said: list[str] = field(default_factory=list)
    figures_seen: list[Sequence[StreamFigures]] = field(default_factory=list)
    streams: list[Stream] = field(default_factory=list)
    watchdog: Watchdog | None = None
    inference: Inference | None = None
    sizes: list[int] = field(default_factory=list)
    more_targets: Sequence[NumberModel] = ()
    recorded: dict[str, ScriptedOutput] = field(default_factory=dict)
    presses: Sequence[tuple[float, str]] = ()
    """(Seconds after the start, action) in order."""

    def say(self, words: str) -> None:
        self.said.append(words)

    def figures(self, figures: Sequence[StreamFigures]) -> None:
        self.figures_seen.append(figures)

    def stream(self, script: Script, outputs: Sequence[ScriptedOutput], inference: Inference) -> Stream:
        clock = self.clock
        targets = cast(Sequence[Target], [self.model, *self.more_targets])
        pictures = Pictures(self.options, targets, inference, None, clock)
        source = LiveSource(
            "scripted",
            CaptureOptions(stall_s=self.options.stall),
            clock,
            retries=self.options.retries,
            opener=lambda source, options, clock: ScriptedCapture(script, self.clock),
        )
        sinks = [Spy(output, clock, self.options.sink()) for output in outputs]
        return Stream(self.options, source, pictures, sinks, clock, self._record, self.say)

    def _record(self, spec: str) -> Sink:
        self.recorded[spec] = ScriptedOutput(self.clock)
        return Spy(self.recorded[spec], self.clock, self.options.sink())

    def run(self, controls: Controls | None = None) -> list[StreamFigures]:
        controls = controls or Controls()
        inference = self.inference = Inference(self.clock)
        with self.clock.running():
            pairs = zip(self.scripts, self.outputs, strict=True)
            self.streams = [self.stream(script, outputs, inference) for script, outputs in pairs]
            if self.watchdog_s is not None:
                models = cast(Sequence[LiveModel], [self.model])
                self.watchdog = Watchdog(
                    self.watchdog_s, self.on_hang, inference, models, self.streams, self.clock, self.say
                )
            quitting = threading.Thread(target=self._quit_later, args=(controls,), name="quit")
            quitting.start()
            Session(self.streams, inference, self.watchdog, controls, self, self.clock).run()
            quitting.join()
            assert self._all_gone()
        return list(self.figures_seen[-1])

    def _quit_later(self, controls: Controls) -> None:
        start = self.clock.now()
        for at, action in (*self.presses, (self.seconds, "quit")):
            sleep(self.clock, start + at - self.clock.now())
            controls.ask(action)

    def _all_gone(self) -> bool:
        """Whether every thread ends, those that were left behind in a hang too, once that is over."""
        for thread in self.clock.others():
            thread.join(30)
        return not self.clock.others()


def faulty(plan: dict[int, Any], clock: VirtualClock, seconds: float) -> Callable[[str, int], None]:
    """Half of `seconds` for extracting, half for drawing; at a number in `plan` the engine raises, or takes so long."""

    def before(stage: str, number: int) -> None:
        sleep(clock, seconds / 2)
        fault = plan.get(number)
        if stage == "extract" and isinstance(fault, float):
            sleep(clock, fault)
        elif stage == "extract" and fault is not None:
            raise fault("broken")

    return before
