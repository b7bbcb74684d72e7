"""Clips for training: what was decoded, kept in a file."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch

from jokr_rt.errors import InputError
from jokr_rt.evaluation.puppets import BROWN, Motion, write_clip, write_video
from jokr_rt.training.data import load_clip
from jokr_rt.video import open_masks, open_video, write_png
from tests.process import jokr

MAPS = Path("/proc/self/maps")


@pytest.fixture(scope="module")
def puppet(tmp_path_factory) -> Path:
    """Twelve frames of 96 x 96 with masks, and as video."""
    folder = tmp_path_factory.mktemp("puppet")
    write_clip(folder, BROWN, Motion.walk(12, seed=1), 96)
    write_video(folder / "puppet.mp4", BROWN, Motion.walk(12, seed=1), 96)
    return folder


def test_the_frames_of_a_clip_are_the_decoded_ones_and_its_masks_are_black_or_white(puppet):
    clip = load_clip(puppet / "frames", puppet / "masks", 64)
    with open_video(puppet / "frames", size=64) as video, open_masks(puppet / "masks", size=64) as masks:
        rgb, mattes = np.stack([frame.rgb for frame in video]), np.stack(list(masks))
    assert (clip.frames.shape, clip.frames.dtype, clip.has_masks) == ((12, 4, 64, 64), torch.uint8, True)
    assert clip.frames.is_contiguous()
    assert np.array_equal(clip.frames[:, :3].permute(0, 2, 3, 1).numpy(), rgb)
    assert np.array_equal(clip.frames[:, 3].numpy(), mattes * np.uint8(255))
    assert 0 < mattes.mean() < 1


def test_without_masks_the_whole_picture_is_the_object(puppet):
    clip = load_clip(puppet / "puppet.mp4", None, 64)
    assert (clip.name, clip.has_masks, len(clip.frames)) == ("puppet", False, 12)
    assert (clip.frames[:, 3] == 255).all()


@pytest.mark.skipif(not MAPS.exists(), reason="only Linux tells what an address belongs to")
def test_the_frames_lie_in_a_file_that_has_no_name_and_goes_with_the_clip(puppet, tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))

    def mapped() -> list[tuple[int, int]]:
        """Address ranges of what is mapped from files in tmp_path."""
        ranges = (line.split()[0].split("-") for line in MAPS.read_text().splitlines() if str(tmp_path) in line)
        return [(int(start, 16), int(end, 16)) for start, end in ranges]

    clip = load_clip(puppet / "frames", puppet / "masks", 64)
    ((start, end),) = mapped()
    assert start <= clip.frames.data_ptr() < clip.frames.data_ptr() + clip.frames.nbytes <= end
    assert os.listdir(tmp_path) == []
    del clip
    assert mapped() == []


def test_a_full_disk_is_one_clear_line(puppet, tmp_path):
    arguments = ["--a", puppet / "frames", "--b", puppet / "puppet.mp4", "-o", tmp_path / "out", "--size", "64"]
    small = f"""
import resource, tempfile
tempfile.tempdir = {str(tmp_path)!r}
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))  # bytes: six pictures, and a part of the next
"""
    done = jokr("train", *arguments, "--device", "cpu", prelude=small)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1:] == [
        f"jokr: error: {tmp_path}: no room for the decoded frames of {puppet / 'frames'}: File too large; "
        "set TMPDIR to a folder with more"
    ]
    assert os.listdir(tmp_path) == []


def test_masks_must_be_as_many_as_frames(puppet, tmp_path):
    fewer = tmp_path / "masks"
    fewer.mkdir()
    for path in sorted((puppet / "masks").iterdir())[:5]:
        (fewer / path.name).write_bytes(path.read_bytes())
    with pytest.raises(InputError, match=r"5 masks for the 12 frames"):
        load_clip(puppet / "frames", fewer, 64)


def test_masks_without_an_object_are_refused(puppet, tmp_path):
    for index in range(12):
        write_png(tmp_path / f"{index:05d}.png", np.zeros((96, 96, 3), np.uint8))
    with pytest.raises(InputError, match="no mask shows an object"):
        load_clip(puppet / "frames", tmp_path, 64)
