"""Reading real files: every pixel and time against what was put in."""

import math
import os
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from av.video.frame import PictureType
from hypothesis import given
from hypothesis import strategies as st

from jokr_rt.errors import InputError
from jokr_rt.video import hdr, letterbox_box, open_masks, open_video, read_video, with_masks, write_png
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


@pytest.mark.parametrize(
    ("orientation", "stored"),
    [
        (1, lambda upright: upright),
        (2, lambda upright: upright[:, ::-1]),
        (3, lambda upright: upright[::-1, ::-1]),
        (4, lambda upright: upright[::-1]),
        (5, lambda upright: upright.transpose(1, 0, 2)),
        (6, np.rot90),
        (7, lambda upright: np.rot90(upright, 2).transpose(1, 0, 2)),
        (8, lambda upright: np.rot90(upright, -1)),
    ],
)
@pytest.mark.parametrize("as_folder", [False, True])
def test_a_photo_is_upright_whatever_its_exif_says(tmp_path: Path, orientation, stored, as_folder) -> None:
    upright = clips.picture()
    photo = clips.image(tmp_path / "photo.jpg", np.ascontiguousarray(stored(upright)))
    clips.with_exif_orientation(photo, orientation)
    (frame,) = read_video(tmp_path if as_folder else photo)
    assert frame.rgb.shape == upright.shape
    clips.assert_corners(frame.rgb, clips.CORNERS)


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


def pq_code(nits: float) -> float:
    """Of 1; SMPTE ST 2084."""
    power = (nits / 10000) ** (2610 / 16384)
    return ((3424 / 4096 + 2413 / 128 * power) / (1 + 2392 / 128 * power)) ** (2523 / 32)


@pytest.mark.parametrize(("nits", "light"), [(20.3, 0.1), (101.5, 0.5), (203, 0.8 + 0.2 * (1 - math.exp(-1)))])
def test_hdr_is_tone_mapped_and_says_so(tmp_path: Path, caplog: pytest.LogCaptureFixture, nits, light) -> None:
    """Grey of so much light, where 203 nits are white, on a screen of gamma 2.4."""
    luma = round(64 + 876 * pq_code(nits))
    path = tmp_path / "hdr.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=10, options={"qp": "0"})  # without loss
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p10le"
        context = stream.codec_context
        context.color_trc, context.color_primaries, context.colorspace = 16, 9, 9
        grey = av.VideoFrame(64, 48, "yuv420p10le")
        for plane, value in zip(grey.planes, (luma, 512, 512), strict=True):
            plane.update(np.full(plane.buffer_size // 2, value, "<u2").tobytes())
        grey.color_trc, grey.color_primaries, grey.colorspace = 16, 9, 9
        container.mux(stream.encode(grey))
        container.mux(stream.encode(None))
    (frame,) = read_video(path, size=64)
    assert caplog.messages == [f"{path}: HDR (PQ) is shown as SDR: white is 203 nits, brighter light is rolled off"]
    assert frame.rgb[:8].max() == 0  # the letterbox
    shown = frame.rgb[8:56].reshape(-1, 3)
    assert np.abs(shown - 255 * light ** (1 / 2.4)).max() <= clips.CODING


@given(rgb=st.tuples(*[st.floats(0, 1)] * 3), nits=st.floats(5, 5000))
def test_tone_mapping_keeps_the_hue_and_never_clips(rgb, nits) -> None:
    """Colours of BT.709: what is left of their light is in the same proportion, to the rounding of 8 bits."""
    light = np.array(rgb) + 0.05
    wide = np.linalg.inv(hdr._TO_BT709.astype(np.float64)) @ (light / light.max() * nits)
    codes = np.array([[[round(hdr.WHITE * pq_code(value)) for value in np.maximum(wide, 0)]]], np.uint16)
    shown = hdr.to_sdr(codes, 16)[0, 0].astype(float)
    expected = 255 * (light / light.max()) ** (1 / 2.4) * shown.max() / 255
    assert np.abs(shown - expected).max() <= LEVELS
    assert 0 < shown.max() <= 255


def test_hlg_shows_white_as_white_and_black_as_black() -> None:
    codes = np.array([[[0] * 3, [round(hdr.WHITE * 0.75)] * 3, [hdr.WHITE] * 3]], np.uint16)
    black, white, brightest = hdr.to_sdr(codes, 18)[0].astype(int)
    assert black.tolist() == [0, 0, 0]
    # BT.2408: 75 % of HLG is the 203 nits of white, and so what PQ's white is.
    assert np.abs(white - 255 * (0.8 + 0.2 * (1 - math.exp(-1))) ** (1 / 2.4)).max() <= LEVELS
    assert (brightest > white).all()


@pytest.mark.parametrize("codec", ["libx264", "mpeg4"])
def test_an_avi_with_b_frames_has_even_times(tmp_path: Path, codec: str, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "b.avi"
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=10, options={"bf": "3"})
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for index, frame in enumerate(clips.grey_frames(range(12), Fraction(1, 10))):
            grey = av.VideoFrame.from_ndarray(frame.rgb[:48], "rgb24")
            grey.pts, grey.time_base = index, Fraction(1, 10)
            container.mux(stream.encode(grey))
        container.mux(stream.encode(None))
    with av.open(str(path)) as container:
        assert PictureType.B in [frame.pict_type for frame in container.decode(video=0)]
    frames = list(read_video(path))
    assert [frame.pts * frame.time_base for frame in frames] == [Fraction(index, 10) for index in range(12)]
    assert np.diff([frame.rgb.mean() for frame in frames]).min() >= 0  # in the order they were made
    assert caplog.messages == []


def test_a_matroska_file_may_have_tags_of_another_length(tmp_path: Path) -> None:
    """Statistics that a program copied; the file's end is the proof."""
    whole, tagged = clips.video(tmp_path / "whole.mkv", count=40), tmp_path / "tagged.mkv"
    with av.open(str(whole)) as source, av.open(str(tagged), "w") as target:
        stream = target.add_stream_from_template(source.streams.video[0])
        stream.metadata["DURATION-eng"] = "00:10:17.500000000"
        for packet in source.demux(video=0):
            if packet.size:
                packet.stream = stream
                target.mux(packet)
    assert len(list(read_video(tagged))) == 40
    streamed = tmp_path / "streamed.mkv"
    with av.open(str(whole)) as source, av.open(str(streamed), "w", options={"live": "1"}) as target:
        stream = target.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            if packet.size:
                packet.stream = stream
                target.mux(packet)
    assert len(list(read_video(streamed))) == 40  # of unknown length
    cut = clips.truncated(tagged, tmp_path / "cut.mkv", 0.6)
    with pytest.raises(InputError, match="cut off"):
        list(read_video(cut))


def test_masks_that_are_opaque_are_their_brightness(tmp_path: Path) -> None:
    """Of pictures that are not square: the bars of a letterbox are transparent, and tell nothing."""
    grey = np.zeros((48, 64, 4), np.uint8)
    grey[..., 3], grey[:24, :32, :3] = 255, 255
    path = clips.image(tmp_path / "mask.png", grey)
    (mask,) = open_masks(path, size=64)
    assert mask.sum() == pytest.approx(24 * 32, rel=0.02)  # the edge is smoothed
    grey[:24, :32, 3] = 0
    (mask,) = open_masks(clips.image(tmp_path / "alpha.png", grey), size=64)
    assert mask.sum() == pytest.approx(48 * 64 - 24 * 32, rel=0.02)


def test_masks_of_zeros_and_ones_are_warned_of_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    ones = np.zeros((48, 64, 3), np.uint8)
    empty = ones.copy()
    ones[:24] = 1
    folder = clips.folder(tmp_path / "masks", [empty, ones, ones])
    assert not any(mask.any() for mask in open_masks(folder))
    assert caplog.messages == [
        f"{folder}: a mask is nowhere brighter than 1 of 255 and so shows no object; make the object white"
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
