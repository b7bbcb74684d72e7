"""What two clips are called."""

from pathlib import Path

import pytest

from jokr_rt.names import clip_name, clip_names


@pytest.mark.parametrize(
    ("first", "second", "names"),
    [
        ("horse", "cow", ("horse", "cow")),
        ("horse/f", "cow/f", ("horse-f", "cow-f")),
        ("horse/frames", "cow/frames", ("horse", "cow")),
        ("x/horse/frames", "y/horse/frames", ("x-horse", "y-horse")),
        ("x/clip/f", "y/clip/f", ("x-f", "y-f")),
        ("horse/f/%05d.png", "cow/f/%05d.png", ("horse-f", "cow-f")),
        ("f", "f", ("f-1", "f-2")),
    ],
)
def test_names_of_two_clips_differ_and_are_as_short_as_they_can_be(first, second, names):
    assert clip_names(Path("/clips", first), Path("/clips", second)) == names


def test_a_file_loses_its_extension_and_a_folder_keeps_its_name(tmp_path, monkeypatch):
    (tmp_path / "cat.mp4").touch()
    (tmp_path / "cat.v2" / "frames").mkdir(parents=True)
    assert clip_name(tmp_path / "cat.mp4") == "cat"
    assert clip_name(tmp_path / "cat.v2") == "cat.v2"
    monkeypatch.chdir(tmp_path / "cat.v2")
    assert clip_name(Path("frames")) == "cat.v2"


def test_a_file_and_a_folder_of_one_name_get_numbers(tmp_path):
    (tmp_path / "cat.mp4").touch()
    (tmp_path / "cat").mkdir()
    assert clip_names(tmp_path / "cat.mp4", tmp_path / "cat") == ("cat-1", "cat-2")
