"""Single pictures from disk: of the owner, and of strangers."""

from pathlib import Path

import numpy as np
import pytest

from jokr_rt.errors import InputError
from jokr_rt.video import open_video, read_picture
from tests import clips

PICTURE = clips.picture(64, 64)
FORMS = [".png", ".jpg", ".webp"]


def stranger(path: Path) -> Path:
    """A copy under a name that says nothing, as an upload has."""
    copy = path.parent / "upload"
    copy.write_bytes(path.read_bytes())
    return copy


@pytest.mark.parametrize("suffix", FORMS)
def test_a_strangers_picture_is_read_like_the_owners(tmp_path: Path, suffix: str) -> None:
    path = clips.image(tmp_path / f"in{suffix}", PICTURE)
    found = read_picture(path, 32)
    assert found.shape == (32, 32, 3)
    clips.assert_corners(found, clips.CORNERS)
    assert np.array_equal(read_picture(stranger(path), 32, 64 * 64), found)
    with pytest.raises(InputError, match="upload: cannot be decoded, or has more than 4,095 pixels; make it smaller"):
        read_picture(stranger(path), 32, 64 * 64 - 1)


def test_the_first_picture_of_a_video_and_of_a_folder(tmp_path: Path) -> None:
    video = clips.video(tmp_path / "in.mp4", 5)
    with open_video(video, size=64) as source:
        assert np.array_equal(read_picture(video, 64), next(source).rgb)
    folder = clips.folder(tmp_path / "frames", [PICTURE, PICTURE // 2])
    assert np.array_equal(read_picture(folder, 64), PICTURE)


@pytest.mark.parametrize("suffix", [".png", ".webp"])
def test_what_is_transparent_is_black(tmp_path: Path, suffix: str) -> None:
    alpha = np.zeros((64, 64, 1), np.uint8)
    alpha[16:48, 8:40] = 255
    alpha[:, 60:] = 127  # more seen through than seen
    path = clips.image(tmp_path / f"in{suffix}", np.concatenate([PICTURE, alpha], axis=2))
    for found in (read_picture(path, 64), read_picture(stranger(path), 64, 64 * 64)):
        assert np.array_equal(found, PICTURE * (alpha >= 128))


@pytest.mark.parametrize("fraction", [0.5, 0.9])
@pytest.mark.parametrize("suffix", FORMS)
def test_a_picture_that_is_cut_off_is_refused(tmp_path: Path, suffix: str, fraction: float) -> None:
    whole = clips.image(tmp_path / f"whole{suffix}", clips.noise(1)[0])
    cut = clips.truncated(whole, tmp_path / f"cut{suffix}", fraction)
    for path, most in ((cut, None), (stranger(cut), 160 * 120)):
        with pytest.raises(InputError) as error:
            read_picture(path, 64, most)
        assert clips.message_of(error).startswith(f"{path}: ")


def test_a_strangers_picture_that_names_a_file_is_refused(tmp_path: Path) -> None:
    secret = clips.image(tmp_path / "secret.png", PICTURE)
    for text in (
        f"ffconcat version 1.0\nfile '{secret}'\n",
        f"#EXTM3U\n#EXTINF:9,\n{secret}\n#EXT-X-ENDLIST\n",
        f'<svg xmlns="http://www.w3.org/2000/svg"><image href="{secret}"/></svg>',
    ):
        (tmp_path / "upload").write_text(text)
        with pytest.raises(InputError, match="not a video or image"):
            read_picture(tmp_path / "upload", 64, 64 * 64)
