"""A file holds what is announced: every frame, at its time, in order; and what stood beside the pictures."""

import os
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import av
import pytest
from av.stream import Disposition

from jokr_rt.errors import OutputError
from jokr_rt.locks import locked
from jokr_rt.video import VideoWriter, open_video, write_video
from tests import clips
from tests.process import ROOT

SRT = "1\n00:00:00,200 --> 00:00:00,900\nfirst\n\n2\n00:00:01,000 --> 00:00:01,500\nsecond\n"
CHAPTERS = ";FFMETADATA1\n" + "".join(
    f"[CHAPTER]\nTIMEBASE=1/10\nSTART={start}\nEND={start + 10}\ntitle={title}\n"
    for start, title in ((0, "one"), (10, "two"))
)


def ffmpeg(*arguments: str | Path) -> None:
    subprocess.run(["ffmpeg", "-v", "error", "-y", *map(str, arguments)], check=True)


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Clips of two seconds whose times are of every kind."""
    folder = tmp_path_factory.mktemp("sources")
    plain = clips.video(folder / "plain.mp4", 20, rate=10, audio="aac")
    ffmpeg("-i", plain, "-c", "copy", "-output_ts_offset", "5", folder / "five.mp4")
    ffmpeg("-i", plain, "-c", "copy", "-f", "mpegts", folder / "plain.ts")
    # A transport stream counts 33 bits of 1/90000 s, and starts anew after 95,443.7 s.
    ffmpeg("-i", plain, "-c", "copy", "-output_ts_offset", "95441.3", "-f", "mpegts", folder / "wrap.ts")
    ffmpeg("-i", plain, "-an", "-c:v", "libx264", "-bf", "3", folder / "b-frames.avi")
    ffmpeg("-i", plain, "-c:v", "libx264", "-bf", "3", "-c:a", "copy", folder / "b-frames.mkv")
    clips.video(folder / "vfr.mp4", times=clips.VFR_TIMES, time_base=Fraction(1, 90000))
    return folder


SOURCES = ["plain.mp4", "five.mp4", "plain.ts", "wrap.ts", "b-frames.avi", "b-frames.mkv", "vfr.mp4"]


@pytest.mark.parametrize("kind", ["mp4", "mov", "mkv", "webm"])
@pytest.mark.parametrize("name", SOURCES)
def test_a_file_holds_the_frames_that_are_announced(sources: Path, tmp_path: Path, name: str, kind: str) -> None:
    source, target = sources / name, tmp_path / f"out.{kind}"
    with open_video(source) as video:
        options = {"width": video.width, "height": video.height, "time_base": video.time_base, "rate": video.rate}
        writer = VideoWriter(target, **options, audio_from=source if video.has_audio else None)
        times = []
        with writer:
            for frame in video:
                writer.write(frame)
                times.append(frame.pts * frame.time_base)
    assert writer.frames == len(times) == (10 if name == "vfr.mp4" else 20)
    assert min(times) >= 0
    assert times == sorted(set(times))
    with av.open(str(target)) as container:
        streams = [stream.type for stream in container.streams]
        found = [frame.pts * frame.time_base for frame in container.decode(video=0)]
    assert streams == ["video", "audio"][: 1 + video.has_audio]
    assert len(found) == writer.frames
    rounding = Fraction(1, 2000) if kind in ("mkv", "webm") else 0
    if kind in ("mkv", "webm") and name == "vfr.mp4":  # 1/90000 s apart is no millisecond apart
        rounding = Fraction(1, 1000)
    assert max(abs(one - other) for one, other in zip(found, times, strict=True)) <= rounding


@pytest.fixture(scope="module")
def film(sources: Path) -> Path:
    """An MKV with subtitles, chapters and an attachment."""
    (sources / "words.srt").write_text(SRT)
    (sources / "chapters.txt").write_text(CHAPTERS)
    (sources / "font.ttf").write_bytes(b"letters")
    inputs = ["-i", sources / "plain.mp4", "-i", sources / "words.srt", "-i", sources / "chapters.txt"]
    maps = ["-map", "0", "-map", "1", "-map_metadata", "2", "-map_chapters", "2", "-c", "copy", "-c:s", "srt"]
    tags = ["-metadata:s:s", "language=eng", "-metadata:s:a", "language=fra", "-metadata:s:a", "title=VF"]
    tags += ["-disposition:a", "original", "-disposition:s", "forced"]
    clips.image(sources / "cover.png", clips.picture())
    font = ["-attach", sources / "font.ttf", "-metadata:s:t:0", "mimetype=font/ttf"]
    cover = ["-attach", sources / "cover.png", "-metadata:s:t:1", "mimetype=image/png"]
    ffmpeg(*inputs, *maps, *tags, *font, *cover, sources / "film.mkv")
    return sources / "film.mkv"


def rewrite(source: Path, target: Path) -> None:
    with open_video(source, size=64) as video:
        assert video.has_extras
        options = {"width": 64, "height": 64, "time_base": video.time_base, "rate": video.rate}
        with VideoWriter(target, **options, audio_from=source, extras_from=source) as writer:
            for frame in video:
                writer.write(frame)


def words_of(path: Path) -> list[tuple[bytes, Fraction]]:
    with av.open(str(path)) as container:
        packets = list(container.demux(container.streams.subtitles[0]))
        return [(bytes(packet), packet.pts * packet.time_base) for packet in packets if packet.size]


def chapters(path: Path) -> list[tuple[Fraction, Fraction, str]]:
    with av.open(str(path)) as container:
        return [
            (each["start"] * each["time_base"], each["end"] * each["time_base"], each["metadata"]["title"])
            for each in container.chapters()
        ]


def test_a_matroska_file_keeps_subtitles_chapters_and_attachments(film: Path, tmp_path: Path, caplog) -> None:
    rewrite(film, tmp_path / "out.mkv")
    assert caplog.messages == []
    assert chapters(tmp_path / "out.mkv") == [(0, 1, "one"), (1, 2, "two")]
    with av.open(str(tmp_path / "out.mkv")) as container:
        assert [stream.type for stream in container.streams] == ["video", "audio", "subtitle", "attachment", "video"]
        sound, words, font, cover = list(container.streams)[1:]
        assert (sound.metadata["language"], sound.metadata["title"]) == ("fra", "VF")
        assert (sound.disposition, words.disposition) == (Disposition.original, Disposition.forced)
        assert (cover.metadata["filename"], cover.disposition) == ("cover.png", Disposition.attached_pic)
        assert bytes(next(container.demux(cover))) == (film.parent / "cover.png").read_bytes()
        assert (words.metadata["language"], font.metadata["filename"], bytes(font.data)) == (
            "eng",
            "font.ttf",
            b"letters",
        )
    assert [text for text, _ in words_of(film)] == [b"first", b"second"]
    assert words_of(tmp_path / "out.mkv") == words_of(film)


@pytest.mark.parametrize("kind", ["mp4", "mov", "webm"])
def test_what_another_kind_of_file_cannot_hold_is_told(film: Path, tmp_path: Path, kind: str, caplog) -> None:
    rewrite(film, tmp_path / f"out.{kind}")
    assert chapters(tmp_path / f"out.{kind}") == [(0, 1, "one"), (1, 2, "two")]
    told = [f"{film}: its attachments cannot be in a {kind} file; left out",
            f"{film}: its subtitle (srt) cannot be in a {kind} file; left out"]  # fmt: skip
    assert [message for message in caplog.messages if "audio" not in message] == told


@pytest.mark.parametrize(("kind", "more"), [("mkv", "video"), ("mov", "video, data, data")])
def test_tracks_that_nothing_is_made_of_are_told(sources: Path, tmp_path: Path, kind: str, more: str, caplog) -> None:
    """QuickTime keeps a time code for each video, and the chapters too, as data."""
    (chapter_file := tmp_path / "chapters.txt").write_text(CHAPTERS)
    second = ["-f", "lavfi", "-i", "testsrc=s=32x32:r=10:d=2"]
    maps = ["-map", "0", "-map", "1", "-map_chapters", "2", "-c:v", "libx264", "-timecode", "00:00:00:00"]
    source = tmp_path / f"two.{kind}"
    ffmpeg("-i", sources / "plain.mp4", *second, "-i", chapter_file, *maps, source)
    rewrite(source, tmp_path / "out.mp4")
    assert caplog.messages == [f"{source}: its other tracks ({more}) are left out"]
    caplog.clear()
    rewrite(tmp_path / "out.mp4", tmp_path / "again.mp4")
    assert (caplog.messages, chapters(tmp_path / "again.mp4")) == ([], [(0, 1, "one"), (1, 2, "two")])


def test_a_file_is_locked_until_it_has_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "out.mp4"
    options = {"width": 64, "height": 64, "time_base": Fraction(1, 10), "rate": Fraction(10)}
    rename = os.replace

    def while_another_run_starts(part: Path, path: Path) -> None:
        with pytest.raises(OutputError, match="another run is writing it"):
            VideoWriter(target, **options)
        rename(part, path)

    monkeypatch.setattr(os, "replace", while_another_run_starts)
    assert write_video(target, clips.grey_frames(range(30), Fraction(1, 10))) == len(clips.times(target)) == 30


def test_a_lock_of_a_file_that_got_its_name_meanwhile_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    part, opened = tmp_path / "out.mp4.part", os.open

    def and_then_it_is_renamed(path: Path, *flags: int) -> int:
        file = opened(path, *flags)
        monkeypatch.setattr(os, "open", opened)
        os.replace(part, tmp_path / "out.mp4")
        return file

    monkeypatch.setattr(os, "open", and_then_it_is_renamed)
    lock = locked(part)
    assert os.path.samestat(os.fstat(lock), part.stat())
    with pytest.raises(BlockingIOError):
        locked(part)
    os.close(lock)


def test_two_runs_cannot_write_one_file_and_a_killed_one_is_no_obstacle(tmp_path: Path) -> None:
    target = tmp_path / "out.mkv"
    options = {"width": 64, "height": 64, "time_base": Fraction(1, 10), "rate": Fraction(10)}
    killed = f"""
import os, signal
from fractions import Fraction
from jokr_rt.video import VideoWriter
from tests.clips import grey_frames
writer = VideoWriter({str(target)!r}, width=64, height=64, time_base=Fraction(1, 10), rate=Fraction(10))
for frame in grey_frames(range(5), Fraction(1, 10)):
    writer.write(frame)
os.kill(os.getpid(), signal.SIGKILL)
"""
    assert subprocess.run([sys.executable, "-c", killed], cwd=ROOT).returncode == -9
    assert target.with_name("out.mkv.part").exists()
    with VideoWriter(target, **options) as writer:
        for index, frame in enumerate(clips.grey_frames(range(30), Fraction(1, 10))):
            writer.write(frame)
            if index == 10:
                with pytest.raises(OutputError, match="out.mkv.part: another run is writing it; choose another name"):
                    VideoWriter(target, **options)
    assert len(clips.times(target)) == 30
    assert [path.name for path in tmp_path.iterdir()] == ["out.mkv"]
