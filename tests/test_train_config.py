"""Recipes: `jokr train --config`, and the config.toml that a run writes."""

import dataclasses
import os
import re
import tempfile
from pathlib import Path

import pytest
import tomli_w
import torch
from click.testing import CliRunner, Result
from hypothesis import given
from hypothesis import strategies as st

from jokr_rt.cli import main
from jokr_rt.cli_train import train as train_command
from jokr_rt.config import PRESETS
from jokr_rt.errors import OutputError, UsageError
from jokr_rt.evaluation.puppets import BLUE, BROWN, Motion, write_clip
from jokr_rt.training.checkpoint import load_checkpoint
from jokr_rt.training.losses import LossWeights
from jokr_rt.training.options import TrainOptions
from jokr_rt.training.recipe import CONFIG, read_recipe, recipe_keys, write_recipe
from jokr_rt.training.train import CHECKPOINT

MODEL = {"keypoints": 4, "size": 64, "width": 1 / 16, "extractor_size": 64}
RECIPE = """
a = "cat/frames"
a_masks = "cat/masks"
b = "fox/frames"
b_masks = "fox/masks"
preset = "realtime"
keypoints = 4
size = 64
width = 0.0625
steps = 3
batch = 2
lr = 1e-3
seed = 7
mirror = true

[weights]
diversity = 9
cycle = 0.0
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Clips of cat and fox and, beside them, the recipe."""
    folder = tmp_path_factory.mktemp("recipes")
    for name, puppet in (("cat", BROWN), ("fox", BLUE)):
        write_clip(folder / name, puppet, Motion.walk(4, seed=1), 64)
    (folder / "recipe.toml").write_text(RECIPE)
    return folder


def train(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["train", *map(str, arguments)])


def trained(recipe: Path, output: Path, *arguments: object) -> dict[str, object]:
    """The hyperparameters that a run really had."""
    result = train("--config", recipe, "-o", output, *arguments)
    assert result.exit_code == 0, result.output
    return load_checkpoint(output / CHECKPOINT).recipe


def test_a_recipe_is_one_command_and_the_config_it_writes_makes_the_same_weights(folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # the clips' paths count from the recipe's folder
    found = trained(Path(os.path.relpath(folder / "recipe.toml")), Path("first"))
    weights = dataclasses.asdict(LossWeights(diversity=9.0, cycle=0.0))
    assert found == MODEL | {
        "steps": 3, "geometry": 0.4, "coarse": 0.0, "batch": 2, "lr": 1e-3, "seed": 7, "mirror": True,
        "sheet_every": 500, "save_every": 500, "precision": "fp32", "holdout": 0,
        "weights": weights,
    }  # fmt: skip
    clips = {"a": "cat/frames", "a_masks": "cat/masks", "b": "fox/frames", "b_masks": "fox/masks"}
    written = read_recipe(Path("first", CONFIG))
    assert {key: Path(written.pop(key)).resolve() for key in clips} == {key: folder / to for key, to in clips.items()}
    assert written == found

    assert trained(Path("first", CONFIG), Path("again")) == found
    first, again = (load_checkpoint(Path(name, CHECKPOINT)).model.state_dict() for name in ("first", "again"))
    assert all(torch.equal(value, again[name]) for name, value in first.items())
    trained(Path("first", CONFIG), Path("other"), "--seed", 8)
    other = load_checkpoint(Path("other", CHECKPOINT)).model.state_dict()
    assert not all(torch.equal(value, other[name]) for name, value in first.items())


def test_a_written_config_resumes_its_run(folder, tmp_path):
    output = tmp_path / "out"
    trained(folder / "recipe.toml", output)
    result = train("--config", output / CONFIG, "-o", output, "--resume", "--save-every", 9)
    assert result.exit_code == 0, result.output
    assert "resumed after step 3 of 3" in result.stderr
    assert read_recipe(output / CONFIG)["save_every"] == 9


def test_typed_options_win_over_the_file(folder, tmp_path):
    recipe = folder / "recipe.toml"
    typed = [
        "--steps",
        2,
        "--weight",
        "cycle=2",
        "--weight",
        "sparsity=0",
        "--keypoints",
        5,
        "--lr",
        0.002,
        "--no-mirror",
    ]
    found = trained(recipe, tmp_path / "a", *typed)
    assert found["weights"] == dataclasses.asdict(LossWeights(diversity=9.0, cycle=2.0, sparsity=0.0))
    assert (found["steps"], found["keypoints"], found["lr"], found["seed"]) == (2, 5, 0.002, 7)
    assert found["mirror"] is False


def test_typed_options_win_over_what_the_file_says_in_other_words(folder, tmp_path):
    output = tmp_path / "out"
    typed = ["--preset", "full", "--size", 64, "--width", 1 / 32, "--a", folder / "fox" / "frames"]
    found = trained(folder / "recipe.toml", output, *typed)
    assert (found["keypoints"], found["width"]) == (PRESETS["full"].keypoints, 1 / 32)
    written = read_recipe(output / CONFIG)
    assert written["a"] == str(folder / "fox" / "frames")
    assert "a_masks" not in written  # they were of the other clip
    assert written["b_masks"] == str(folder / "fox" / "masks")


def test_typed_minutes_win_over_the_files_steps_and_typed_steps_over_its_minutes(folder, tmp_path, monkeypatch):
    asked: list[tuple[object, float]] = []

    def note(sources, masks, output, wanted, *, minutes, **rest):
        asked.append((wanted["steps"], minutes))
        assert wanted["coarse"] is wanted["precision"] is None  # left to the machine

    monkeypatch.setattr("jokr_rt.training.command.train_clips", note)
    (tmp_path / "minutes.toml").write_text((folder / "recipe.toml").read_text().replace("steps = 3", "minutes = 5"))
    for recipe, typed in (
        (folder / "recipe.toml", ["--minutes", 7]), (folder / "recipe.toml", []),
        (tmp_path / "minutes.toml", []), (tmp_path / "minutes.toml", ["--steps", 9]),
    ):  # fmt: skip
        assert train("--config", recipe, "-o", tmp_path / "out", *typed).exit_code == 0
    assert asked == [(None, 7.0), (3, 60.0), (None, 5.0), (9, 5.0)]


KEYS = (
    "a, a_masks, b, b_masks, preset, keypoints, size, width, extractor_size, steps, geometry, coarse, batch, lr, seed, "
    "mirror, sheet_every, save_every, precision, holdout, weights, minutes"
)
LOSSES = ", ".join(f"weights.{field.name}" for field in dataclasses.fields(LossWeights))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("step = 3", f"step: no such key; the keys are {KEYS}"),
        ("[model]\nsize = 64", "model: no such key"),
        ("[weights]\nbeauty = 1", f"weights.beauty: no such key; the keys are {LOSSES}"),
        ("[weights]\ncycle = '1'", "weights.cycle must be a number, not '1'"),
        ("weights = 1", "weights must be a table, not 1"),
        ("steps = 3.0", "steps must be a whole number, not 3.0"),
        ("steps = true", "steps must be a whole number, not True"),
        ("lr = 'fast'", "lr must be a number, not 'fast'"),
        ("a = 1", "a must be text in quotes, not 1"),
        ("preset = 'big'", "preset must be auto, full or realtime or small, not 'big'"),
        ("batch = 2\nbatch", "not a TOML file: "),
        ("a = '\udcff'", "not a TOML file: 'utf-8' codec can't decode"),
    ],
)  # fmt: skip
def test_what_cannot_be_meant_is_refused_with_file_and_key(tmp_path, text, words):
    path = tmp_path / "bad.toml"
    path.write_bytes(text.encode(errors="surrogateescape"))
    result = train("--config", path, "-o", tmp_path / "out")
    assert result.exit_code == 2
    (line,) = result.stderr.splitlines()
    assert line.startswith(f"jokr: error: {path}: {words}")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("lr = nan", "lr must be positive, not nan"),
        ("seed = -1", "seed must be 0 or more"),
        ("[weights]\ncycle = -1", "the weight cycle must be 0 or more, not -1.0"),
        ("[weights]\ncycle = inf", "the weight cycle must be 0 or more, not inf"),
        ("size = 100", "size must be a multiple of 64"),
    ],
)
def test_values_out_of_range_are_usage_errors(tmp_path, text, word):
    path = tmp_path / "bad.toml"
    path.write_text(f"a = 'a'\nb = 'b'\n{text}\n")
    result = train("--config", path, "-o", tmp_path / "out")
    assert (result.exit_code, result.stderr.count("\n")) == (2, 1)
    assert word in result.stderr


def test_a_missing_file_and_missing_clips_are_named(tmp_path):
    missing = train("--config", tmp_path / "none.toml", "-o", tmp_path / "out")
    assert missing.exit_code == 2
    assert f"{tmp_path / 'none.toml'}: cannot be read: No such file" in missing.stderr
    (tmp_path / "a.toml").write_text("a = 'a.mp4'")
    result = train("--config", tmp_path / "a.toml", "-o", tmp_path / "out")
    assert result.exit_code == 2
    assert "Missing option '--b'" in result.stderr


CHOSEN = ("coarse", "precision", "mirror")


def test_every_key_is_an_option_and_help_tells_the_dataclass_defaults():
    options = {option.name: option for option in train_command.params}
    assert set(recipe_keys()) <= set(options)
    for field in dataclasses.fields(TrainOptions):
        if field.name not in ("config", "steps", "weights", *CHOSEN):
            assert options[field.name].default == field.default, field.name
    assert "epochs" not in options
    words = " ".join(CliRunner().invoke(main, ["train", "--help"]).output.split())
    told = [f"[default: {getattr(TrainOptions, name)}]" for name in ("geometry", "batch", "lr", "sheet_every")]
    for default in ("[default: auto]", "[default: 60.0]", *told):
        assert default in words


def test_the_recipe_in_the_documentation_is_one(tmp_path):
    from jokr_rt.training import recipe

    assert recipe.__doc__
    (tmp_path / "doc.toml").write_text(re.sub("(?m)^ {4}|^(?! {4}).*$", "", recipe.__doc__))
    assert set(read_recipe(tmp_path / "doc.toml")) == set(recipe_keys()) - {"b_masks", "minutes"}


numbers = st.floats(min_value=1e-300, max_value=1e300)
names = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0/\\"), min_size=1)


@given(numbers, numbers, st.integers(0, 2**63 - 1), names)
def test_what_is_written_is_read_back_exactly(lr, weight, seed, name):
    options = TrainOptions(lr=lr, seed=seed, weights=LossWeights(cycle=weight))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, CONFIG)
        write_recipe(path, options, {"a": Path("/clips", name), "b": Path(name)})
        expected = options.to_recipe() | {"a": str(Path("/clips", name)), "b": str(Path.cwd() / name)}
        assert read_recipe(path) == expected
        assert [child.name for child in Path(folder).iterdir()] == [CONFIG]


def test_a_config_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / CONFIG).mkdir()
    with pytest.raises(OutputError, match=rf"{CONFIG}: cannot be written"):
        write_recipe(tmp_path / CONFIG, TrainOptions(), {})
    assert [path.name for path in tmp_path.iterdir()] == [CONFIG]


def test_the_keys_of_a_file_are_those_of_its_table(tmp_path):
    path = tmp_path / "t.toml"
    path.write_text(tomli_w.dumps({"weights": {"steps": 1}}))
    with pytest.raises(UsageError, match=r"weights\.steps: no such key"):
        read_recipe(path)
