"""Input that cannot be used: what is delivered before the error, and what the error says."""

from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import pytest

from jokr_rt.errors import InputError, UsageError
from jokr_rt.frame import Frame
from jokr_rt.video import open_masks, open_video, read_video
from tests import clips


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("missing.mp4", "there is no such file or folder"),
        ("empty.mp4", "the file is empty"),
        ("text.mp4", "not a video or image that can be read, or cut off"),
        ("sound.m4a", "there is no video in this file, only audio"),
        ("cover.mp3", "there is no video in this file, only audio"),
        ("subtitles.srt", "there is no video in this file, only subtitle"),
        ("no-index.mp4", "not a video or image that can be read, or cut off"),
        ("folder", "no frames in this folder; it needs images such as 00000.png"),
        ("elsewhere.m3u8", "not a video or image that can be read, or cut off"),
    ],
)
def test_what_cannot_be_opened_says_why(tmp_path: Path, name: str, expected: str) -> None:
    (tmp_path / "empty.mp4").touch()
    (tmp_path / "text.mp4").write_text("no video\n" * 100)
    (tmp_path / "subtitles.srt").write_text("1\n00:00:00,000 --> 00:00:01,000\nhello\n")
    (tmp_path / "elsewhere.m3u8").write_text("#EXTM3U\n#EXTINF:1,\nhttp://127.0.0.1:9/a.ts\n#EXT-X-ENDLIST\n")
    clips.audio_only(tmp_path / "sound.m4a")
    clips.audio_only(tmp_path / "cover.mp3", "libmp3lame", cover=clips.picture())
    clips.truncated(clips.video(tmp_path / "whole.mp4"), tmp_path / "no-index.mp4", 0.5)
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "notes.txt").write_text("not a frame")
    for opened in (open_video, open_masks):
        with pytest.raises(InputError) as error:
            opened(tmp_path / name)
        assert clips.message_of(error).startswith(f"{tmp_path / name}: {expected}")


def test_a_rate_is_only_for_images(tmp_path: Path) -> None:
    path = clips.video(tmp_path / "clip.mp4")
    with pytest.raises(UsageError, match="a video has its own frame rate"):
        open_video(path, rate=Fraction(25))
    with pytest.raises(UsageError, match="the frame rate must be positive, not 0"):
        open_video(clips.folder(tmp_path / "frames", [clips.picture()]), rate=Fraction(0))


def delivered(frames: Iterator[Frame]) -> tuple[int, str]:
    """How many frames come before the InputError, and what it says."""
    seen = []
    with pytest.raises(InputError) as error:
        seen.extend(index for index, _ in enumerate(frames))
    return len(seen), clips.message_of(error)


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".webm"])
@pytest.mark.parametrize("fraction", [0.4, 0.6, 0.81])
def test_a_truncated_video_gives_what_it_has_and_then_an_error(tmp_path: Path, suffix: str, fraction: float) -> None:
    vp9 = {"codec": "libvpx-vp9", "options": {"deadline": "realtime", "cpu-used": "8"}}
    whole = clips.video(tmp_path / f"whole{suffix}", pictures=clips.noise(40), **(vp9 if suffix == ".webm" else {}))
    if suffix == ".mp4":
        whole = clips.faststart(whole, tmp_path / "faststart.mp4")
    cut = clips.truncated(whole, tmp_path / f"cut{suffix}", fraction)
    count, message = delivered(read_video(cut))
    assert 40 * fraction - 2 <= count <= 40 * fraction + 1
    assert message.startswith(f"{cut}: ")
    assert "cut off" in message


def test_a_truncated_transport_stream(tmp_path: Path) -> None:
    whole = clips.video(tmp_path / "whole.ts", pictures=clips.noise(40), rate=25)
    count, message = delivered(read_video(clips.truncated(whole, tmp_path / "cut.ts", 0.5)))
    assert count in range(16, 21)
    assert f"cut.ts: frame {count} (from 0) is damaged" in message


def test_damage_in_the_middle_ends_the_video_there(tmp_path: Path) -> None:
    path = clips.video(tmp_path / "clip.mp4", pictures=clips.noise(40))
    data = bytearray(path.read_bytes())
    middle = len(data) // 2
    data[middle : middle + 60] = bytes(reversed(data[middle : middle + 60]))
    path.write_bytes(data)
    count, message = delivered(read_video(path))
    assert count in range(12, 24)
    assert message.startswith(f"{path}: ")
    assert "damaged" in message


def test_a_change_of_resolution_is_named(tmp_path: Path) -> None:
    path = clips.resolution_change(tmp_path / "clip.ts")
    count, message = delivered(read_video(path, size=64))
    assert f"frame {count} (from 0) is 96 x 64 pixels, those before it are 64 x 48" in message


@pytest.mark.parametrize("damage", ["text", "cut"])
def test_a_damaged_image_in_a_folder_is_named(tmp_path: Path, damage: str) -> None:
    folder = clips.folder(tmp_path / "frames", clips.noise(3), ".jpg")
    bad = folder / "00002.jpg"
    bad.write_bytes(b"not an image" * 20 if damage == "text" else bad.read_bytes()[:600])
    count, message = delivered(read_video(folder))
    assert count == 2
    assert message.startswith(f"{bad}")
