"""Single pictures to and from JPEG, and videos from strangers."""

import numpy as np
import pytest

from jokr_rt.errors import InputError
from jokr_rt.video import jpeg, open_video, read_jpeg
from tests import clips


def test_a_picture_comes_back() -> None:
    rgb = clips.picture(64, 64)
    difference = np.abs(read_jpeg(jpeg(rgb), 64, 64 * 64).astype(int) - rgb)
    assert np.median(difference) <= 1
    assert difference.mean() < 4  # colours run over the edges of the quarters


def test_another_shape_is_letterboxed() -> None:
    found = read_jpeg(jpeg(clips.picture(64, 32)), 64, 64 * 32)
    assert found.shape == (64, 64, 3)
    assert found[:14].max() < 8
    assert found[-14:].max() < 8
    assert found[20:30, 4:20].mean() > 60


def test_a_picture_too_large_is_not_decoded() -> None:
    data = jpeg(clips.picture(64, 64))
    with pytest.raises(InputError, match="at most 4095 pixels"):
        read_jpeg(data, 64, 64 * 64 - 1)


@pytest.mark.parametrize("damage", [b"", b"no picture", None])
def test_what_is_no_whole_picture_is_refused(damage: bytes | None) -> None:
    data = jpeg(clips.picture(64, 64))
    with pytest.raises(InputError, match="not a"):
        read_jpeg(data[: len(data) // 2] if damage is None else damage, 64, 64 * 64)


def test_a_strangers_video_is_bounded_in_pixels(tmp_path) -> None:
    path = clips.video(tmp_path / "in.mp4", 3)
    with open_video(path, max_pixels=64 * 48) as source:
        assert len(list(source)) == 3
    with pytest.raises(InputError, match=r"in.mp4: its pictures have 64 x 48 pixels, over 3,071; make them smaller"):
        open_video(path, max_pixels=64 * 48 - 1)


@pytest.mark.parametrize("name", ["in.mkv", "in.webm", "in.avi", "in.ts", "in.mov"])
def test_a_strangers_video_may_have_any_common_form(tmp_path, name: str) -> None:
    codec = "libvpx-vp9" if name.endswith("webm") else "libx264"
    path = clips.video(tmp_path / name, 3, codec=codec)
    with open_video(path, max_pixels=64 * 48) as source:
        assert len(list(source)) == 3


def test_a_strangers_playlist_is_refused(tmp_path) -> None:
    clips.video(tmp_path / "in.mp4", 3)
    (tmp_path / "in.m3u8").write_text("#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\nin.mp4\n#EXT-X-ENDLIST\n")
    with open_video(tmp_path / "in.m3u8") as source:  # the owner may
        assert len(list(source)) == 3
    with pytest.raises(InputError, match="not a video"):
        open_video(tmp_path / "in.m3u8", max_pixels=64 * 48)
