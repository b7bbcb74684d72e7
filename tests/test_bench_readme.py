"""`make bench`: the README's table is what the results say, and bars are judged by them."""

import json
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from click.testing import CliRunner

from jokr_rt.bench.results import FORMAT_VERSION
from jokr_rt.errors import InputError
from tests.process import ROOT

RESULTS = ROOT / "benchmarks" / "results"
NAMES = ("demo", "full", "realtime")


@pytest.fixture(autouse=True)
def _scripts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))


@pytest.fixture
def report() -> ModuleType:
    import cpu_report

    return cpu_report


@pytest.fixture
def cpu() -> ModuleType:
    import cpu

    return cpu


def test_the_readme_shows_the_results_that_are_committed(cpu: ModuleType, report: ModuleType) -> None:
    reports = cpu.read_reports()
    assert tuple(reports) == NAMES
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert report.rewritten(readme, reports) == readme


@pytest.mark.parametrize("name", NAMES)
def test_the_results_that_are_committed_are_whole(name: str) -> None:
    found = json.loads((RESULTS / f"cpu-{name}.json").read_text(encoding="utf-8"))
    assert found["format_version"] == FORMAT_VERSION
    assert found["settings"]["repeats"] >= 30
    assert found["revision"]["commit"]
    eager = found["variants"][0]
    for row in found["variants"]:
        if "skipped" not in row:
            assert row["repeats"] >= 30
            assert row["ratio_to_eager"] == pytest.approx(eager["ms"] / row["ms"], rel=1e-3)
    assert str(ROOT) not in json.dumps(found)
    picture = (RESULTS / f"cpu-{name}.png").read_bytes()
    assert picture.startswith(b"\x89PNG\r\n\x1a\n")
    assert len(picture) > 10_000


def row(engine: str, precision: str, mode: str, **figures: float) -> dict[str, Any]:
    return {"engine": engine, "precision": precision, "mode": mode} | figures


def test_bars_take_the_faster_mode_of_the_better_engine(report: ModuleType) -> None:
    full = [
        row("torch", "fp32", "latency", ratio_to_eager=1.0, ratio_to_floor=2.6),
        row("openvino", "fp32", "latency", ratio_to_eager=2.0, ratio_to_floor=1.3),
        row("onnxruntime", "fp32", "throughput", ratio_to_eager=2.2, ratio_to_floor=1.2),
        row("openvino", "bf16", "latency", ratio_to_eager=4.1, ratio_to_floor=1.2, psnr_db=60.0),
        row("openvino", "int8", "latency", ratio_to_eager=5.0, ratio_to_floor=1.8, psnr_db=45.0),
        row(
            "openvino", "int8", "throughput", ratio_to_eager=7.0, ratio_to_floor=1.3, psnr_db=41.0,
            end_to_end_fps=32.0, end_to_end_ratio=6.5, peak_bytes=450e6,
        ),
        {"engine": "onnxruntime", "precision": "int8", "mode": None, "skipped": "none"},
    ]  # fmt: skip
    bars = report.bars({"full": {"variants": full}})
    assert [(bar.value, bar.verdict) for bar in bars] == [
        (7.0, "met"), (41.0, "missed"), (4.1, "missed"), (60.0, "met"), (6.5, "met"), (32.0, "missed"), (2.2, "met"),
        (1.3, "met"), (1.2, "missed"), (None, "not measured"), (450.0, "met"),
    ]  # fmt: skip


def test_only_the_section_is_rewritten(report: ModuleType) -> None:
    found = json.loads((RESULTS / "cpu-demo.json").read_text(encoding="utf-8"))
    made = report.rewritten(f"before\n{report.BEGIN}\nold\n{report.END}\nafter\n", {"demo": found})
    assert made.startswith(f"before\n{report.BEGIN}\n\n")
    assert made.endswith(f"\n\n{report.END}\nafter\n")
    assert "old" not in made
    lines = [line for line in made.splitlines() if line.startswith("| torch fp32, latency ")]
    eager = found["variants"][0]
    assert [line.split(" | ")[1:4] for line in lines] == [
        [f"{eager['ms']:.1f}", f"{eager['inference_fps']:.1f}", "1.00"]
    ]
    assert report.rewritten(made, {"demo": found}) == made
    with pytest.raises(InputError, match="put them around the table"):
        report.rewritten("nothing to replace", {"demo": found})


def test_make_bench_writes_results_plots_and_readme(
    cpu: ModuleType, report: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = json.loads((RESULTS / "cpu-demo.json").read_text(encoding="utf-8"))
    readme = tmp_path / "README.md"
    readme.write_text(f"{report.BEGIN}\n{report.END}\n")
    monkeypatch.setattr(cpu, "README", readme)
    monkeypatch.setattr(cpu, "RESULTS", tmp_path / "results")
    monkeypatch.setattr(cpu, "benchmark", lambda *_, **__: found)  # what it measures is for tests/test_bench.py
    done = CliRunner().invoke(cpu.main, ["--only", "demo"])
    assert done.exit_code == 0, done.output
    assert json.loads((tmp_path / "results" / "cpu-demo.json").read_text()) == found
    assert (tmp_path / "results" / "cpu-demo.png").stat().st_size > 10_000
    assert report.rewritten(readme.read_text(), {"demo": found}) == readme.read_text()
    assert "| torch fp32, latency |" in readme.read_text()
    assert done.stdout.count("not measured") == 11
    refused = CliRunner().invoke(cpu.main, ["--only", "huge"])
    assert (refused.exit_code, refused.stderr) == (
        2,
        "error: --only huge: there is no such; choose from demo, full, realtime, small\n",
    )
