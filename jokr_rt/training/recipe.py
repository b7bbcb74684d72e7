"""Recipes: the hyperparameters of a run, and the paths of its clips, as a TOML file.

    a = "cat/frames"            # clips and masks: relative to the recipe's folder; as --a, --a-masks, --b, --b-masks
    a_masks = "cat/masks"
    b = "fox.mp4"
    preset = "realtime"         # what the next four default to
    keypoints = 10              # these and the others: fields of ModelConfig and TrainOptions
    size = 256
    extractor_size = 128
    width = 0.5
    steps = 20000               # or minutes = 60.0
    geometry = 0.4              # share of the steps, the first ones, that learn keypoints and shapes
    coarse = 0.5                # share of the others at half the size, the first ones
    batch = 6
    lr = 5e-4
    seed = 0
    mirror = false              # whether the creatures face opposite ways
    sheet_every = 500
    save_every = 500
    precision = "fp32"          # or "bf16"
    holdout = 5                 # keep every fifth frame from training, for `jokr evaluate --holdout 5`

    [weights]                   # fields of LossWeights
    diversity = 4.0

A key is the command-line option of that name, and may be left out like it.
"""

import os
import sys
from pathlib import Path
from typing import Any, get_args, get_type_hints

import tomli_w

from jokr_rt.config import AUTO, PRESETS, ModelConfig
from jokr_rt.errors import OutputError, UsageError
from jokr_rt.training.losses import LossWeights
from jokr_rt.training.options import TrainOptions

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

CONFIG = "config.toml"
CLIPS = ("a", "a_masks", "b", "b_masks")
_WORDS = {int: "a whole number", float: "a number", bool: "true or false", str: "text in quotes", dict: "a table"}


def recipe_keys() -> dict[str, Any]:
    """The type of every key that a recipe may have; of `weights`, which is a table, dict."""
    fields = get_type_hints(ModelConfig) | get_type_hints(TrainOptions)
    del fields["config"]
    return dict.fromkeys((*CLIPS, "preset"), str) | fields | {"minutes": float, "weights": dict}


def read_recipe(path: Path) -> dict[str, Any]:
    """The keys that a recipe gives, checked; clips' paths made relative to the working folder.

    Raises UsageError in one line that names the file, the key and what is allowed.
    """
    try:
        values = tomllib.loads(path.read_bytes().decode())
    except OSError as error:
        raise UsageError(f"{path}: cannot be read: {error.strerror}; give a TOML file to --config") from None
    except ValueError as error:  # TOMLDecodeError, or not UTF-8
        raise UsageError(f"{path}: not a TOML file: {error}") from None
    recipe = _checked(path, "", values, recipe_keys())
    if "preset" in recipe and recipe["preset"] not in (AUTO, *PRESETS):
        raise UsageError(f"{path}: preset must be {AUTO}, {' or '.join(PRESETS)}, not {recipe['preset']!r}")
    if "weights" in recipe:
        recipe["weights"] = _checked(path, "weights.", recipe["weights"], get_type_hints(LossWeights))
    return recipe | {key: str(path.parent / recipe[key]) for key in CLIPS if key in recipe}


def write_recipe(path: Path, options: TrainOptions, clips: dict[str, Path]) -> None:
    """Write all hyperparameters, defaults too, and absolute paths of `clips`, atomically. Raises OutputError."""
    values = {key: str(clip.absolute()) for key, clip in clips.items()} | options.to_recipe()
    partial = path.with_name(path.name + ".part")
    try:
        partial.write_text(tomli_w.dumps(values), encoding="utf-8")
        os.replace(partial, path)
    except (OSError, UnicodeError) as error:
        partial.unlink(missing_ok=True)
        raise OutputError(f"{path}: cannot be written: {error}") from None


def _checked(path: Path, table: str, values: dict[str, Any], allowed: dict[str, Any]) -> dict[str, Any]:
    """`values`, whole numbers made real where that is what a key holds. Raises UsageError at the first wrong one."""
    checked = {}
    for key, value in values.items():
        if key not in allowed:
            raise UsageError(
                f"{path}: {table}{key}: no such key; the keys are {', '.join(map(table.__add__, allowed))}"
            )
        kind = (get_args(allowed[key]) or (allowed[key],))[0]  # int | None: TOML has no null, a key is left out
        if kind is float and type(value) is int:
            value = float(value)
        if type(value) is not kind:
            raise UsageError(f"{path}: {table}{key} must be {_WORDS[kind]}, not {value!r}")
        checked[key] = value
    return checked
