"""A camera that dies and comes back, again and again: one recording, time goes forward, and the slate says so."""

import threading
import time
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path

from jokr_rt.live import Controls, LiveOptions, run_live
from jokr_rt.live.figures import StreamFigures
from jokr_rt.video import read_video
from tests import cameras, passing

TRIES = 600


class Watcher:
    """Keeps the newest figures."""

    def __init__(self) -> None:
        self.newest: Sequence[StreamFigures] = ()
        self.said: list[str] = []

    def say(self, words: str) -> None:
        self.said.append(words)

    def figures(self, figures: Sequence[StreamFigures]) -> None:
        self.newest = figures

    def wait_for(self, condition: Callable[[StreamFigures], bool]) -> None:
        """Until the first stream's figures are so."""
        for _ in range(TRIES):
            if self.newest and condition(self.newest[0]):
                return
            time.sleep(0.1)
        raise AssertionError(f"never came: {self.newest}, {self.said}")


def test_five_deaths_of_a_camera(tmp_path: Path) -> None:
    small = cameras.numbered_clip(tmp_path / "small.mp4", 250)
    large = cameras.numbered_clip(tmp_path / "large.mp4", 250, width=128, height=96)
    port, recording = cameras.free_port(), tmp_path / "rec.mp4"
    options = LiveOptions(
        f"tcp://127.0.0.1:{port}", (str(recording),), stall=1.0, backoff=(0.1, 0.2), smooth=0, on_loss="slate"
    )
    watcher, controls, ended = Watcher(), Controls(), []
    running = threading.Thread(
        target=lambda: ended.append(run_live(passing.load, options, controls=controls, observer=watcher))
    )
    running.start()
    try:
        for death in range(6):
            clip = large if death == 3 else small
            with cameras.Camera(cameras.sending(clip, f"tcp://127.0.0.1:{port}?listen=1")):
                watcher.wait_for(lambda seen, death=death: seen.state == "live" and seen.reconnects == death)
                shown = watcher.newest[0].shown
                watcher.wait_for(lambda seen, shown=shown: seen.shown > shown + 10)
            covers = watcher.newest[0].covers
            watcher.wait_for(lambda seen, covers=covers: seen.state == "lost" and seen.covers > covers + 5)
    finally:
        controls.ask("quit")
        running.join(60)
    ((figures,),) = ended
    assert figures.reconnects == 5
    assert figures.captured == figures.shown + figures.dropped
    assert figures.failed == 0
    assert figures.sinks[0].shown == figures.shown + figures.covers
    frames = list(read_video(recording))
    assert len(frames) == figures.sinks[0].shown
    assert all(first.pts < second.pts for first, second in pairwise(frames))
    kinds = [_is_number(frame.rgb) for frame in frames]
    assert kinds.count(True) == figures.shown
    assert sum(was and not now for was, now in pairwise(kinds)) == 6  # so often the slate took over
    gaps = [second.pts_seconds - first.pts_seconds for first, second in pairwise(frames)]
    assert max(gaps) < 2.0  # the longest: until a silence counts as a loss


def _is_number(rgb) -> bool:  # type: ignore[no-untyped-def]
    try:
        cameras.number_of(rgb)
    except AssertionError:
        return False
    return True
