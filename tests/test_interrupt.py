"""Ctrl-C waits for its moment. The signals are real."""

import os
import signal
from collections.abc import Callable
from pathlib import Path
from threading import Thread

import pytest

from jokr_rt import Retargeter, read_video
from jokr_rt.interrupt import deferred_interrupt
from jokr_rt.stream import retarget_stream
from jokr_rt.video import VideoWriter
from tests import clips


def press() -> None:
    os.kill(os.getpid(), signal.SIGINT)


def test_it_is_raised_where_it_is_asked_for_and_only_once() -> None:
    before = signal.getsignal(signal.SIGINT)
    with deferred_interrupt() as interrupt:
        interrupt.raise_if_requested()
        press()
        press()
        with pytest.raises(KeyboardInterrupt):
            interrupt.raise_if_requested()
        interrupt.raise_if_requested()
    assert signal.getsignal(signal.SIGINT) is before


def interrupted(then: Callable[[], object]) -> None:
    with deferred_interrupt():
        press()
        then()


def test_one_that_nobody_asked_about_is_raised_at_the_end() -> None:
    reached: list[bool] = []
    with pytest.raises(KeyboardInterrupt):
        interrupted(lambda: reached.append(True))
    assert reached


def test_an_error_goes_before_it() -> None:
    with pytest.raises(ZeroDivisionError):
        interrupted(lambda: divmod(1, 0))


def test_where_it_is_ignored_it_stays_ignored() -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with deferred_interrupt() as interrupt:
            press()
            interrupt.raise_if_requested()
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)


def test_another_thread_changes_nothing() -> None:
    before, seen = signal.getsignal(signal.SIGINT), []

    def look() -> None:
        with deferred_interrupt():
            seen.append(signal.getsignal(signal.SIGINT))

    thread = Thread(target=look)
    thread.start()
    thread.join()
    assert seen == [before]


@pytest.mark.parametrize("presses", [1, 5])
def test_a_stream_ends_between_two_frames(tiny_bundle: Path, tmp_path: Path, presses: int) -> None:
    """Any number of times: every frame that was retargeted is in the file, and none more."""
    source, output = clips.video(tmp_path / "in.mp4", 30), tmp_path / "out.mp4"

    def progress(done: int, _: int | None) -> None:
        if done == 7:
            for _ in range(presses):
                press()

    with pytest.raises(KeyboardInterrupt) as ended:
        retarget_stream(Retargeter(tiny_bundle), source, output, progress=progress)
    assert str(ended.value) == f"the first 7 frames are kept in {output}.part"
    assert not output.exists()


def test_while_the_file_is_finished_it_is_finished(
    tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, output = clips.video(tmp_path / "in.mp4", 5), tmp_path / "out.mp4"
    close = VideoWriter.close

    def press_and_close(writer: VideoWriter) -> None:
        press()
        close(writer)

    monkeypatch.setattr(VideoWriter, "close", press_and_close)
    with pytest.raises(KeyboardInterrupt) as ended:
        retarget_stream(Retargeter(tiny_bundle), source, output)
    assert str(ended.value) == ""  # nothing is left under another name
    assert len(list(read_video(output))) == 5
