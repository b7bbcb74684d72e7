"""Sound copied beside new pictures, packet by packet."""

import subprocess
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from jokr_rt.errors import InputError
from jokr_rt.video import read_video, write_video
from tests import clips


def copy(source: Path, target: Path) -> None:
    write_video(target, read_video(source), audio_from=source)


@pytest.mark.parametrize(
    ("source", "audio", "target"),
    [
        ("in.mp4", "aac", "out.mp4"),
        ("in.mp4", "aac", "out.mov"),
        ("in.mkv", "libopus", "out.mp4"),
        ("in.mkv", "libopus", "out.mkv"),
        ("in.mkv", "libopus", "out.webm"),
        ("in.mkv", "libmp3lame", "out.mp4"),
        ("in.mov", "pcm_s16le", "out.mov"),
    ],
)
def test_sound_is_copied_untouched(tmp_path: Path, source: str, audio: str, target: str) -> None:
    path = clips.video(tmp_path / source, 30, audio=audio)
    copy(path, tmp_path / target)
    assert clips.audio_packets(tmp_path / target) == clips.audio_packets(path)
    assert clips.times(tmp_path / target) == clips.times(path)


def test_sound_and_variable_frame_rate_together(tmp_path: Path) -> None:
    path = clips.video(tmp_path / "in.mp4", times=clips.VFR_TIMES, time_base=Fraction(1, 90000), audio="aac")
    copy(path, tmp_path / "out.mp4")
    assert clips.audio_packets(tmp_path / "out.mp4") == clips.audio_packets(path)
    assert clips.times(tmp_path / "out.mp4") == [Fraction(at, 90000) for at in clips.VFR_TIMES]


def test_sound_that_starts_before_zero_does_not_move_pictures_in_matroska(tmp_path: Path) -> None:
    path = clips.video(tmp_path / "in.mp4", 20, audio="aac")
    copy(path, tmp_path / "out.mkv")
    assert clips.audio_packets(path)[0][1] < 0  # else this file tests nothing
    assert clips.times(tmp_path / "out.mkv") == clips.times(path)
    for (data, pts, _), (copied, copied_pts, _) in zip(
        clips.audio_packets(path), clips.audio_packets(tmp_path / "out.mkv"), strict=True
    ):
        assert data == copied
        assert abs(pts - copied_pts) <= Fraction(1, 2000)


@pytest.mark.parametrize("target", ["out.mp4", "out.mkv"])
def test_aac_of_a_transport_stream_loses_only_its_headers(tmp_path: Path, target: str) -> None:
    path = clips.video(tmp_path / "in.ts", 50, rate=25, audio="aac")
    copy(path, tmp_path / target)
    with av.open(str(path)) as container:
        start = Fraction(container.start_time, av.time_base)  # of a clock that began long ago
    with av.open(str(tmp_path / target)) as container:
        assert [stream.type for stream in container.streams] == ["video", "audio"]
    pairs = list(zip(clips.audio_packets(path), clips.audio_packets(tmp_path / target), strict=True))
    assert all(wrapped.endswith(bare) and len(wrapped) - len(bare) == 7 for (wrapped, *_), (bare, *_) in pairs)
    assert max(abs(pts - start - copied) for (_, pts, _), (_, copied, _) in pairs) <= Fraction(1, 2000)
    with av.open(str(tmp_path / target)) as container:
        assert sum(frame.samples for frame in container.decode(audio=0)) >= 2 * 48000


def test_sound_lies_beside_the_pictures_in_the_file(tmp_path: Path) -> None:
    path = clips.video(tmp_path / "in.mkv", 150, audio="libopus")
    copy(path, tmp_path / "out.mp4")
    latest, worst = Fraction(0), Fraction(0)
    with av.open(str(tmp_path / "out.mp4")) as container:
        order = sorted(
            (packet for packet in container.demux() if packet.dts is not None), key=lambda packet: packet.pos
        )
        for packet in order:
            due = packet.dts * packet.time_base
            latest, worst = max(latest, due), max(worst, latest - due)
    assert worst <= Fraction(1, 2)


def test_sound_of_a_clip_without_sound_is_nothing(tmp_path: Path) -> None:
    path = clips.video(tmp_path / "in.mp4", 5)
    copy(path, tmp_path / "out.mp4")
    with av.open(str(tmp_path / "out.mp4")) as container:
        assert [stream.type for stream in container.streams] == ["video"]


@pytest.mark.parametrize(
    ("source", "audio", "target", "made"),
    [
        ("in.mp4", "aac", "out.webm", "opus"),
        ("in.mkv", "pcm_alaw", "out.mkv", "aac"),
        ("in.mkv", "pcm_alaw", "out.mp4", "aac"),
        ("in.ts", "aac", "out.webm", "opus"),
        ("in.mkv", "pcm_s16le", "out.mp4", "aac"),  # PyAV lists these two, but the muxer refuses them
        ("in.mkv", "libopus", "out.mov", "aac"),
    ],
)
def test_sound_that_a_file_cannot_hold_is_coded_anew_and_that_is_said(
    tmp_path: Path, source: str, audio: str, target: str, made: str, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / source
    if audio == "pcm_alaw":  # which PyAV does not put into Matroska
        silent = clips.video(tmp_path / "silent.mp4", 30, rate=10)
        sine = ["-f", "lavfi", "-t", "3", "-i", "sine=440:r=8000"]
        subprocess.run(
            ["ffmpeg", "-v", "error", "-i", silent, *sine, "-c:v", "copy", "-c:a", "pcm_alaw", path], check=True
        )
    else:
        clips.video(path, 30, rate=10, audio=audio)
    copy(path, tmp_path / target)
    kind = {".webm": "webm", ".mkv": "matroska", ".mp4": "mp4", ".mov": "mov"}[Path(target).suffix]
    name = audio.removeprefix("lib")
    assert caplog.messages == [f"{path}: its audio ({name}) cannot be in a {kind} file; coded anew"]
    with av.open(str(tmp_path / target)) as container:
        (stream,) = container.streams.audio
        assert stream.codec_context.name == made
        sound = np.concatenate([frame.to_ndarray()[0] for frame in container.decode(stream)])
        rate = stream.codec_context.rate
    assert len(sound) / rate == pytest.approx(3, abs=0.2)  # an encoder's frame at either end
    spectrum = np.abs(np.fft.rfft(sound[rate // 2 : rate // 2 + rate]))
    assert 430 <= spectrum.argmax() <= 450 or audio != "pcm_alaw"  # Hz, of one second


def test_damaged_sound_is_an_error_and_the_part_file_is_whole(tmp_path: Path) -> None:
    whole = clips.video(tmp_path / "whole.mp4", 30, audio="aac")
    cut = clips.truncated(clips.faststart(whole, tmp_path / "faststart.mp4"), tmp_path / "cut.mp4", 0.7)
    out = tmp_path / "out.mp4"
    with pytest.raises(InputError) as error:
        write_video(out, clips.grey_frames(list(range(40)), Fraction(1, 10)), audio_from=cut)
    assert "cut.mp4: its sound is damaged" in clips.message_of(error)
    assert not out.exists()
    assert len(clips.times(out.with_name("out.mp4.part"))) >= 10
