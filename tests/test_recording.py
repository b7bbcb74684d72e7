"""Recordings: exact times, sizes, keyframes, bitrate, and what is refused."""

from fractions import Fraction
from pathlib import Path

import av
import pytest

from jokr_rt.errors import InputError, OutputError, UsageError
from jokr_rt.video.live_mux import Coding
from jokr_rt.video.recording import Recording, check_recording, free_names
from tests import clips
from tests.cameras import number_of, numbered
from tests.receivers import HEIGHT, RATE, WIDTH, probe
from tests.recordings import CODING, record


def boxes(path: Path) -> list[str]:
    """Names of the outermost boxes of an MP4 file."""
    data, at, found = path.read_bytes(), 0, []
    while at < len(data):
        found.append(data[at + 4 : at + 8].decode())
        at += int.from_bytes(data[at : at + 4], "big")
    return found


@pytest.mark.parametrize("suffix", [".mp4", ".mov", ".mkv"])
def test_every_picture_keeps_its_own_time_from_the_first_on(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"rec{suffix}"
    times = [1000 + Fraction(tick, 90000) for tick in clips.VFR_TIMES]
    record(path, times)
    found = clips.times(path)
    precision = Fraction(1, 1000) if suffix == ".mkv" else 0
    assert len(found) == len(times)
    assert all(abs(is_at - (at - 1000)) <= precision for is_at, at in zip(found, times, strict=True))
    with av.open(str(path)) as container:
        assert [number_of(frame.to_ndarray(format="rgb24")) for frame in container.decode(video=0)] == list(range(10))


def test_a_finished_recording_is_an_ordinary_mp4(tmp_path: Path) -> None:
    record(tmp_path / "rec.mp4", [Fraction(number, 20) for number in range(40)])
    assert "moof" not in boxes(tmp_path / "rec.mp4")
    assert boxes(tmp_path / "rec.mp4")[-1] == "moov"
    assert len(probe(tmp_path / "rec.mp4")["packets"]) == 40


def test_an_odd_size_gains_a_line_and_another_size_is_refused(tmp_path: Path) -> None:
    recording = Recording(tmp_path / "rec.mp4", Coding(65, 47, RATE))
    recording.open(None)
    recording.write(clips.picture(65, 47), Fraction(0))
    with pytest.raises(InputError, match="does not fit"):
        recording.write(clips.picture(64, 48), Fraction(1))
    recording.close()
    with av.open(str(tmp_path / "rec.mp4")) as container:
        (picture,) = container.decode(video=0)
    assert (picture.width, picture.height) == (66, 48)


def test_keyframes_come_by_time_not_by_number(tmp_path: Path) -> None:
    recording = Recording(tmp_path / "rec.mp4", Coding(WIDTH, HEIGHT, RATE, keyframe_s=0.5))
    recording.open(None)
    times = [Fraction(number, 20) for number in range(40)] + [2 + Fraction(number, 4) for number in range(8)]
    for number, at in enumerate(times):
        recording.write(numbered(number), at)
    recording.close()
    keys = [float(one["pts_time"]) for one in probe(tmp_path / "rec.mp4")["packets"] if one["flags"].startswith("K")]
    assert keys == [0, 0.5, 1, 1.5, 2, 2.5, 3, 3.5]


def test_the_bitrate_is_kept_on_pictures_that_would_need_far_more(tmp_path: Path) -> None:
    sizes = {}
    for bitrate in (None, 100_000):
        path = tmp_path / f"{bitrate}.mp4"
        recording = Recording(path, Coding(160, 120, RATE, bitrate=bitrate))
        recording.open(None)
        for number, picture in enumerate(clips.noise(60)):
            recording.write(picture, number / RATE)
        recording.close()
        sizes[bitrate] = sum(int(packet["size"]) for packet in probe(path)["packets"]) * 8 / 3
    assert sizes[None] > 5 * 100_000
    assert sizes[100_000] < 150_000


def test_what_cannot_be_recorded_is_said_before_anything_starts(tmp_path: Path) -> None:
    (tmp_path / "old.mp4").write_bytes(b"precious")
    (tmp_path / "folder.mp4").mkdir()
    for name, kind, words in (
        ("old.mp4", OutputError, "already exists"),
        ("folder.mp4", OutputError, "is a folder"),
        ("no/rec.mp4", OutputError, "there is no folder"),
        ("rec.avi", UsageError, ".mp4, .mov or .mkv"),
        ("rec.webm", UsageError, ".mp4, .mov or .mkv"),
    ):
        with pytest.raises(kind) as error:
            check_recording(tmp_path / name, overwrite=False)
        assert words in clips.message_of(error)
    assert (tmp_path / "old.mp4").read_bytes() == b"precious"
    check_recording(tmp_path / "old.mp4", overwrite=True)
    for wrong in ({"bitrate": 10}, {"keyframe_s": 0}):
        with pytest.raises(UsageError):
            Coding(WIDTH, HEIGHT, RATE, **wrong)


def test_names_after_a_failure_are_those_of_no_file(tmp_path: Path) -> None:
    (tmp_path / "rec-2.mp4").touch()
    names = free_names(tmp_path / "rec.mp4")
    assert [next(names).name for _ in range(3)] == ["rec.mp4", "rec-3.mp4", "rec-4.mp4"]


def test_a_recording_without_a_picture_is_no_file(tmp_path: Path) -> None:
    recording = Recording(tmp_path / "rec.mp4", CODING)
    recording.open(None)
    recording.close()
    assert not (tmp_path / "rec.mp4").exists()


def test_two_runs_cannot_write_one_recording(tmp_path: Path) -> None:
    one, other = (Recording(tmp_path / "rec.mp4", CODING) for _ in range(2))
    one.open(None)
    with pytest.raises(OutputError, match=r"rec\.mp4: another run is writing it"):
        other.open(None)
    one.close()
    other.open(None)
    other.close()
