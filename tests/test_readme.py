"""What the README and the demo promise a newcomer."""

import doctest
import subprocess
import sys
from pathlib import Path

import numpy as np

from jokr_rt import open_bundle, read_video
from jokr_rt.evaluation.puppets import BROWN, PUPPETS, Motion, joints, render, write_video
from jokr_rt.video import open_video

ROOT = Path(__file__).parent.parent


def test_the_example_in_the_readme_runs(tmp_path, monkeypatch):
    write_video(tmp_path / "walk.mp4", BROWN, Motion.walk(24, seed=1), 128)
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    monkeypatch.chdir(tmp_path)
    result = doctest.testfile(str(ROOT / "README.md"), module_relative=False)
    assert result.attempted == 5
    assert result.failed == 0
    with open_video(tmp_path / "blue-walk.mp4") as written:
        assert written.length_estimate == 24


def test_the_demo_draws_the_other_puppet_in_the_pose_of_the_first(tmp_path):
    done = subprocess.run(
        [sys.executable, str(ROOT / "examples" / "demo.py"), str(tmp_path)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert str(tmp_path / "sheet.png") in done.stdout
    assert f"jokr studio {ROOT / 'examples' / 'puppets.jokr'} {tmp_path / 'source.mp4'}\n" in done.stdout
    size = open_bundle(ROOT / "examples" / "puppets.jokr").config.size
    frames = list(read_video(tmp_path / "out.mp4"))
    assert len(frames) == 96
    assert frames[0].rgb.shape == (size, 3 * size, 3)
    motion = Motion.walk(96, 2026, 0.85)
    errors, partners = [], []
    for frame, pose in zip(frames, joints(PUPPETS["blue"], motion), strict=True):
        picture, mask = render(PUPPETS["blue"], pose, size)
        partners.append(picture.astype(float) * (mask[..., None] > 127))
        errors.append(np.abs(frame.rgb[:, 2 * size :] - partners[-1]).mean())
    mean = np.mean(partners, axis=0)
    baseline = [np.abs(mean - partner).mean() for partner in partners]
    # Better than the best picture that does not move.
    assert np.mean(errors) < np.mean(baseline)
