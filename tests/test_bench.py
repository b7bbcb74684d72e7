"""`jokr bench` with real engines in real processes, on a tiny bundle and few repeats."""

import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from jokr_rt.bench import presets, tasks
from jokr_rt.bench.benchmark import FRAMES_A_TURN, benchmark
from jokr_rt.bench.floor import compile_layers
from jokr_rt.bench.processes import Child, Processes
from jokr_rt.bench.results import Subject
from jokr_rt.bundle import Bundle
from jokr_rt.config import PRESETS
from jokr_rt.engines import ENGINES, MODES, Monitor
from jokr_rt.engines.openvino import lacks
from jokr_rt.errors import EngineError, UsageError
from jokr_rt.training.checkpoint import load_checkpoint
from tests import clips
from tests.process import ROOT, is_running
from tests.tiny import TINY

BF16 = () if lacks("bf16") else ("bf16",)
FRAMES = 6
SKIPPED = {("openvino", "fp16"), *(("onnxruntime", name) for name in ("bf16", "fp16", "int8"))}
"""What a bundle in fp32 and int8 does not run in."""


class Steps(Monitor):
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.said: list[str] = []
        self.steps: list[tuple[str, int, int]] = []

    def say(self, words: str) -> None:
        self.said.append(words)

    def step(self, task: str, done: int, total: int) -> None:
        self.steps.append((task, done, total))


@pytest.fixture(scope="module")
def measured(int8_bundle: Bundle, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A report of everything that there is, with "turns", the order in which the variants were asked for one."""
    clip = clips.video(tmp_path_factory.mktemp("clip") / "clip.mp4", FRAMES)
    turns: list[tuple[str, ...]] = []
    turn = Child.turn

    def noted(child: Child) -> dict[str, Any]:
        turns.append((child.task, *(child.arguments.get(name, "") for name in ("engine", "precision", "mode"))))
        return turn(child)

    steps = Steps()
    with pytest.MonkeyPatch.context() as patch, Processes() as processes:
        patch.setattr(Child, "turn", noted)
        found = benchmark(
            Subject("tiny", int8_bundle), processes, steps, source=clip, repeats=2 * FRAMES_A_TURN, runs=2
        )
    return found | {"turns": turns, "steps": steps}


def ran(report: dict[str, Any]) -> list[dict[str, Any]]:
    return [row for row in report["variants"] if "skipped" not in row]


def test_every_engine_runs_in_what_it_can_and_says_why_not_in_the_rest(measured: dict[str, Any]) -> None:
    found = {(row["engine"], row["precision"], row["mode"]) for row in ran(measured)}
    exact = {(engine, "fp32", mode) for engine in ENGINES for mode in MODES} | {("torch", "fp32", "latency")}
    fast = {("openvino", precision, mode) for precision in ("int8", *BF16) for mode in MODES}
    assert found == exact | fast
    skipped = {(row["engine"], row["precision"]): row["skipped"] for row in measured["variants"] if "skipped" in row}
    assert set(skipped) == SKIPPED | (set() if BF16 else {("openvino", "bf16")})
    assert all(precision in reason for (_, precision), reason in skipped.items())
    assert skipped["onnxruntime", "fp16"].startswith("tiny: has fp32, int8, not fp16; ")
    assert not any("\n" in reason for reason in skipped.values())


def test_variants_take_turns(measured: dict[str, Any]) -> None:
    expected = [("floor", "", "", ""), *(("frames", row["engine"], row["precision"], row["mode"])
                                         for row in ran(measured))]  # fmt: skip
    assert measured["turns"] == expected * 2
    tasks = [task for task, _, _ in measured["steps"].steps]
    assert list(dict.fromkeys(tasks)) == ["loading", "inference", "file to file"]
    assert all(steps[-1][1] == steps[-1][2] for task in tasks if (steps := of(measured, task)))


def of(report: dict[str, Any], task: str) -> list[tuple[str, int, int]]:
    return [step for step in report["steps"].steps if step[0] == task]


def test_every_figure_follows_from_the_others(measured: dict[str, Any]) -> None:
    eager = measured["variants"][0]
    assert (eager["engine"], eager["ratio_to_eager"], eager["psnr_db"]) == ("torch", 1, None)
    for row in ran(measured):
        assert row["repeats"] >= 2 * FRAMES_A_TURN
        assert row["inference_fps"] == approximately(1000 / row["ms"])
        assert row["ratio_to_eager"] == approximately(eager["ms"] / row["ms"])
        assert row["ratio_to_floor"] == approximately(row["ms"] / measured["floor"]["ms"][row["precision"]])
        for stage in ("extract", "draw", "frame"):
            assert list(row["latency_ms"][stage]) == ["p50", "p95", "p99"]
            assert (
                0
                < row["latency_ms"][stage]["p50"]
                <= row["latency_ms"][stage]["p95"]
                <= row["latency_ms"][stage]["p99"]
            )
        if row["mode"] == "latency":
            assert row["ms"] == row["latency_ms"]["frame"]["p50"]
        if row["mode"] == "throughput" or row is eager:
            assert row["frames"] == FRAMES
            assert row["end_to_end_ratio"] == approximately(row["end_to_end_fps"] / eager["end_to_end_fps"])
            low, high = row["end_to_end_fps_range"]
            assert 0 < low <= row["end_to_end_fps"] <= high
            assert row["first_frame_s"] > 0
            assert 30e6 < row["peak_bytes"] < 3e9
        else:
            assert "end_to_end_fps" not in row


def approximately(value: float) -> object:
    return pytest.approx(value, rel=1e-3)  # of five digits


def test_quality_is_against_fp32(measured: dict[str, Any]) -> None:
    for row in ran(measured)[1:]:
        if row["precision"] == "fp32":
            assert row["psnr_db"] > 60  # a level here and there
        else:
            assert 10 < row["psnr_db"] < 60
    reference = ran(measured)[1]
    assert reference["psnr_db"] == 100


def test_the_floor_is_measured_in_every_precision_that_the_processor_has(measured: dict[str, Any]) -> None:
    floor = measured["floor"]
    assert set(floor["peak_flops_per_s"]) == {"fp32", "int8", *BF16}
    assert all(1e9 < peak < 1e14 for peak in floor["peak_flops_per_s"].values())
    assert 1e8 < floor["read_bytes_per_s"] < 1e13
    flops = sum(measured["model"]["flops"].values())
    for precision, peak in floor["peak_flops_per_s"].items():
        assert floor["compute_ms"][precision] == approximately(1e3 * flops / peak)
        assert floor["ms"][precision] == max(floor["compute_ms"][precision], floor["memory_ms"][precision])


def test_it_says_what_ran_where(measured: dict[str, Any]) -> None:
    assert measured["format_version"] == 1
    assert measured["model"]["name"] == "tiny"
    assert measured["model"]["config"] == TINY.to_json()
    assert not measured["model"]["is_untrained"]
    assert measured["machine"]["cores"] >= 1
    assert measured["machine"]["processor"]
    assert 0 <= measured["busy"] <= 1
    warned = [words for words in measured["steps"].said if words.startswith("other programs take ")]
    assert len(warned) == (measured["busy"] > 0.1)
    assert {"jokr-rt", "python", "openvino", "onnxruntime", "torch"} <= set(measured["versions"])
    assert measured["settings"] == {"repeats": 2 * FRAMES_A_TURN, "runs": 2}
    assert re.fullmatch(r"\d{4}-\d\d-\d\d", measured["date"])
    commit = subprocess.run(["git", "-C", ROOT, "rev-parse", "HEAD"], capture_output=True, text=True, check=False)
    assert measured["revision"]["commit"] == commit.stdout.strip() if commit.returncode == 0 else True


def test_the_layers_of_the_floor_run_in_the_precision_that_is_said() -> None:
    for precision in ("fp32", "int8", *BF16):
        run, found = compile_layers(64, 8, 3, precision)
        assert found == precision
        (result,) = run().values()
        assert result.shape == (1, 64, 8, 8)
        assert result.max() > 0


def test_a_task_that_fails_says_why_in_one_line(tmp_path: Path) -> None:
    with Processes() as processes:
        with pytest.raises(EngineError, match="no such checkpoint; `jokr train` writes one"):
            processes.once(tasks.loop, checkpoint=str(tmp_path / "none"), clip="", output="")
        with pytest.raises(EngineError, match="^TypeError: seed\\(\\) got an unexpected keyword argument 'colour'$"):
            processes.once(tasks.seed, colour="blue")
        with pytest.raises(EngineError, match="no bundle here"):
            processes.jokr("run", tmp_path / "none", tmp_path / "clip.mp4", "-o", tmp_path / "out.mp4")


def test_a_process_that_dies_says_how() -> None:
    with Processes() as processes:
        child = processes.child(tasks.floor)
        child.kill()
        with pytest.raises(EngineError, match="its process ended with -9: without a word"):
            child.answer()


def test_processes_end_when_they_are_left_and_with_their_parent() -> None:
    with Processes() as processes:
        children = [processes.child(tasks.floor) for _ in range(2)]
    assert not any(is_running(child.pid) for child in children)
    code = """from jokr_rt.bench import processes, tasks
child = processes.Processes().child(tasks.floor)
command = processes.Process("from jokr_rt.bench.child import listen; listen(); import time; time.sleep(600)")
print(child.pid, command.pid, flush=True)
input()"""
    with subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stdin=-1, stdout=-1, text=True) as parent:
        pids = list(map(int, parent.stdout.readline().split()))
        assert len(pids) == 2
        assert all(map(is_running, pids))
        parent.kill()
    while any(map(is_running, pids)):  # the time limit of the test is the limit
        time.sleep(0.05)


def test_a_preset_is_made_once_for_the_same_code_and_versions(
    cache_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(PRESETS, "tiny", TINY)
    monkeypatch.setattr(presets, "INT8", "fp32")  # spares the minute that quantising takes
    steps = Steps()
    with Processes() as processes:
        subject = presets.preset_subject("tiny", processes, steps)
        assert (subject.name, subject.bundle.config) == ("preset tiny", TINY)
        made = subject.checkpoint.stat().st_mtime_ns
        assert load_checkpoint(subject.checkpoint).step == 0
        assert subject.checkpoint.is_relative_to(cache_home)
        assert presets.preset_subject("tiny", processes, steps).checkpoint.stat().st_mtime_ns == made
        assert len(steps.said) == 1
        monkeypatch.setattr(presets, "versions", lambda: {"torch": "another"})
        other = presets.preset_subject("tiny", processes, steps)
        assert other.checkpoint != subject.checkpoint
        assert not subject.checkpoint.exists()
        assert len(steps.said) == 2
        with pytest.raises(UsageError, match="unknown preset 'huge'; choose full or realtime or small or tiny"):
            presets.preset_subject("huge", processes, steps)
