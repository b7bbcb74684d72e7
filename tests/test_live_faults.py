"""Whatever happens, in any order: no deadlock, nothing out of order, bounded latency, counts that add up."""

from collections.abc import Callable
from typing import Any, cast

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from jokr_rt.clock import sleep
from jokr_rt.errors import EngineError
from tests.live_doubles import NumberModel, Script, ScriptedOutput, VirtualClock
from tests.live_rig import FRAME_S, Rig, Spy, faulty


def check(rig: Rig, inference_s: float, oldest_s: float) -> None:
    """What must hold after any schedule. oldest_s: that a frame may be when inference begins."""
    for script, stream in zip(rig.scripts, rig.streams, strict=True):
        source = stream.source
        assert source.captured == len(script.captured)
        assert source.captured == stream.shown + source.dropped + stream.stale + stream.failed
        assert script.opened == script.closed
        for sink in cast(list[Spy], stream.sinks):
            live = [(number, age) for number, is_live, age, _ in sink.given if is_live]
            numbers = [number for number, _ in live]
            assert numbers == sorted(set(numbers))
            assert all(age <= oldest_s + inference_s + 1e-9 for _, age in live)
            times = [time for _, _, _, time in sink.given]
            assert all(first < second for first, second in zip(times, times[1:], strict=False))
            assert len(live) == stream.shown
            assert len(sink.given) == stream.shown + stream.covers == sink.shown + sink.dropped
            assert sink.queue_depth == 0


HANG = 3.0
"""Seconds: longer than the watchdog waits."""

frames = st.tuples(st.just("frames"), st.integers(1, 25), st.sampled_from([FRAME_S, FRAME_S / 4, FRAME_S / 2]))
step = st.one_of(
    frames,
    st.tuples(st.just("burst"), st.integers(1, 6)),
    st.tuples(st.just("corrupt"), st.integers(1, 3)),
    st.tuples(st.just("stall"), st.sampled_from([0.1, 0.6, 1.2])),
    st.just(("lose",)),
)
connection = st.one_of(st.lists(step, min_size=1, max_size=6), st.just([("refuse",)]))
connections = st.lists(connection, min_size=1, max_size=4).map(lambda scripts: [*scripts, [("frames", 50, FRAME_S)]])
write = st.sampled_from([0.0, 0.01, 0.1, 0.7, "fail", "hang"])
writes = st.lists(write, max_size=40)
faults = st.dictionaries(st.integers(1, 80), st.sampled_from([EngineError, RuntimeError, HANG]), max_size=8)


@settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow])
@given(connections, st.lists(writes, min_size=1, max_size=3), faults, st.sampled_from([0.1, 0.5, 1.0, 2.0]))
def test_any_schedule(
    connections: list[list[Any]], writes: list[list[Any]], faults: dict[int, Any], frames_of_inference: float
) -> None:
    clock, inference_s = VirtualClock(), frames_of_inference * FRAME_S
    model = NumberModel(faulty(faults, clock, inference_s))
    outputs = [ScriptedOutput(clock, each) for each in writes]
    rig = Rig(clock, model, [Script(connections)], [outputs], watchdog_s=1.0)
    rig.run()
    check(rig, inference_s, rig.options.stall if HANG in faults.values() else 2 * FRAME_S)


STEADY = [[("frames", 1000, FRAME_S)]]


def hanging(number: int, clock: VirtualClock, seconds: float) -> Callable[[str, int], None]:
    """An engine that is quick, and hangs for so long at the extraction of this number, the first time."""
    hung: list[int] = []

    def before(stage: str, frame: int) -> None:
        if stage == "extract" and frame >= number and not hung:
            hung.append(frame)
            sleep(clock, seconds)

    return before


def test_an_engine_that_hangs_is_left_behind_and_loaded_again() -> None:
    clock = VirtualClock()
    model = NumberModel(hanging(20, clock, 50))
    output = ScriptedOutput(clock)
    rig = Rig(clock, model, [Script(STEADY)], [[output]], watchdog_s=1.0)
    rig.run()
    stream = rig.streams[0]
    assert (rig.watchdog.hangs, model.forgotten, stream.failed) == (1, 1, 1)
    assert stream.source.captured == stream.shown + stream.source.dropped + stream.failed
    assert [words for words in rig.said if "has hung for more than 1 s, and is started again" in words]
    assert "before" in rig.said[0]  # the stack: the function above
    assert any("the engine hung for 1 s" in words for words in rig.said)
    last_live = [given for given in cast(Spy, stream.sinks[0]).given if given[1]][-1]
    assert last_live[0] > 80  # it went on to the end


def test_an_engine_that_hangs_ends_everything_where_that_is_wanted() -> None:
    clock = VirtualClock()
    output = ScriptedOutput(clock)
    model = NumberModel(hanging(20, clock, 50))
    rig = Rig(clock, model, [Script(STEADY)], [[output]], watchdog_s=1.0, on_hang="end")
    rig.run()
    stream = rig.streams[0]
    assert isinstance(stream.error, EngineError)
    assert str(stream.error) == "the engine hung for 1 s"
    assert output.closed == 1
    assert stream.shown == 19


def test_a_sink_that_hangs_is_opened_again_and_holds_nobody_up() -> None:
    clock = VirtualClock()
    hung, other = ScriptedOutput(clock, [0.0, 0.0, "hang"]), ScriptedOutput(clock)
    rig = Rig(clock, NumberModel(), [Script(STEADY)], [[hung, other]], watchdog_s=1.0)
    rig.run()
    stream = rig.streams[0]
    assert rig.watchdog.hangs == 1
    assert hung.opened == 2
    assert len(other.written) == stream.shown >= 98
    assert stream.failed == 0
    assert stream.source.dropped <= 1  # one that waited at the end
    assert stream.sinks[0].dropped > 20  # a second's worth, less the queue
    assert stream.error is None


def test_one_streams_failure_never_touches_another() -> None:
    clock = VirtualClock()
    good, bad = ScriptedOutput(clock), ScriptedOutput(clock)
    scripts = [Script(STEADY), Script([[("frames", 10, FRAME_S), ("crash",)]])]
    rig = Rig(clock, NumberModel(), scripts, [[good], [bad]])
    rig.run()
    first, second = rig.streams
    assert first.error is None
    assert first.shown >= 98
    assert "RuntimeError: a defect" in str(second.error)
    assert second.shown == 10
    assert (bad.opened, bad.closed) == (1, 1)
