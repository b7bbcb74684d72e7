"""`jokr evaluate` as a user types it, and what it says to bad input."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from export import export_bundle
from jokr_rt.cli import main
from jokr_rt.evaluation.puppets import BLUE, BROWN, Motion, write_clip
from jokr_rt.training.checkpoint import load_checkpoint, save_checkpoint
from tests import process
from tests.process import jokr
from tests.test_runtime_only import PRELUDE
from tests.tolerances import DIGIT

SHORT = ["--frames", "16"]
CLASSIFIED = 2 * 16  # frames of A and of B


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("clips")
    for name, puppet in (("cat", BROWN), ("fox", BLUE)):
        write_clip(folder / name, puppet, Motion.walk(16, seed=1), 64)
    return folder


def evaluate(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main, ["evaluate", *map(str, arguments)])


def told(result: Result) -> dict:
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def assert_refused(result: Result, code: int, *words: str) -> None:
    process.assert_refused(result, code, *words)
    assert result.stdout == ""


def test_a_bundle_on_the_puppets_prints_tables_and_exits_with_0_although_bars_are_missed(tiny_bundle):
    result = evaluate(tiny_bundle, "--data", "puppets", *SHORT)
    assert result.exit_code == 0, result.output
    assert "engine openvino" in result.stderr
    assert "puppets: a is brown, b is blue; held-out walk of 16 frames" in result.stderr
    for words in ("PSNR over the best baseline", "nearest keypoints", "joint ratio", "MISSED"):
        assert words in result.stdout


def test_a_family_of_puppets_can_be_chosen(tiny_bundle):
    chosen = told(evaluate(tiny_bundle, "--data", "puppets", "--family", "walker-mirrored", *SHORT, "--json"))
    assert chosen["notes"][0].startswith("puppets: a is sailor, b is gnome-mirrored; held-out walk of 16 frames")
    assert chosen["directions"]["a2b"]["affine"] is not None


def test_a_checkpoint_and_its_bundle_measure_the_same(tiny_checkpoint, tiny_bundle):
    arguments = ["--data", "puppets", *SHORT, "--json"]
    torch, bundle = (told(evaluate(model, *arguments)) for model in (tiny_checkpoint, tiny_bundle))
    assert (torch["engine"], bundle["engine"]) == ("torch", "openvino")
    assert len(torch["bars"]) == 10
    assert torch["model"] == str(tiny_checkpoint)
    for one, other in zip(torch["bars"], bundle["bars"], strict=True):
        is_count = one["measure"] == "fresh domain classifier"
        within = 100 / CLASSIFIED if is_count else abs(other["value"]) * DIGIT  # a frame that is taken for the other's
        assert one["value"] == pytest.approx(other["value"], abs=within, rel=0), one["measure"]


def test_on_black_the_model_sees_the_creatures_alone(clips, tiny_bundle):
    fox = ["--data", clips / "fox" / "frames", clips / "fox" / "frames"]
    masks = ["--a-masks", clips / "fox" / "masks", "--b-masks", clips / "fox" / "masks"]
    plain, cut_out = (told(evaluate(tiny_bundle, *fox, *masks, *more, "--json")) for more in ([], ["--on-black"]))
    assert "before black" in cut_out["notes"][-1]
    assert plain["directions"]["a2b"]["cycle_error"] != cut_out["directions"]["a2b"]["cycle_error"]
    assert_refused(evaluate(tiny_bundle, *fox, "--on-black"), 2, "--on-black", "--a-masks")


def test_two_clips_are_measured_without_truth(clips, tiny_bundle, tmp_path):
    cat, fox = (clips / name / "frames" for name in ("cat", "fox"))
    masks = ["--a-masks", clips / "cat" / "masks", "--b-masks", clips / "fox" / "masks", "--engine", "onnxruntime"]
    found = told(evaluate("--data", cat, fox, tiny_bundle, *masks, "--json"))
    assert (found["engine"], found["bars"], found["applications"]) == ("onnxruntime", [], {})
    assert found["directions"]["a2b"]["retargeting"] is None
    assert 0 <= found["directions"]["a2b"]["on_mask"] <= 1
    assert found["notes"][0] == "no ground truth; each clip counts as its own training clip"
    twice = told(evaluate(tiny_bundle, "--data", cat, "--data", fox, *masks, "--json"))
    assert twice == found
    plain = evaluate(tiny_bundle, "--data", cat, fox, "--report", tmp_path / "page")
    assert plain.exit_code == 0, plain.output
    assert f"report: {tmp_path / 'page' / 'index.html'}" in plain.stderr
    assert f"jokr evaluate {tiny_bundle} --data {cat} {fox} --report" in (tmp_path / "page" / "index.html").read_text()
    assert "cycle error" in plain.stdout
    assert "MISSED" not in plain.stdout
    assert "keypoints on the mask" not in plain.stdout  # there are none


def test_own_frames_that_training_kept_out_are_measured_and_compared(clips, tiny_checkpoint, tiny_bundle, tmp_path):
    cat, fox = (clips / name / "frames" for name in ("cat", "fox"))
    masks = ["--a-masks", clips / "cat" / "masks", "--b-masks", clips / "fox" / "masks"]
    kept = tmp_path / "kept.safetensors"
    checkpoint = load_checkpoint(tiny_checkpoint)
    save_checkpoint(kept, replace(checkpoint, recipe={"holdout": 5}))
    pair = ["--data", cat, fox, *masks, "--holdout", "5"]
    found = told(evaluate(kept, *pair, "--against", tiny_bundle, "--json"))
    assert "one of every 5, which training never saw" in found["notes"][0]
    for report in (found, found["against"]):
        assert [side["own"]["frames"] for side in report["directions"].values()] == [3, 3]
        assert [bar["measure"] for bar in report["bars"]][:2] == [
            "own silhouette, IoU",
            "own silhouette, IoU of the lowest third",
        ]
    words = evaluate(kept, *pair, "--against", tiny_bundle, "--report", tmp_path / "page")
    assert words.exit_code == 0, words.output
    assert f"{tiny_bundle}: does not say what it was trained with; unless with --holdout 5" in words.stderr
    for shown in (words.stdout, (tmp_path / "page" / "index.html").read_text()):
        assert "Bars, side by side" in shown
        assert "Measures, side by side" in shown
    exported = tmp_path / "kept.jokr"
    assert export_bundle(kept, exported).recipe == {"holdout": 5}
    assert_refused(evaluate(exported, *pair[:-1], "4"), 2, "was trained with --holdout 5", "--holdout 4")
    save_checkpoint(kept, replace(checkpoint, recipe={"holdout": 0}))
    assert_refused(evaluate(kept, *pair), 2, "kept none from training, so that it knows frames of --holdout 5")


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["--data", "puppets", "--holdout", "5"], 2, ["--holdout is for two clips"]),
        (["--data", "a.mp4", "b.mp4", "--holdout", "1"], 2, ["--holdout must be 0, or 2 or more"]),
        (["--data", "cats"], 2, ["--data cats: give puppets or two clips"]),
        (["--data", "puppets", "--data", "b.mp4"], 2, ["--data puppets stands alone"]),
        (["--data", "a.mp4", "--data", "b.mp4", "--data", "c.mp4"], 2, ["give puppets or two clips"]),
        (["--data", "puppets", "--a-masks", "masks"], 2, ["the puppets bring their own masks"]),
        (["--data", "puppets", "--family", "cat"], 2, ["unknown family 'cat'; there are quadruped, walker, flower"]),
        (["--data", "a.mp4", "b.mp4", "--family", "walker"], 2, ["--family is for --data puppets"]),
        (["--data", "none.mp4", "other.mp4"], 1, ["none.mp4: there is no such file"]),
        (["--data", "puppets", "--engine", "tpu"], 2, ["unknown engine 'tpu'"]),
        (["--data", "puppets", "--engine", "torch"], 2, ["torch runs a checkpoint, not a bundle"]),
    ],
)
def test_what_cannot_be_meant_is_refused_in_one_line(tiny_bundle, arguments, code, words):
    assert_refused(evaluate(tiny_bundle, *arguments), code, *words)


def test_a_model_that_is_none_is_refused(tmp_path, tiny_checkpoint):
    assert_refused(evaluate(tmp_path / "none", "--data", "puppets"), 1, "no bundle here")
    wrong = evaluate(tiny_checkpoint, "--data", "puppets", "--engine", "onnxruntime")
    assert_refused(wrong, 2, "a file, and a bundle is a folder")


def test_a_clip_that_is_too_short_is_refused(clips, tiny_bundle, tmp_path):
    write_clip(tmp_path / "short", BROWN, Motion.walk(3, seed=1), 64)
    pair = ["--data", tmp_path / "short" / "frames", clips / "fox" / "frames"]
    assert_refused(evaluate(tiny_bundle, *pair), 1, "3 frames; an evaluation needs at least 16")


def test_a_report_that_cannot_be_written_is_refused_before_anything_is_measured(tiny_bundle, tmp_path):
    (tmp_path / "file").write_text("")
    refused = evaluate(tiny_bundle, "--data", "puppets", *SHORT, "--report", tmp_path / "file" / "out")
    assert_refused(refused, 1, "file")
    assert "held-out walk" not in refused.stderr


@pytest.mark.parametrize(("package", "rest"), [("sklearn", []), ("skimage", []), ("jinja2", ["--report", "out"])])
def test_a_missing_extra_is_named(tiny_bundle, tmp_path, package, rest):
    prelude = PRELUDE.replace("('torch',", f"('{package}',")
    assert prelude != PRELUDE
    done = jokr("evaluate", tiny_bundle, "--data", "puppets", *rest, prelude=prelude)
    assert done.returncode == 1
    assert done.stderr.startswith("jokr: error: jokr evaluate needs the extra evaluate (No module named ")
    assert done.stderr.endswith("): pip install 'jokr-rt[evaluate]'\n")
    assert done.stderr.count("\n") == 1


def test_a_bundle_is_measured_without_torch(tiny_bundle, clips):
    pair = ["--data", clips / "cat" / "frames", clips / "fox" / "frames"]
    done = jokr("evaluate", tiny_bundle, *pair, "--json", prelude=PRELUDE)
    assert done.returncode == 0, done.stderr
    report, loaded = done.stdout.splitlines()
    assert json.loads(report)["engine"] == "openvino"
    assert loaded == "loaded"
