"""Files as live sources, at their own rate or not; what a decoder and the times of a source come to."""

import logging
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jokr_rt.clock import RealClock
from jokr_rt.errors import InputError
from jokr_rt.video import connection
from jokr_rt.video.capture import (
    Capture,
    Captured,
    CaptureOptions,
    SourceEnded,
    SourceLost,
    open_capture,
)
from jokr_rt.video.times import Times
from tests import clips
from tests.cameras import number_of, numbered_clip
from tests.live_doubles import VirtualClock

LIVE = CaptureOptions()
FILM = CaptureOptions(realtime=True)


def until_end(capture: Capture) -> Iterator[Captured]:
    """All pictures of a file, which is then closed."""
    while True:
        try:
            yield capture.read()
        except SourceEnded:
            capture.close()
            return


def drained(capture: Capture) -> list[tuple[int, Fraction]]:
    """Number and time of every picture to the end."""
    seen = []
    for captured in until_end(capture):
        frame = captured.frame
        seen.append((number_of(frame.rgb), frame.pts * frame.time_base))
    return seen


def test_a_file_is_played_at_its_own_rate(tmp_path: Path) -> None:
    film = clips.video(tmp_path / "vfr.mkv", 10, times=clips.VFR_TIMES, time_base=Fraction(1, 90000))
    clock = VirtualClock()
    with clock.running():
        capture = open_capture(str(film), FILM, clock)
        captured = [capture.read() for _ in clips.VFR_TIMES]
        capture.close()
    times = [each.captured_s - captured[0].captured_s for each in captured]
    assert times == pytest.approx([float(each.frame.pts_seconds) for each in captured], abs=1e-9)
    assert times[-1] == pytest.approx(1.1, abs=1e-3)


def test_a_file_that_was_held_up_goes_on_without_rushing(tmp_path: Path) -> None:
    film = numbered_clip(tmp_path / "film.mp4", 10, rate=10)
    clock = VirtualClock()
    with clock.running():
        capture = open_capture(str(film), FILM, clock)
        captured = [capture.read() for _ in range(3)]
        clock._now += 60  # as when the machine slept
        captured += [capture.read() for _ in range(3)]
        capture.close()
    gaps = np.diff([each.captured_s for each in captured])
    assert gaps == pytest.approx([0.1, 0.1, 60.0, 0.1, 0.1], abs=0.11)
    assert gaps[3:] == pytest.approx([0.1, 0.1], abs=1e-6)


def test_a_loop_goes_on_where_the_file_ends_with_its_sound(tmp_path: Path) -> None:
    film = numbered_clip(tmp_path / "film.mp4", 10, rate=10, audio="aac")
    capture = open_capture(str(film), CaptureOptions(loop=True), RealClock())
    numbers, times, sounds, connections = [], [], [], set()
    for _ in range(35):
        captured = capture.read()
        numbers.append(number_of(captured.frame.rgb))
        times.append(captured.frame.pts * captured.frame.time_base)
        connections.add(captured.connection)
        sounds += capture.take_sounds()
    capture.close()
    assert numbers == [*range(10)] * 3 + [*range(5)]
    assert [after - before for before, after in zip(times[:-1], times[1:], strict=True)] == [Fraction(1, 10)] * 34
    heard = [float(packet.pts_s) for packet, _ in sounds]
    assert len(connections) == 1
    assert {connection for _, connection in sounds} == connections
    assert all(0 < gap < 0.06 for gap in np.diff(heard))
    assert heard[-1] == pytest.approx(float(times[-1]), abs=0.5)


def test_without_a_loop_a_file_ends(tmp_path: Path) -> None:
    film = numbered_clip(tmp_path / "film.mp4", 7, rate=10)
    seen = drained(open_capture(str(film), LIVE, RealClock()))
    assert seen == [(index, Fraction(index, 10)) for index in range(7)]


@pytest.mark.parametrize("loop", [False, True])
def test_a_file_that_is_no_video_is_not_tried_again(tmp_path: Path, loop: bool) -> None:
    text, sound = tmp_path / "film.mp4", clips.audio_only(tmp_path / "song.m4a")
    text.write_text("not a video " * 100)
    for path in (text, sound):
        with pytest.raises(InputError) as error:
            open_capture(str(path), CaptureOptions(loop=loop), RealClock())
        assert not isinstance(error.value, SourceLost)
        assert str(path) in clips.message_of(error)


@pytest.mark.parametrize("loop", [False, True])
def test_a_video_without_a_single_whole_picture_is_not_played_again_and_again(tmp_path: Path, loop: bool) -> None:
    film = numbered_clip(tmp_path / "film.mp4", 5)
    data = film.read_bytes()
    begin, end = data.index(b"mdat") + 4, data.rindex(b"moov") - 4
    film.write_bytes(data[:begin] + bytes(end - begin) + data[end:])
    with pytest.raises(InputError, match="ended before there was a picture") as error:
        open_capture(str(film), CaptureOptions(loop=loop), RealClock())
    assert not isinstance(error.value, SourceLost)


def test_frames_are_letterboxed_where_that_is_asked_for(tmp_path: Path) -> None:
    film = numbered_clip(tmp_path / "film.mp4", 3)
    capture = open_capture(str(film), CaptureOptions(letterbox=96), RealClock())
    rgb = capture.read().frame.rgb
    capture.close()
    assert rgb.shape == (96, 96, 3)
    assert rgb[:12].max() == 0
    assert capture.settings["size"] == "64x48"
    assert capture.settings["drawn"] == "96x96"


def test_transparency_comes_along(tmp_path: Path) -> None:
    film = tmp_path / "clear.mov"
    rgba = np.full((48, 64, 4), 200, np.uint8)
    rgba[:, :32, 3] = 0
    with av.open(str(film), "w") as container:
        stream = container.add_stream("png", rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "rgba"
        container.mux(stream.encode(av.VideoFrame.from_ndarray(rgba, "rgba")))
        container.mux(stream.encode(None))
    capture = open_capture(str(film), LIVE, RealClock())
    captured = capture.read()
    capture.close()
    assert captured.alpha is not None
    assert (captured.alpha == rgba[..., 3]).all()


def test_the_settings_in_use_are_told(tmp_path: Path) -> None:
    film = numbered_clip(tmp_path / "film.mp4", 5, audio="aac")
    capture = open_capture(str(film), LIVE, RealClock())
    capture.close()
    assert capture.settings == {
        "source": str(film),
        "format": "mov,mp4,m4a,3gp,3g2,mj2",
        "codec": "h264 (software)",
        "size": "64x48",
        "drawn": "64x48",
        "pixel_format": "yuv420p",
        "rate": "25 fps",
        "sound": "48000 Hz stereo",
    }


def test_damage_is_counted_and_pictures_go_on(tmp_path: Path) -> None:
    film = numbered_clip(tmp_path / "film.ts", 60, width=160, height=120)
    data = bytearray(film.read_bytes())
    noise = np.random.default_rng(1)
    for place in noise.integers(len(data) // 4, len(data) // 2, 200):
        data[place] = noise.integers(256)
    film.write_bytes(data)
    capture = open_capture(str(film), LIVE, RealClock())
    seen = list(until_end(capture))
    assert len(seen) > 30
    assert capture.damaged > 0
    assert number_of(seen[-1].frame.rgb) == 59


def test_a_missing_hardware_decoder_is_announced(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    film = clips.video(tmp_path / "film.mov", 3, codec="png", pixel_format="rgb24")
    with caplog.at_level(logging.WARNING):
        capture = open_capture(str(film), CaptureOptions(hwaccel="auto"), RealClock())
    capture.close()
    assert "no hardware here decodes png" in caplog.text
    assert "software: no hardware here decodes png" in capture.settings["codec"]


def test_a_device_that_fails_at_the_first_picture_is_left_for_software(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    film = numbered_clip(tmp_path / "film.mp4", 5)
    wrong = av.CodecContext.create("png", "r")  # takes H.264 as badly as a device does that lacks its profile
    monkeypatch.setattr(connection, "hardware_decoder", lambda stream, choice: (wrong, "cuda"))
    with caplog.at_level(logging.WARNING):
        capture = open_capture(str(film), CaptureOptions(hwaccel="cuda"), RealClock())
    assert [number for number, _ in drained(capture)] == [0, 1, 2, 3, 4]
    assert "cuda does not take this video" in caplog.text
    assert "(software: cuda does not take" in capture.settings["codec"]


def placed(ticks: list[int | None]) -> list[tuple[int, int]]:
    """(pts, connection counted from 0) of pictures with these times, of 100 ticks each."""
    times, found = Times(), []
    first = times.connection
    for pts in ticks:
        picture = av.VideoFrame(16, 16, "yuv420p")
        picture.pts, picture.time_base, picture.duration = pts, Fraction(1, 1000), 100
        found.append((times.place(picture)[0], times.connection - first))
    return found


def test_times_jump_back_only_from_one_connection_to_the_next() -> None:
    assert placed([None, 100, 200, 200, None, 400]) == [(0, 0), (100, 0), (200, 0), (201, 0), (301, 0), (400, 0)]
    assert placed([5000, 5100, 0, 100, 50]) == [(5000, 0), (5100, 0), (0, 1), (100, 1), (50, 2)]


@given(st.lists(st.none() | st.integers(0, 10_000), min_size=1, max_size=40))
def test_times_go_forward_within_a_connection(ticks: list[int | None]) -> None:
    found = placed(ticks)
    for (before, earlier), (after, later) in zip(found[:-1], found[1:], strict=True):
        assert after > before if later == earlier else after < before
