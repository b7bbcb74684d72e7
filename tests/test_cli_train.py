"""`jokr train` as a user types it, and what it says to bad input."""

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result

from jokr_rt.cli import main
from jokr_rt.evaluation.puppets import BLUE, BROWN, Motion, write_clip, write_video
from jokr_rt.training.checkpoint import load_checkpoint, read_tensors
from jokr_rt.training.data import Clip
from jokr_rt.training.lock import exclusive
from jokr_rt.training.options import Pace, TrainOptions
from jokr_rt.training.orientation import Facing
from jokr_rt.training.resume import RESUME_FORMAT
from jokr_rt.training.train import Training
from jokr_rt.video import write_png
from tests.process import assert_refused, command

SMALL = ["--keypoints", "4", "--size", "64", "--width", "0.0625", "--batch", "2"]
TINY = [*SMALL, "--steps", "2", "--sheet-every", "1", "--no-mirror"]  # a step of either stage


@pytest.fixture(scope="module")
def puppets(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("puppets")
    for name, puppet in (("cat", BROWN), ("fox", BLUE)):
        write_clip(folder / name, puppet, Motion.walk(4, seed=1), 64)
        write_video(folder / f"{name}.mp4", puppet, Motion.walk(4, seed=1), 64)
    return folder


def sources(puppets: Path) -> list[str]:
    cat, fox = puppets / "cat", puppets / "fox"
    return ["--a", f"{cat}/frames", "--a-masks", f"{cat}/masks", "--b", f"{fox}/frames", "--b-masks", f"{fox}/masks"]


def train(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["train", *arguments])


def test_train_writes_checkpoint_sheets_and_json(puppets, tmp_path):
    out = tmp_path / "out"
    result = train(*sources(puppets), "-o", str(out), *TINY, "--json", "--weight", "diversity=9", "--lr", "0.001")
    assert result.exit_code == 0, result.output
    lines = [json.loads(line) for line in result.stdout.splitlines()]
    assert [line["step"] for line in lines] == [1, 2]
    assert [line["steps"] for line in lines] == [2, 2]
    assert lines[0]["losses"]["silhouette"] > 0
    assert lines[1]["losses"]["reconstruction"] > 0
    assert "cat: 4 frames, with masks" in result.stderr
    assert result.stderr.count("tensorboard --logdir") == 1
    assert re.search(r"fox: keypoints with and without masks differ by 0\.\d{3} of the half-width", result.stderr)
    checkpoint = load_checkpoint(out / "checkpoint.safetensors")
    assert (checkpoint.step, checkpoint.domains) == (2, {"a": "cat", "b": "fox"})
    assert checkpoint.model.config.to_json() == {"keypoints": 4, "size": 64, "width": 0.0625, "extractor_size": 64}
    assert sorted(path.name for path in out.iterdir()) == [
        "checkpoint.safetensors", "config.toml", "metrics.jsonl", "resume.safetensors",
        "sheet-000001.png", "sheet-000002.png", "tensorboard",
    ]  # fmt: skip


def test_videos_train_without_masks(puppets, tmp_path):
    clips = ["--a", str(puppets / "cat.mp4"), "--b", str(puppets / "fox.mp4")]
    result = train(*clips, "-o", str(tmp_path / "out"), *TINY)
    assert result.exit_code == 0, result.output
    assert "fox: 4 frames, without masks" in result.stderr
    assert result.stdout == ""


def test_a_folder_with_a_checkpoint_is_not_trampled(puppets, tmp_path):
    out = ["-o", str(tmp_path / "out")]
    assert train(*sources(puppets), *out, *TINY).exit_code == 0
    before = (tmp_path / "out" / "checkpoint.safetensors").read_bytes()
    assert_refused(train(*sources(puppets), *out, *TINY), 2, "--resume", "--overwrite")
    other = [*TINY, "--resume"]
    other[other.index("--keypoints") + 1] = "5"
    assert_refused(train(*sources(puppets), *out, *other), 1, "keypoints = 4, not 5")
    assert (tmp_path / "out" / "checkpoint.safetensors").read_bytes() == before
    resumed = train(*sources(puppets), *out, *TINY, "--resume")
    assert resumed.exit_code == 0
    assert "resumed after step 2 of 2" in resumed.stderr
    assert train(*sources(puppets), *out, *TINY, "--overwrite").exit_code == 0


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--size", "100"], ["size must be a multiple of 64"]),
        (["--keypoints", "1"], ["keypoints"]),
        (["--width", "9"], ["width"]),
        (["--extractor-size", "48"], ["extractor_size"]),
        (["--batch", "1"], ["batch"]),
        (["--geometry", "1"], ["geometry must be a share between 0 and 1", "not 1.0 of 2 steps"]),
        (["--steps", "1"], ["geometry", "leaves both stages a step"]),
        (["--coarse", "0.5"], ["coarse needs a size that can be halved, 128 or its multiple, not 64"]),
        (["--minutes", "0"], ["minutes must be positive, not 0.0"]),
        (["--minutes", "nan"], ["minutes must be positive, not nan"]),
        (["--minutes", "inf"], ["minutes must be positive, not inf"]),
        (["--weight", "diversity=lots"], ["diversity=lots"]),
        (["--weight", "beauty=1"], ["beauty=1", "the losses are silhouette, equivariance, confusion"]),
    ],
)
def test_options_that_cannot_be_meant_are_usage_errors(puppets, tmp_path, arguments, words):
    assert_refused(train(*sources(puppets), "-o", str(tmp_path / "out"), *TINY, *arguments), 2, *words)
    assert not (tmp_path / "out").exists()


def test_epochs_are_no_option_any_more(puppets, tmp_path):
    result = train(*sources(puppets), "-o", str(tmp_path / "out"), "--epochs", "3")
    assert result.exit_code == 2
    assert "No such option" in result.stderr
    assert "--epochs" in result.stderr


def test_clips_that_cannot_be_used(puppets, tmp_path):
    (tmp_path / "empty").mkdir()
    rest = ["-o", str(tmp_path / "out"), *TINY]
    fox = ["--b", str(puppets / "fox.mp4")]
    assert_refused(train("--a", str(tmp_path / "none.mp4"), *fox, *rest), 1, "none.mp4")
    assert_refused(train("--a", str(tmp_path / "empty"), *fox, *rest), 1, "empty")
    short = tmp_path / "short"
    write_clip(short, BROWN, Motion.walk(2), 64)
    assert_refused(train("--a", str(short / "frames"), *fox, *rest), 1, "2 frames", "at least 3")
    masks = ["--a-masks", str(short / "masks")]
    assert_refused(train("--a", str(puppets / "cat.mp4"), *masks, *fox, *rest), 1, "2 masks for the 4 frames")
    assert not (tmp_path / "out").exists()


@pytest.mark.skipif(torch.cuda.is_available(), reason="asks for a CUDA device where there is none")
def test_a_missing_device_is_named(puppets, tmp_path):
    assert_refused(train(*sources(puppets), "-o", str(tmp_path), *TINY, "--device", "cuda"), 2, "no CUDA device")


def test_without_pytorch_the_extra_is_named(puppets, tmp_path):
    blocked = "import sys; sys.modules['torch'] = None; from jokr_rt.cli import main; main()"
    command = [sys.executable, "-c", blocked, "train", *sources(puppets), "-o", str(tmp_path / "out")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "pip install 'jokr-rt[train]'" in done.stderr


def test_clips_in_folders_of_one_name_are_told_apart(puppets, tmp_path):
    for name in ("horse", "cow"):
        shutil.copytree(puppets / ("cat" if name == "horse" else "fox") / "frames", tmp_path / name / "f")
    clips = ["--a", str(tmp_path / "horse" / "f"), "--b", str(tmp_path / "cow" / "f")]
    result = train(*clips, "-o", str(tmp_path / "out"), *TINY)
    assert result.exit_code == 0, result.output
    assert "horse-f: 4 frames" in result.stderr
    assert "cow-f: 4 frames" in result.stderr
    assert load_checkpoint(tmp_path / "out" / "checkpoint.safetensors").domains == {"a": "horse-f", "b": "cow-f"}


def test_clips_that_hold_nothing_to_learn_are_refused(puppets, tmp_path):
    rest = ["-o", str(tmp_path / "new" / "out"), *TINY]
    cat, copy, black = str(puppets / "cat" / "frames"), str(tmp_path / "copy"), tmp_path / "black"
    shutil.copytree(cat, copy)
    for second in (cat, copy):
        assert_refused(train("--a", cat, "--b", second, *rest), 1, "the same pictures twice")
    black.mkdir()
    for index in range(4):
        write_png(black / f"{index}.png", np.zeros((64, 64, 3), np.uint8))
    assert_refused(train("--a", cat, "--b", str(black), *rest), 1, "black: the picture is black throughout")
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(("steps", "words"), [("4", "step 2: the confusion loss has exploded"), ("40", "step ")])
def test_training_that_explodes_is_never_trained(puppets, tmp_path, steps, words):
    """Also where the last step of a stage is the first that is broken."""
    out = ["-o", str(tmp_path), *TINY, "--sheet-every", "100"]
    result = train(*sources(puppets), *out, "--steps", steps, "--lr", "1000")
    assert_refused(result, 1, words, "nothing of this run was saved", "a lower --lr")
    assert "trained" not in result.stderr
    assert not list(tmp_path.glob("*.safetensors"))


def test_a_folder_in_which_only_the_first_stage_was_saved_is_not_trampled_either(puppets, tmp_path):
    (tmp_path / "resume.safetensors").write_bytes(b"")
    assert_refused(train(*sources(puppets), "-o", str(tmp_path), *TINY), 2, "--resume", "--overwrite")
    assert [path.name for path in tmp_path.iterdir()] == ["resume.safetensors"]


def test_which_way_the_creatures_face_is_found_and_said(puppets, tmp_path, monkeypatch):
    """And not asked where it was said, nor on the way."""
    asked: list[list[str]] = []
    answers = iter([Facing(0.9), Facing(-0.1)])

    def answer(*clips: Clip) -> Facing:
        asked.append([clip.name for clip in clips])
        return next(answers)

    monkeypatch.setattr("jokr_rt.training.command.facing", answer)
    tiny = [option for option in TINY if option != "--no-mirror"]
    found = {}
    for name, more in (("same", []), ("opposite", []), ("told", ["--mirror"])):
        result = train(*sources(puppets), "-o", str(tmp_path / name), *tiny, *more)
        assert result.exit_code == 0, result.output
        found[name] = result.stderr, load_checkpoint(tmp_path / name / "checkpoint.safetensors").recipe["mirror"]
    assert asked == [["cat", "fox"]] * 2
    assert "cat and fox face the same way; if not, say --mirror\n" in found["same"][0]
    assert "cat and fox face opposite ways, as far as can be seen; if not, say --no-mirror\n" in found["opposite"][0]
    assert "face" not in found["told"][0]
    assert [mirror for _, mirror in found.values()] == [False, True, True]


def test_clips_that_cannot_be_read_are_told_before_time_is_spent(puppets, tmp_path, monkeypatch):
    monkeypatch.setattr("jokr_rt.training.command.choose_options", lambda *given: pytest.fail("measured"))
    clips = ["--a", str(puppets / "cat.mp4"), "--b", str(tmp_path / "none.mp4")]
    assert_refused(train(*clips, "-o", str(tmp_path / "out")), 1, "none.mp4")
    masks = ["--a-masks", str(tmp_path / "nomasks")]
    clips[3] = str(puppets / "fox.mp4")
    assert_refused(train(*clips, *masks, "-o", str(tmp_path / "out")), 1, "nomasks")
    assert not (tmp_path / "out").exists()


def test_a_resumed_run_keeps_what_the_machine_chose(puppets, tmp_path, monkeypatch):
    """Steps, precision, and which way the creatures face: it need not be typed, and nothing is measured anew."""
    monkeypatch.setattr("jokr_rt.training.auto.choose_precision", lambda device: "bf16")
    monkeypatch.setattr("jokr_rt.training.auto.measure_pace", lambda options, device: Pace(1.0, 1.0, 1.0))
    monkeypatch.setattr("jokr_rt.training.command.facing", lambda *clips: Facing(-1.0))
    step = Training._advance

    def press(training: Training) -> dict[str, float]:
        found = step(training)
        os.kill(os.getpid(), signal.SIGINT)
        return found

    monkeypatch.setattr(Training, "_advance", press)
    line = [*sources(puppets), "-o", str(tmp_path / "out"), *SMALL, "--minutes", "5", "--weight", "perceptual=0"]
    result = train(*line)
    assert result.exit_code == 130, result.output
    assert "chosen for this machine: precision bf16; 300 steps (--minutes, --steps)" in result.stderr
    assert "300 steps will take about 5 minutes" in result.stderr
    assert "too few for good pictures, which take 4000 and more: give it more --minutes" in result.stderr
    for name in ("choose_precision", "measure_pace"):
        monkeypatch.setattr(f"jokr_rt.training.auto.{name}", lambda *given: pytest.fail("measured"))
    monkeypatch.setattr("jokr_rt.training.command.facing", lambda *clips: pytest.fail("looked"))
    resumed = train(*line, "--resume")
    assert resumed.exit_code == 130, resumed.output
    assert "resumed after step 1 of 300" in resumed.stderr
    _, header = read_tensors(tmp_path / "out" / "resume.safetensors", RESUME_FORMAT)
    kept = [header["options"][name] for name in ("steps", "precision", "mirror", "coarse")]
    assert (header["step"], kept) == (2, [300, "bf16", True, 0.0])
    assert_refused(train(*line, "--resume", "--steps", "400"), 1, "steps = 300, not 400")


@pytest.mark.parametrize("more", [[], ["--resume"], ["--overwrite"]])
def test_a_folder_in_which_another_training_is_at_work_is_left_alone(puppets, tmp_path, more):
    with exclusive(tmp_path):
        result = train(*sources(puppets), "-o", str(tmp_path), *TINY, *more)
        assert_refused(result, 2, "another training is at work here")
        assert result.stderr.count("\n") == 1
        assert [path.name for path in tmp_path.iterdir()] == ["training.lock"]


def test_ctrl_c_says_how_to_go_on(puppets, tmp_path):
    out = tmp_path / "a run"
    line = ["train", *sources(puppets), "-o", str(out), *TINY, "--steps", "100000", "--json", "--overwrite"]
    with subprocess.Popen(command(*line), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        process.stdout.readline()
        os.kill(process.pid, signal.SIGINT)
        _, err = process.communicate(timeout=300)
    assert process.returncode == 130
    step = read_tensors(out / "resume.safetensors", RESUME_FORMAT)[1]["step"]
    assert not (out / "checkpoint.safetensors").exists()  # there are no pictures yet
    go_on = shlex.join(["jokr", *line[:-1], "--resume"])
    last = f"jokr: interrupted; step {step} is in {out}/resume.safetensors; go on with: {go_on}"
    assert err.splitlines()[-1] == last
    resumed = train(*shlex.split(go_on)[2:], "--steps", "100000", "--lr", "0.5")
    assert f"lr = {TrainOptions.lr}, not 0.5" in resumed.stderr
