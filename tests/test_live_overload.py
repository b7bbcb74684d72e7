"""A source that is faster than the engine: what is shown stays new, and nothing piles up."""

import gc
import tracemalloc
from collections.abc import Sequence
from typing import cast

from jokr_rt.live.figures import StreamFigures
from tests.live_doubles import NumberModel, Script, ScriptedOutput, VirtualClock
from tests.live_rig import FRAME_S, Rig, Spy, faulty


class Forgetful(Rig):
    """Throws away every second what the doubles keep, and takes the size of what is left."""

    def figures(self, figures: Sequence[StreamFigures]) -> None:
        self.figures_seen[:] = [figures]
        self.scripts[0].captured.clear()
        self.outputs[0][0].written.clear()
        cast(Spy, self.streams[0].sinks[0]).given.clear()
        gc.collect()
        self.sizes.append(tracemalloc.get_traced_memory()[0])


def test_at_four_times_the_engines_speed_latency_and_memory_are_flat() -> None:
    clock = VirtualClock()
    model = NumberModel(faulty({}, clock, FRAME_S))
    script = Script([[("frames", 1_000_000, FRAME_S / 4)]])
    rig = Forgetful(clock, model, [script], [[ScriptedOutput(clock, [0.005] * 100_000)]], seconds=30.0)
    tracemalloc.start()
    try:
        (seen,) = rig.run()
    finally:
        tracemalloc.stop()
    stream = rig.streams[0]
    assert seen.captured > 2950
    assert 0.24 < seen.shown / seen.captured < 0.26
    assert seen.captured == seen.shown + seen.dropped
    assert stream.latency.percentile(99) < 3 * FRAME_S
    assert stream.sinks[0].latency.percentile(99) < 3 * FRAME_S
    assert stream.sinks[0].dropped == 0
    growth = min(rig.sizes[20:-1]) - min(rig.sizes[5:20])
    assert growth < 20_000  # bytes; a picture for each of 300 frames would be 230,000
