"""Reading real files: every pixel and time against what was put in."""

import os
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from jokr_rt.errors import InputError
from jokr_rt.video import letterbox_box, open_masks, open_video, read_video, with_masks, write_png
from tests import clips
from tests.tolerances import LEVELS


def test_frames_come_in_order_with_the_times_of_the_file(tmp_path: Path) -> None:
    path = clips.video(tmp_path / "clip.mp4", times=clips.VFR_TIMES, time_base=Fraction(1, 90000))
    with open_video(path) as source:
        frames = list(source)
        assert (source.width, source.height, source.length_estimate) == (64, 48, 10)
        assert source.time_base == Fraction(1, 90000)
    assert [frame.pts for frame in frames] == list(clips.VFR_TIMES)
    shades = [int(frame.rgb[24, 32, 0]) for frame in frames]
    assert np.abs(np.subtract(shades, [255 * index // 9 for index in range(10)])).max() <= clips.CODING


def test_rate_is_exact(tmp_path: Path) -> None:
    path = clips.video(tmp_path / "clip.mp4", rate=Fraction(30000, 1001))
    with open_video(str(path)) as source:
        assert source.rate == Fraction(30000, 1001)
        assert not source.has_audio


@pytest.mark.parametrize(
    ("name", "coding"),
    [
        ("bt709.mp4", {"matrix": "bt709"}),
        ("bt601.mp4", {"matrix": "bt601"}),
        ("full709.mp4", {"matrix": "bt709", "full_range": True}),
        ("full601.mp4", {"matrix": "bt601", "full_range": True}),
        ("yuvj.mp4", {"matrix": "bt601", "full_range": True, "pixel_format": "yuvj420p"}),
        ("ten-bit.mp4", {"pixel_format": "yuv420p10le"}),
        ("ten-bit-full.mp4", {"pixel_format": "yuv420p10le", "full_range": True}),
        ("444.mkv", {"pixel_format": "yuv444p"}),
        ("untagged-sd.mp4", {"matrix": "bt601", "tagged": False}),
        ("untagged-hd.mp4", {"matrix": "bt709", "tagged": False, "width": 1280, "height": 720, "count": 2}),
        ("mpeg4.avi", {"matrix": "bt601", "tagged": False, "codec": "mpeg4", "options": {"qmin": "1", "qmax": "1"}}),
        ("vp9.webm", {"codec": "libvpx-vp9", "options": {"deadline": "realtime", "cpu-used": "8"}}),
    ],
)
def test_colours_come_out_right(tmp_path: Path, name: str, coding: dict[str, object]) -> None:
    path = clips.video(tmp_path / name, **coding)
    clips.assert_corners(next(read_video(path)).rgb, clips.CORNERS)
    clips.assert_corners(next(read_video(path, size=64)).rgb[8:-8], clips.CORNERS)


@pytest.mark.parametrize("rotation", [90, 180, -90])
@pytest.mark.parametrize("mirrored", [False, True])
def test_rotation_and_mirroring_are_applied(tmp_path: Path, rotation: int, mirrored: bool) -> None:
    path = clips.video(tmp_path / "clip.mp4", rotation=rotation, mirrored=mirrored, count=2)
    expected = np.rot90(clips.picture(shade=0), rotation // 90)
    if mirrored:
        expected = expected[:, ::-1]
    with open_video(path) as source:
        frame = next(source)
        assert (source.height, source.width) == frame.rgb.shape[:2] == expected.shape[:2]
    clips.assert_corners(frame.rgb, clips.corners(expected))


def test_an_upright_mirrored_video_is_not_turned(tmp_path: Path) -> None:
    path = clips.video(tmp_path / "clip.mp4", mirrored=True, count=2)
    clips.assert_corners(next(read_video(path)).rgb, clips.corners(clips.picture()[:, ::-1]))


def test_a_photo_turned_by_its_exif_is_upright(tmp_path: Path) -> None:
    path = clips.with_exif_orientation(clips.image(tmp_path / "photo.jpg", clips.picture()), 6)
    clips.assert_corners(next(read_video(path)).rgb, clips.corners(np.rot90(clips.picture(), -1)))


@pytest.mark.parametrize(("aspect", "shown"), [(Fraction(4, 3), (80, 48)), (Fraction(1, 2), (30, 48))])
def test_pixels_that_are_not_square(tmp_path: Path, aspect: Fraction, shown: tuple[int, int]) -> None:
    path = clips.video(tmp_path / "clip.mp4", pixel_aspect=aspect, width=60, count=2)
    with open_video(path) as source:
        assert (source.width, source.height) == shown
        clips.assert_corners(next(source).rgb, clips.CORNERS)
    x, y, width, height = letterbox_box(*shown, 64)
    frame = next(read_video(path, size=64)).rgb
    clips.assert_corners(frame[y : y + height, x : x + width], clips.CORNERS)
    frame[y : y + height, x : x + width] = 0
    assert not frame.any()


def test_odd_sizes_and_size_of_letterboxed_frames(tmp_path: Path) -> None:
    path = clips.video(tmp_path / "clip.mkv", width=65, height=47, pixel_format="yuv444p", count=2)
    with open_video(path) as source:
        assert next(source).rgb.shape == (47, 65, 3)
    with open_video(path, size=32) as source:
        assert (source.width, source.height) == (32, 32)
        assert next(source).rgb.shape == (32, 32, 3)


def test_folder_in_natural_order(tmp_path: Path) -> None:
    folder = tmp_path / "frames"
    folder.mkdir()
    for number in (1, 2, 10, 9):
        clips.image(folder / f"frame{number}.png", np.full((8, 8, 3), number, np.uint8))
    (folder / "notes.txt").write_text("not a frame")
    (folder / ".hidden.png").write_bytes(b"")
    with open_video(folder) as source:
        assert (source.rate, source.length_estimate, source.has_audio) == (10, 4, False)
        frames = list(source)
    assert [int(frame.rgb[0, 0, 0]) for frame in frames] == [1, 2, 9, 10]
    assert [frame.pts * frame.time_base for frame in frames] == [Fraction(index, 10) for index in range(4)]


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp", ".bmp", ".tiff"])
def test_image_formats(tmp_path: Path, suffix: str) -> None:
    frames = list(read_video(clips.folder(tmp_path / "frames", [clips.picture()] * 2, suffix), rate=Fraction(25)))
    assert [frame.pts * frame.time_base for frame in frames] == [0, Fraction(1, 25)]
    clips.assert_corners(frames[1].rgb, clips.CORNERS)


def test_grey_images_become_grey_frames(tmp_path: Path) -> None:
    ramp = np.arange(256, dtype=np.uint8).reshape(16, 16)
    frame = next(read_video(clips.folder(tmp_path / "frames", [ramp])))
    assert np.abs(frame.rgb.astype(int) - ramp[..., None]).max() <= LEVELS


def test_printf_patterns(tmp_path: Path) -> None:
    for number in (98, 99, 100):
        clips.image(tmp_path / f"a{number:03d}.png", np.full((8, 8, 3), number, np.uint8))
    clips.image(tmp_path / "b001.png", np.zeros((8, 8, 3), np.uint8))
    for pattern in ("a%03d.png", "a%d.png", "a%02d.png"):
        assert [int(frame.rgb[0, 0, 0]) for frame in read_video(tmp_path / pattern)] == [98, 99, 100]
    with pytest.raises(InputError) as error:
        open_video(tmp_path / "a%05d.png")
    assert "a%05d.png: no file fits this pattern" in clips.message_of(error)


def test_images_of_many_sizes_share_a_letterbox(tmp_path: Path) -> None:
    folder = clips.folder(tmp_path / "frames", [clips.picture(64, 48), clips.picture(40, 60)])
    frames = list(read_video(folder, size=32))
    clips.assert_corners(frames[0].rgb[4:28], clips.CORNERS)
    clips.assert_corners(frames[1].rgb[:, 5:26], clips.CORNERS)
    with pytest.raises(InputError) as error:
        list(read_video(folder))
    assert "00001.png is 40 x 60 pixels, those before it are 64 x 48" in clips.message_of(error)


def test_a_name_that_looks_like_an_address_is_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    clips.video(tmp_path / "clip.mp4", count=3).rename("12:30.mp4")
    assert len(list(read_video("12:30.mp4"))) == 3


def test_closing_early_leaves_no_file_open(tmp_path: Path) -> None:
    path = clips.video(tmp_path / "clip.mp4", audio="aac")
    before = len(os.listdir("/dev/fd"))
    with open_video(path) as source:
        next(source)
    assert next(source, None) is None
    frames = read_video(path)
    next(frames)
    frames.close()
    assert len(os.listdir("/dev/fd")) == before


def test_frames_without_a_time_follow_one_another(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = clips.raw_h264(tmp_path / "clip.h264", count=6)
    with av.open(str(path)) as container:
        assert next(container.decode(video=0)).pts is None  # else this file tests nothing
    frames = list(read_video(path))
    steps = np.diff([frame.pts for frame in frames])
    assert len(frames) == 6
    assert (steps == steps[0]).all()
    assert steps[0] * frames[0].time_base == Fraction(1, 25)
    assert caplog.messages == [f"{path}: frame 0 (from 0) has no time; it is placed one frame after the one before"]


def test_times_that_go_back_are_moved_behind(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    part = clips.video(tmp_path / "part.ts", codec="mpeg2video", rate=25, count=6).read_bytes()
    path = tmp_path / "joined.ts"
    path.write_bytes(part + part)
    frames = list(read_video(path))
    assert len(frames) >= 11  # the joint may cost a frame
    steps = np.diff([frame.pts for frame in frames])
    assert steps.min() > 0
    assert steps.max() <= 2 * 3600
    (message,) = caplog.messages
    assert "has an earlier time than the one before; it and all after it are moved behind it" in message


def test_hdr_is_announced(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = clips.video(
        tmp_path / "hlg.mp4", pixel_format="yuv420p10le", options={"x264-params": "transfer=arib-std-b67"}
    )
    next(read_video(path))
    assert caplog.messages == [
        f"{path}: HDR is not tone-mapped, colours will look pale; convert the video to SDR first"
    ]


def test_a_mask_of_another_shape_than_its_frame_is_refused(tmp_path: Path) -> None:
    for name, width in (("frames", 40), ("half", 20), ("wide", 60)):
        (tmp_path / name).mkdir()
        picture = np.full((20 if name == "half" else 40, width, 3), 255, np.uint8)
        for index in range(2):
            write_png(tmp_path / name / f"{index}.png", picture)
    with open_video(tmp_path / "frames", size=64) as frames, open_masks(tmp_path / "half", size=64) as masks:
        assert [mask.all() for _, mask in with_masks(frames, masks) if mask is not None] == [True, True]
    expected = r"wide: mask 0 \(from 0\) is 60 x 40 pixels, its frame in .*frames 40 x 40"
    with (
        open_video(tmp_path / "frames", size=64) as frames,
        open_masks(tmp_path / "wide", size=64) as masks,
        pytest.raises(InputError, match=expected),
    ):
        list(with_masks(frames, masks))
