"""Cost against size, batch, streams, threads and length: real models and runs, tiny ones."""

import json
from pathlib import Path
from types import ModuleType

import pytest
from click.testing import CliRunner, Result

from jokr_rt.bench import cost
from jokr_rt.config import ModelConfig
from tests.process import ROOT
from tests.tiny import TINY

AXES = {"size": (64, 128), "batch": (1, 3), "threads": (1,), "streams": (2,), "length": (3, 6)}
MODEL = [str(word) for name, value in TINY.to_json().items() for word in (f"--{name.replace('_', '-')}", value)]


@pytest.fixture
def scaling(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    import scaling

    monkeypatch.setattr(scaling, "AXES", AXES)
    return scaling


def run(scaling: ModuleType, *arguments: str | Path) -> Result:
    return CliRunner().invoke(scaling.main, [*map(str, arguments), *MODEL, "--repeats", "2"])


def test_every_axis_is_measured_drawn_and_kept(scaling: ModuleType, tmp_path: Path) -> None:
    done = run(scaling, tmp_path, "--only", ",".join(AXES))
    assert done.exit_code == 0, done.output
    for axis, values in AXES.items():
        found = json.loads((tmp_path / f"scaling-{axis}.json").read_text())
        assert (found["axis"], found["model"]) == (axis, TINY.to_json())
        assert found["settings"] == {"engine": "openvino", "precision": "fp32", "repeats": 2}
        assert [point["value"] for point in found["points"]] == list(values)
        for point in found["points"]:
            assert point["ms"] > 0
            assert 30e6 < point["peak_bytes"] < 3e9
            config = scaling.changed(TINY, axis, point["value"])
            assert point["flops"] == sum(cost.flops(config).values())
        assert (tmp_path / f"scaling-{axis}.png").read_bytes()[:4] == b"\x89PNG"
    lengths = json.loads((tmp_path / "scaling-length.json").read_text())["points"]
    assert [point["frames"] for point in lengths] == [3, 6]
    assert not list(tmp_path.rglob("*.mp4"))
    points = sum(map(len, AXES.values()))
    assert done.stdout.count(" ms a frame ") == points
    assert "kept from before" not in done.stderr
    again = run(scaling, tmp_path, "--only", ",".join(AXES))
    assert again.stdout == done.stdout
    assert again.stderr.count("kept from before") == points


def test_one_axis_changes_and_the_rest_stays(scaling: ModuleType) -> None:
    base = ModelConfig(size=256, extractor_size=128, width=0.5)
    assert scaling.changed(base, "size", 512) == ModelConfig(size=512, extractor_size=256, width=0.5)
    assert scaling.changed(base, "width", 0.25) == ModelConfig(size=256, extractor_size=128, width=0.25)
    assert scaling.changed(base, "keypoints", 20) == ModelConfig(keypoints=20, size=256, extractor_size=128, width=0.5)
    assert scaling.changed(base, "batch", 8) == base


@pytest.mark.parametrize(("arguments", "words"), [
    (("--only", "colour"), "--only colour: there is no such; choose from size, batch, threads, streams, length"),
    (("--engine", "cuda"), "--engine cuda --precision fp32: there is no such; choose from openvino: int8, bf16, fp32;"),
    (("--precision", "int4"), "--engine openvino --precision int4: there is no such"),
])  # fmt: skip
def test_what_cannot_be_meant_is_refused(
    scaling: ModuleType, tmp_path: Path, arguments: tuple[str, ...], words: str
) -> None:
    refused = run(scaling, tmp_path / "out", *arguments)
    assert refused.exit_code == 2
    assert refused.stderr.startswith(f"error: {words}")
    assert refused.stderr.count("\n") == 1
    assert not (tmp_path / "out").exists()
