"""The benchmarks of training, end to end on tiny settings, and the arithmetic of their tables."""

import hashlib
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from click.testing import CliRunner, Result

from jokr_rt.errors import JokrError, UsageError
from jokr_rt.evaluation.bars import PUPPET_BARS
from jokr_rt.training import stage, train, views
from jokr_rt.training.checkpoint import Checkpoint
from jokr_rt.training.data import on_black
from tests.process import ROOT
from tests.tolerances import PROCESSES

TINY = {"size": 64, "extractor_size": 64, "width": 1 / 16, "keypoints": 4, "batch": 2, "lr": 8e-4, "walk": 16}
OPTIONS = [str(word) for name, value in TINY.items() for word in (f"--{name.replace('_', '-')}", value)]
SHORT = [*OPTIONS, "--frames", "16", "--steps", "3"]
MEASURES = [measure for measure, *_ in PUPPET_BARS]


@pytest.fixture(scope="module", autouse=True)
def _scripts() -> Iterator[None]:
    """Importable as they are for each other; processes that they start inherit the path."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT / "benchmarks"))
        yield


@pytest.fixture
def ablations() -> ModuleType:
    import ablations

    return ablations


@pytest.fixture
def training() -> ModuleType:
    import training

    return training


@pytest.fixture
def harness() -> ModuleType:
    import harness

    return harness


@pytest.fixture
def float64(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """As `IN_FLOAT64` in tests/test_distributed.py."""
    monkeypatch.setattr(torch.Tensor, "float", torch.Tensor.double)
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def call(program: ModuleType, *arguments: str | Path) -> Result:
    return CliRunner().invoke(program.main, list(map(str, arguments)))


def told(result: Result) -> dict[str, Any]:
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def test_ablations_trains_and_measures_each_variant_once(ablations, tmp_path):
    arguments = [tmp_path, "--only", "no-cycle", *SHORT]
    found = told(call(ablations, *arguments, "--json"))
    assert found == json.loads((tmp_path / "ablations.json").read_text())
    assert found["settings"] == TINY | {"frames": 16, "steps": 3}
    assert found["machine"]["torch"] == torch.__version__
    full, other = found["variants"]
    assert [full["variant"], other["variant"]] == ["full", "no-cycle"]
    for row in (full, other):
        assert list(row["measures"]) == MEASURES
        assert row["runs"]["0"]["measures"] == row["measures"]
        assert (tmp_path / f"{row['variant']}-0" / "sheet-000003.png").exists()
    assert full["measures"] != other["measures"]
    for name in MEASURES:
        assert other["difference"][name] == other["measures"][name] - full["measures"][name]
    again = call(ablations, *arguments)
    assert again.exit_code == 0, again.output
    assert again.stderr.split("\n")[:2] == ["full-0: kept from before", "no-cycle-0: kept from before"]
    lines = again.stdout.splitlines()
    assert [line.split(" | ")[0] for line in lines[:4]] == ["| variant", "| ---", "| full", "| no-cycle"]
    assert f"| {full['measures']['SSIM, whole frame']:.3f} |" in lines[2]
    assert lines[-2].startswith("batch 2, extractor size 64, frames 16, keypoints 4, lr 0.0008, size 64, steps 3, walk")
    assert lines[-2].endswith(", walk 16, width 0.0625, seeds 0")
    assert f"torch {torch.__version__}; {found['seconds']:.0f} s" in lines[-1]


def test_training_times_steps_and_draws_the_curve(training, tmp_path):
    arguments = [tmp_path, "--only", "bf16", "--repeats", "1", "--minutes", "0.0001", *SHORT]
    found = told(call(training, *arguments, "--json"))
    assert found == json.loads((tmp_path / "training.json").read_text())
    baseline, bf16 = found["speed"]
    assert [baseline["variant"], bf16["variant"]] == ["this-code", "bf16"]
    assert baseline["ratio"] == 1
    assert bf16["ratio"] == bf16["steps_per_second"] / baseline["steps_per_second"]
    assert json.loads((tmp_path / "bf16-1" / "result.json").read_text())["settings"]["precision"] == "bf16"
    (curve,) = found["curves"]
    assert curve["steps"] == curve["points"][-1]["step"] == max(2, round(0.006 * baseline["steps_per_second"]))
    assert list(curve["points"][-1]["measures"]) == MEASURES
    assert curve["points"][-1]["minutes"] > 0
    assert (tmp_path / "training.png").read_bytes()[:4] == b"\x89PNG"
    again = call(training, *arguments)
    assert again.exit_code == 0, again.output
    assert again.stderr.count("kept from before") == 3
    assert again.stdout.startswith(f"this-code        {baseline['steps_per_second']:6.2f} steps/s")


def test_a_curve_that_was_stopped_goes_on_at_its_last_point(training, harness, tmp_path, monkeypatch):
    settings = TINY | {"frames": 16, "steps": 8, "seed": 0}
    harness.write_puppets(tmp_path, settings)
    whole = training.learn(tmp_path / "whole", **settings)["points"]
    assert [point["step"] for point in whole] == list(range(1, 9))

    taken = []

    def stop(step: int) -> Callable[..., dict[str, float]]:
        def measure(checkpoint: Checkpoint, data: object) -> dict[str, float]:
            taken.append(checkpoint.step)
            if checkpoint.step == step:
                raise KeyboardInterrupt
            return harness.measures(checkpoint, data)

        return measure

    monkeypatch.setattr(training, "measures", stop(6))
    with pytest.raises(KeyboardInterrupt):
        training.learn(tmp_path / "parts", **settings)
    begun = json.loads((tmp_path / "parts" / "points.json").read_text())["points"]
    monkeypatch.setattr(training, "measures", stop(0))
    parts = training.learn(tmp_path / "parts", **settings)["points"]
    assert taken == [1, 2, 3, 4, 5, 6, 6, 7, 8]
    assert parts[:5] == begun
    assert [point["measures"] for point in parts] == [point["measures"] for point in whole]
    assert sorted(point["minutes"] for point in parts) == [point["minutes"] for point in parts]

    taken.clear()
    training.learn(tmp_path / "parts", **settings | {"lr": 4e-4})
    assert taken == [1, 2, 3, 4, 5, 6, 7, 8]


@pytest.mark.parametrize(
    ("program", "arguments", "words"),
    [
        ("ablations", ["--only", "no-cycles"], "--only no-cycles: there is no such; choose from full, no-domain"),
        ("ablations", ["--seeds", "1,two"], "--seeds 1,two: give numbers with commas between"),
        ("ablations", ["--seeds", "-1"], "--seeds -1: each must be 0 or more"),
        ("ablations", ["--size", "65"], "size must be a multiple of 64"),
        ("ablations", ["--frames", "3"], "--frames 3: give at least 16 frames"),
        ("training", ["--minutes", "0"], "--minutes 0: none may be 0"),
        ("training", ["--minutes", "nan"], "--minutes nan: each must be 0 or more"),
        ("training", ["--batch", "1"], "batch must be at least 2"),
    ],
)
def test_what_cannot_be_meant_is_refused_in_one_line(request, tmp_path, program, arguments, words):
    refused = call(request.getfixturevalue(program), tmp_path / "out", *arguments)
    assert refused.exit_code == 2, refused.output
    assert refused.stderr.startswith("error: " + words)
    assert refused.stderr.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_it_runs_as_a_script(tmp_path):
    script = [sys.executable, str(ROOT / "benchmarks" / "ablations.py"), str(tmp_path), "--only", "nothing"]
    done = subprocess.run(script, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith("error: --only nothing: there is no such")


@pytest.fixture
def train_variant(harness, ablations, tmp_path, monkeypatch) -> Callable[[str], train.Training]:
    """Two steps of a variant's geometry, the first on black, the second with all losses, and three of its texture, the
    last with all losses; in this process."""
    settings = TINY | {"steps": 5, "seed": 0}
    harness.write_puppets(tmp_path, settings)

    def run(name: str) -> train.Training:
        with monkeypatch.context() as constants:
            constants.setattr(train, "BACKGROUNDS", train.BACKGROUNDS)
            constants.setattr(stage, "AVERAGE_DECAY", stage.AVERAGE_DECAY)
            constants.setattr(views.TextureLoader, "_views", views.TextureLoader._views)
            variant = ablations.VARIANTS[name]
            trained = harness.puppet_training(tmp_path / "run", settings | variant.settings)
            variant.change(trained)
            for steps in (2, 3):
                for _ in range(steps):
                    trained._advance()
                if trained.in_geometry:
                    trained._begin_texture()
        return trained

    return run


def test_every_variant_is_another_training(train_variant, ablations):
    """A part that is off already, or a constant that moved, would make an ablation measure nothing."""
    digests = {}
    for name in ablations.VARIANTS:
        trained = train_variant(name)
        learnt = [*trained.model.parameters(), *trained.stage.average.parameters()]
        weights = torch.cat([weight.detach().flatten() for weight in learnt])
        digests[name] = hashlib.sha256(weights.numpy().tobytes()).hexdigest()
    for name, digest in digests.items():
        twins = [other for other, theirs in digests.items() if theirs == digest]
        assert twins == [name]


def test_variants_are_what_they_say(train_variant):
    unmoved = train_variant("no-stn").model
    for direction in ("a2b", "b2a"):
        torch.testing.assert_close(unmoved.stn(direction).theta.detach(), torch.eye(2, 3))
    mirrored = train_variant("map-that-mirrors").model
    for direction in ("a2b", "b2a"):
        assert torch.linalg.det(mirrored.stn(direction).theta[:, :2]) < 0
    raw = train_variant("no-averaged-weights").stage
    for averaged, weight in zip(raw.average.parameters(), raw.learner.parameters(), strict=True):
        assert torch.equal(averaged, weight)


def test_looks_of_the_frame_itself_are_of_its_own_view(train_variant, ablations, monkeypatch):
    loader = train_variant("full").loader
    monkeypatch.setattr(views.TextureLoader, "_views", views.TextureLoader._views)
    ablations.VARIANTS["no-cross-frame-appearance"].change(None)
    batch = loader.make(0)
    assert torch.equal(batch.looks, on_black(batch.targets))


@pytest.mark.usefixtures("float64")
def test_batches_made_in_line_are_the_same(training, harness, tmp_path, monkeypatch):
    settings = TINY | {"steps": 2, "seed": 0}
    harness.write_puppets(tmp_path, settings)
    losses: dict[str, list[dict[str, float]]] = {training.BASELINE: [], "batches-in-line": []}
    for loader in (views.GeometryLoader, views.TextureLoader):
        monkeypatch.setattr(loader, "batch", loader.batch)
    for variant, values in losses.items():
        trained = harness.puppet_training(tmp_path / variant, settings)
        training.VARIANTS[variant].change(trained)
        trained.run(lambda step, steps, found, share, values=values: values.append(found))
        assert bool(trained.loader._maker._threads) == (variant == training.BASELINE)
    for ours, theirs in zip(*losses.values(), strict=True):
        assert ours == pytest.approx(theirs, rel=PROCESSES, abs=PROCESSES)


def test_a_result_is_kept_for_the_same_settings_and_code_only(harness, tmp_path, monkeypatch):
    (tmp_path / "tally.py").write_text(
        "def tally(folder, **settings):\n"
        "    file = folder / 'tally'\n"
        "    file.write_text((file.read_text() if file.exists() else '') + 'x')\n"
        "    return settings | {'runs': len(file.read_text())}\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    from tally import tally

    assert harness.kept(tmp_path / "run", tally, {"steps": 3}) == {"steps": 3, "runs": 1}
    assert harness.kept(tmp_path / "run", tally, {"steps": 3}) == {"steps": 3, "runs": 1}
    assert harness.kept(tmp_path / "run", tally, {"steps": 4}) == {"steps": 4, "runs": 2}
    with monkeypatch.context() as older:
        older.setattr(harness, "CODE", "older")
        with pytest.raises(JokrError, match="the code of jokr_rt changed"):
            harness.kept(tmp_path / "run", tally, {"steps": 4})
    (tmp_path / "run" / "result.json").write_text("{")
    with pytest.raises(UsageError, match="is no result of a run"):
        harness.kept(tmp_path / "run", tally, {"steps": 4})


def test_the_table_shows_means_over_seeds_and_differences_to_full(ablations):
    def run(value: float) -> dict[str, Any]:
        return {"measures": dict.fromkeys(MEASURES, value), "seconds": 1.0}

    error = {"error": "step 7: the cycle loss is nan", "seconds": 1.0}
    found = {
        "full": {0: run(1.0), 1: run(2.0)},
        "no-cycle": {0: run(1.0), 1: run(0.5)},
        "no-stn": {0: run(1), 1: error},
    }
    rows = ablations.summary(found)
    name = MEASURES[0]
    assert [rows[0][key][name] for key in ("measures", "range", "difference")] == [1.5, 1.0, 0.0]
    assert [rows[1][key][name] for key in ("measures", "range", "difference")] == [0.75, 0.5, -0.75]
    lines = ablations.markdown(rows, [0, 1]).splitlines()[2:]
    assert [line.split(" | ")[:2] for line in lines] == [
        ["| full", "1.50"],
        ["| full, range over 2 seeds", "1.00"],
        ["| no-cycle", "0.75 (-0.75)"],
        ["| no-stn", "failed: step 7: the cycle loss is nan"],
    ]
    assert {line.count("|") for line in lines} == {len(MEASURES) + 2}


def test_speeds_are_medians_over_runs_against_the_first_variant(training):
    times = {"this-code": (0.5, 0.25, 1.0), "bf16": (0.2, 0.25, 0.1)}
    runs = {
        name: [{"seconds": each, "geometry": each / 2, "texture": 3 * each, "threads": 1} for each in seconds]
        for name, seconds in times.items()
    }
    first, second = training.speeds(runs)
    assert (first["steps_per_second"], first["range"], first["ratio"]) == (2.0, [1.0, 4.0], 1.0)
    assert (second["steps_per_second"], second["range"], second["ratio"]) == (5.0, [4.0, 10.0], 2.5)
    assert (first["geometry"], first["texture"]) == (0.25, 1.5)
