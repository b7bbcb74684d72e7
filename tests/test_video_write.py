"""Writing real files: the times and colours that come back, and what cannot be written."""

import os
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jokr_rt.errors import InputError, JokrError, OutputError, UsageError
from jokr_rt.frame import Frame
from jokr_rt.video import VideoWriter, read_video, write_video
from tests import clips


@pytest.mark.parametrize("suffix", [".mp4", ".mov"])
@pytest.mark.parametrize(
    ("time_base", "pts"),
    [
        (Fraction(1, 10240), [index * 1024 for index in range(23)]),
        (Fraction(1, 10), list(range(5))),
        (Fraction(1001, 30000), list(range(31))),
        (Fraction(1, 30000), [1001 * index + 7 for index in range(31)]),
        (Fraction(1, 90000), list(clips.VFR_TIMES)),
        (Fraction(1, 90000), [126000 + 3600 * index for index in range(20)]),
        (Fraction(1, 600), [20 * index + 13 for index in range(20)]),
        (Fraction(1, 1000), [0, 33, 67, 100, 133, 5000, 5001]),
        (Fraction(1, 1024), [3 * index + 1 for index in range(20)]),
        (Fraction(1, 25), [0]),
    ],
)
def test_times_are_copied_exactly(tmp_path: Path, suffix: str, time_base: Fraction, pts: list[int]) -> None:
    path = tmp_path / f"out{suffix}"
    assert write_video(path, clips.grey_frames(pts, time_base)) == len(pts)
    assert clips.times(path) == [at * time_base for at in pts]


@settings(max_examples=20, deadline=None)
@given(
    st.lists(st.integers(1, 200_000), min_size=1, max_size=30),
    st.sampled_from([Fraction(1, 90000), Fraction(1, 12800), Fraction(1001, 60000)]),
    st.integers(0, 10**6),
)
def test_any_frame_distances_survive(
    tmp_path_factory: pytest.TempPathFactory, steps: list[int], time_base: Fraction, start: int
) -> None:
    pts = [int(at) for at in np.cumsum([start, *steps])]
    path = tmp_path_factory.mktemp("times") / "out.mp4"
    write_video(path, clips.grey_frames(pts, time_base))
    assert clips.times(path) == [at * time_base for at in pts]


@pytest.mark.parametrize("suffix", [".mkv", ".webm"])
def test_matroska_keeps_times_to_its_millisecond(tmp_path: Path, suffix: str) -> None:
    time_base, path = Fraction(1001, 30000), tmp_path / f"out{suffix}"
    write_video(path, clips.grey_frames(list(range(12)), time_base))
    found = clips.times(path)
    assert len(found) == 12
    assert max(abs(at - index * time_base) for index, at in enumerate(found)) <= Fraction(1, 2000)


@pytest.mark.parametrize(("width", "height", "matrix"), [(64, 48, 5), (1280, 720, 1)])
@pytest.mark.parametrize("suffix", [".mp4", ".webm"])
def test_colours_survive_and_are_tagged(tmp_path: Path, suffix: str, width: int, height: int, matrix: int) -> None:
    path = tmp_path / f"out{suffix}"
    frame = Frame(clips.picture(width, height), 0, Fraction(1, 10))
    write_video(path, [frame], crf=8)
    clips.assert_corners(next(read_video(path)).rgb, clips.CORNERS)
    with av.open(str(path)) as container:
        picture = next(container.decode(video=0))
    assert (picture.colorspace, picture.color_range, picture.format.name) == (matrix, 1, "yuv420p")


def test_an_odd_size_gains_a_repeated_edge(tmp_path: Path) -> None:
    path = tmp_path / "out.mp4"
    write_video(path, [Frame(clips.picture(31, 17), 0, Fraction(1, 10))])
    rgb = next(read_video(path)).rgb
    assert rgb.shape == (18, 32, 3)
    clips.assert_corners(rgb, clips.CORNERS, levels=8)
    assert np.abs(rgb[-1].astype(int) - rgb[-2]).max() <= 8


def test_frames_with_another_time_base_keep_their_time(tmp_path: Path) -> None:
    path = tmp_path / "out.mp4"
    black = np.zeros((16, 16, 3), np.uint8)
    write_video(path, [Frame(black, 0, Fraction(1, 1000)), Frame(black, 1, Fraction(1, 8))])
    assert clips.times(path) == [0, Fraction(1, 8)]


@pytest.mark.parametrize("codec", ["libx264", "libx265", "libvpx-vp9"])
def test_codecs_are_quiet_and_exact(tmp_path: Path, codec: str, capfd: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "out.mp4"
    pts = [0, 3, 4, 9, 10, 11, 12, 20]
    write_video(path, clips.grey_frames(pts, Fraction(1, 30)), codec=codec, crf=30)
    assert clips.times(path) == [Fraction(at, 30) for at in pts]
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("name", "options", "error", "expected"),
    [
        ("there.mp4", {}, OutputError, "already exists; choose another name, or replace it with --overwrite"),
        ("folder.mp4", {}, OutputError, "is a folder; give the name of a file"),
        ("none/out.mp4", {}, OutputError, "create it first"),
        ("there.mp4/out.mp4", {}, OutputError, "create it first"),
        ("out.xyz", {}, UsageError, "the name must end in .mp4, .mov, .mkv, .webm"),
        ("out", {}, UsageError, "the name must end in .mp4, .mov, .mkv, .webm"),
        ("out.mp4", {"codec": "h269"}, UsageError, "h269 is not a video codec, or does not fit into a"),
        (
            "out.webm",
            {"codec": "libx264"},
            UsageError,
            "libx264 is not a video codec, or does not fit into a",
        ),
        ("out.mp4", {"codec": "aac"}, UsageError, "aac is not a video codec, or"),
        ("out.mp4", {"codec": "mpeg4"}, UsageError, "mpeg4 has no constant rate factor; try libx264"),
        ("out.mp4", {"crf": 99, "codec": "libx265"}, UsageError, "libx265 does not take 64 x 64 pixels at crf 99"),
        ("out.mp4", {"audio_from": "missing.mp4"}, InputError, "missing.mp4: there is no such file or folder"),
    ],
)
def test_what_cannot_be_written_says_why(
    tmp_path: Path, name: str, options: dict[str, object], error: type[JokrError], expected: str
) -> None:
    (tmp_path / "there.mp4").write_bytes(b"precious")
    (tmp_path / "folder.mp4").mkdir()
    with pytest.raises(error) as raised:
        write_video(tmp_path / name, clips.grey_frames([0, 1], Fraction(1, 10)), **options)
    assert expected in clips.message_of(raised)
    assert sorted(os.listdir(tmp_path)) == ["folder.mp4", "there.mp4"]
    assert (tmp_path / "there.mp4").read_bytes() == b"precious"


def test_a_folder_without_permission_to_write(tmp_path: Path) -> None:
    tmp_path.chmod(0o555)
    code = """
        from fractions import Fraction
        import numpy as np, os, sys
        from jokr_rt.errors import OutputError
        from jokr_rt.video import VideoWriter
        if os.geteuid() == 0:
            os.seteuid(65534)  # root may write anywhere
        try:
            VideoWriter("out.mp4", width=16, height=16, time_base=Fraction(1, 10), rate=Fraction(10))
        except OutputError as error:
            print(error)
        os.seteuid(os.getuid())  # coverage writes its data when the process ends
    """
    assert clips.run_python(code, tmp_path).stdout == "out.mp4.part: cannot be written (Permission denied)\n"


def test_overwrite_replaces_only_when_done(tmp_path: Path) -> None:
    path = tmp_path / "out.mp4"
    path.write_bytes(b"precious")
    options = {"width": 64, "height": 64, "time_base": Fraction(1, 10), "rate": Fraction(10), "overwrite": True}
    with VideoWriter(path, **options) as writer:
        for frame in clips.grey_frames([0, 1, 2], Fraction(1, 10)):
            writer.write(frame)
        assert path.read_bytes() == b"precious"
    assert len(clips.times(path)) == writer.frames == 3
    assert os.listdir(tmp_path) == ["out.mp4"]


def test_no_frames_are_no_video(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"out\.mp4: there are no frames to write"):
        write_video(tmp_path / "out.mp4", [])
    options = {"width": 64, "height": 64, "time_base": Fraction(1, 10), "rate": Fraction(10)}
    with pytest.raises(OutputError, match=r"out\.mp4: there were no frames to write"):
        VideoWriter(tmp_path / "out.mp4", **options).close()
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    ("second", "expected"),
    [
        (
            Frame(np.zeros((64, 66, 3), np.uint8), 1, Fraction(1, 10)),
            "is 66 x 64 pixels, the video 64 x 64",
        ),
        (
            Frame(np.zeros((64, 64, 3), np.uint8), 0, Fraction(1, 10)),
            "is not later than the frame before it",
        ),
        (
            Frame(np.zeros((64, 64, 3), np.uint8), -1, Fraction(1, 10)),
            "is at -0.1 s; move all times to 0 or later",
        ),
    ],
)
def test_a_frame_that_does_not_fit(tmp_path: Path, second: Frame, expected: str) -> None:
    with pytest.raises(InputError) as error:
        write_video(tmp_path / "out.mp4", [*clips.grey_frames([0], Fraction(1, 10)), second])
    assert clips.message_of(error) == f"{tmp_path / 'out.mp4'}: frame 1 (from 0) {expected}"
    assert clips.times(tmp_path / "out.mp4.part") == [0]
