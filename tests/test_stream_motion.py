"""Motion out of a clip and into a video, from Python: in order, in time, and what is left when somebody ends it."""

import signal
import threading
import time
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from jokr_rt import Retargeter, read_video
from jokr_rt.edits import Edits
from jokr_rt.engines.stages import in_order
from jokr_rt.errors import EngineError, InputError, UsageError
from jokr_rt.stream import find_tracks, render_stream, retarget_stream
from jokr_rt.tracks import Tracks
from tests import clips
from tests.threads import no_thread_is_left


@pytest.mark.parametrize("workers", [1, 2, 3])
def test_results_come_in_the_order_of_the_items_however_long_each_takes(workers: int) -> None:
    """And no more items are taken than can be worked on, and one."""
    taken: list[int] = []
    busy, most = [0], [0]
    counting = threading.Lock()

    def items() -> Iterator[int]:
        for number in range(12):
            taken.append(number)
            yield number

    def call(number: int) -> int:
        with counting:
            busy[0] += 1
            most[0] = max(most[0], busy[0])
        time.sleep(0.02 if number % 3 == 0 else 0.001)
        with counting:
            busy[0] -= 1
        return number * 10

    for done, result in enumerate(in_order(call, items(), workers)):
        assert result == done * 10
        assert len(taken) <= done + workers + 1
    assert len(taken) == 12
    assert most[0] <= workers
    assert no_thread_is_left()


@pytest.mark.parametrize("workers", [1, 2])
def test_what_one_raises_comes_in_its_place(workers: int) -> None:
    def call(number: int) -> int:
        if number == 3:
            raise EngineError("the third")
        return number

    results = in_order(call, range(9), workers)
    assert [next(results) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(EngineError, match="the third"):
        next(results)
    assert no_thread_is_left()


@pytest.mark.parametrize("mode", ["latency", "throughput"])
def test_each_half_of_the_way_gives_what_single_frames_do(tiny_bundle: Path, tmp_path: Path, mode: str) -> None:
    clip = clips.video(tmp_path / "in.mp4", 9)
    retargeter = Retargeter(tiny_bundle, mode=mode)
    frames = list(read_video(clip, size=64))
    found = list(retargeter.extract_all((frame, None) for frame in frames))
    drawn = list(retargeter.draw_all(keypoints for keypoints, _ in found))
    assert len(found) == len(drawn) == 9
    for frame, (keypoints, confidence), image in zip(frames, found, drawn, strict=True):
        single = retargeter.retarget(frame)
        assert np.array_equal(keypoints, single.keypoints)
        assert np.array_equal(confidence, single.confidence)
        assert np.array_equal(image, single.image.rgb)


class Enough(Exception):
    """Raised by whoever shows the progress."""


def test_whoever_shows_the_progress_can_end_it(tiny_bundle: Path, tmp_path: Path) -> None:
    """While the source is read nothing is left, and while it is drawn, what was drawn."""
    clip, output, retargeter = clips.video(tmp_path / "in.mp4", 20), tmp_path / "out.mp4", Retargeter(tiny_bundle)
    told: list[tuple[int, int | None]] = []

    def end_at(last: int) -> None:
        told.clear()

        def progress(done: int, total: int | None) -> None:
            told.append((done, total))
            if done == last:
                raise Enough

        with pytest.raises(Enough):
            retarget_stream(retargeter, clip, output, edits=Edits(smooth=1.0), progress=progress)
        assert no_thread_is_left()

    end_at(7)
    assert sorted(tmp_path.iterdir()) == [clip]
    end_at(31)
    assert told == [(done, 40) for done in range(1, 32)]
    kept = list(read_video(tmp_path / "out.mp4.part"))
    assert 4 <= len(kept) <= 11
    assert not output.exists()


def test_progress_never_goes_back(tiny_bundle: Path, tmp_path: Path) -> None:
    """Of motion that becomes shorter: so many frames are read, and fewer are drawn."""
    clip, told = clips.video(tmp_path / "in.mp4", 21), []
    retarget_stream(
        Retargeter(tiny_bundle),
        clip,
        tmp_path / "out.mp4",
        edits=Edits(speed=4.0),
        progress=lambda *update: told.append(update),
    )
    assert told == [(done, 42) for done in range(1, 22)] + [(done, 27) for done in range(22, 28)]


def test_ctrl_c_while_the_motion_is_found(tiny_bundle: Path, tmp_path: Path) -> None:
    clip, retargeter = clips.video(tmp_path / "in.mp4", 40), Retargeter(tiny_bundle)
    seen: list[int] = []

    def press(done: int, total: int | None) -> None:
        seen.append(done)
        if done == 5:
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        find_tracks(retargeter, clip, progress=press)
    assert 5 <= len(seen) < 40
    assert no_thread_is_left()


def test_motion_of_more_frames_than_are_held(
    tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("jokr_rt.stream.MAX_POINTS", 65)
    clip = clips.video(tmp_path / "in.mp4", 12)
    with pytest.raises(InputError, match=r"in.mp4: motion of more than 6 frames is not held; cut it first"):
        find_tracks(Retargeter(tiny_bundle), clip)
    assert no_thread_is_left()


def test_a_clip_that_became_shorter_between_its_two_readings(
    tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, output = clips.folder(tmp_path / "frames", clips.noise(6, 64, 64)), tmp_path / "out.mp4"

    def shorten(done: int, total: int | None) -> None:
        if done == 6:
            for image in sorted(folder.iterdir())[3:]:
                image.unlink()

    with pytest.raises(InputError, match=r"fewer frames than a moment ago.*the first 3 frames are kept in .*\.part"):
        retarget_stream(Retargeter(tiny_bundle), folder, output, edits=Edits(), layout="side-by-side", progress=shorten)
    assert len(list(read_video(tmp_path / "out.mp4.part"))) == 3


def test_motion_of_another_model(tiny_bundle: Path, tmp_path: Path) -> None:
    motion = Tracks(np.arange(2), Fraction(1, 30), Fraction(30), np.zeros((2, 20, 2), np.float32))
    with pytest.raises(UsageError, match="the motion is of 20 keypoints, and the model has 10"):
        render_stream(Retargeter(tiny_bundle), motion, tmp_path / "out.mp4")
    assert list(tmp_path.iterdir()) == []
