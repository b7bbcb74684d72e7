"""`jokr bench` as it is typed: what it prints where, what it refuses, and Ctrl-C."""

import json
import os
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from jokr_rt.cli import main
from tests import clips
from tests.process import ROOT, children, command, is_running, jokr_on_terminal

ONE = ("--engine", "onnxruntime", "--precision", "fp32", "--repeats", "30")
BUSY = "other programs take "  # is said where they do
PNG = b"\x89PNG\r\n\x1a\n"


def invoke(*args: str | Path) -> Result:
    return CliRunner().invoke(main, [str(arg) for arg in args])


def test_json_a_plot_and_progress(tiny_bundle: Path, tmp_path: Path) -> None:
    picture = tmp_path / "plot.png"
    code, out, shown = jokr_on_terminal("bench", tiny_bundle, *ONE, "--json", "--plot", picture, columns=100)
    assert code == 0, shown
    for task in ("loading", "inference", "file to file"):
        assert f"{task} " in shown
    found: dict[str, Any] = json.loads(out)
    assert out.count("\n") == 1
    assert found["clip"] == "a puppet's walk, 480 x 480"
    assert found["settings"] == {"repeats": 30, "runs": 3}
    names = [(row["engine"], row["precision"], row["mode"]) for row in found["variants"]]
    assert names == [
        ("torch", "fp32", "latency"),
        *(("onnxruntime", "fp32", mode) for mode in ("latency", "throughput")),
    ]
    assert all(row["repeats"] >= 30 for row in found["variants"])
    assert found["variants"][2]["frames"] == 96
    content = picture.read_bytes()
    assert content.startswith(PNG)
    assert len(content) > 10_000


def test_tables_also_without_pytorch(tiny_bundle: Path, tmp_path: Path) -> None:
    clip = clips.video(tmp_path / "clip.mp4", 4)
    (tmp_path / "torch.py").write_text("raise ImportError('no torch here')")  # first on every process's path
    args = command("bench", tiny_bundle, *ONE, "--precision", "int8", "--input", clip)
    environment = os.environ | {"PYTHONPATH": str(tmp_path)}
    done = subprocess.run(args, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert [line for line in done.stderr.splitlines() if not line.startswith(BUSY)] == []
    lines = done.stdout.splitlines()
    assert lines[0].strip() == f"{tiny_bundle}: 64 x 64, 0.00444 GFLOP a frame"
    (single,) = (line.split() for line in lines[1:4] if line.startswith("onnxruntime fp32, latency "))
    assert single[6] == "exact"  # after ms, fps and the ratio to the floor; there is none to PyTorch
    (several,) = (line.split() for line in lines[1:4] if line.startswith("onnxruntime fp32, throughput "))
    assert len(several) == len(single) + 3  # fps from file to file, first frame, memory; and no ratio
    assert "The machine's floor, reading " in done.stdout
    (start,) = (index for index, line in enumerate(lines) if line.startswith("did not run"))
    assert "engine torch is not installed (no torch here): pip install 'jokr-rt[train]'" in lines[start + 1]
    assert lines[start + 1].startswith("torch fp32 ")
    assert lines[start + 2].startswith("onnxruntime int8 ")


@pytest.mark.parametrize(("args", "words"), [
    ((), "give either BUNDLE, a folder that `jokr export` wrote, or --preset full or realtime"),
    (("{bundle}", "--preset", "full"), "give either BUNDLE"),
    (("{bundle}", "--engine", "cuda"), "unknown engine 'cuda'; choose all, torch, openvino"),
    (("{bundle}", "--precision", "int4"), "unknown precision 'int4'; choose all, fp32"),
    (("{bundle}", "--plot", "plot.txt"), "plot.txt: not a kind of picture; choose ."),
])  # fmt: skip
def test_what_cannot_be_meant_is_refused(tiny_bundle: Path, args: tuple[str, ...], words: str) -> None:
    done = invoke("bench", *(arg.format(bundle=tiny_bundle) for arg in args))
    assert done.exit_code == 2
    assert done.stderr.startswith(f"jokr: error: {words}")
    assert done.stderr.count("\n") == 1
    assert done.stdout == ""


def test_too_few_repeats_are_refused(tiny_bundle: Path) -> None:
    done = invoke("bench", tiny_bundle, "--repeats", "29")
    assert done.exit_code == 2
    assert "29 is not in the range x>=30" in done.stderr


@pytest.mark.parametrize(("args", "words"), [
    (("{folder}/none",), "{folder}/none: no bundle here"),
    (("{bundle}", "--input", "{folder}/none.mp4"), "{folder}/none.mp4"),
    (("{bundle}", "--plot", "{folder}/none/plot.png"), "{folder}/none: no such folder; create it first"),
])  # fmt: skip
def test_what_is_not_there_is_refused_at_once(
    tiny_bundle: Path, tmp_path: Path, args: tuple[str, ...], words: str
) -> None:
    done = invoke("bench", *(arg.format(bundle=tiny_bundle, folder=tmp_path) for arg in args))
    assert done.exit_code == 1
    assert done.stderr.startswith(f"jokr: error: {words.format(folder=tmp_path)}")
    assert done.stderr.count("\n") == 1


def test_ctrl_c_ends_it_and_its_processes(tiny_bundle: Path, tmp_path: Path) -> None:
    environment = os.environ | {"TMPDIR": str(tmp_path)}
    args = command("bench", tiny_bundle, "--input", clips.video(tmp_path / "clip.mp4", 4))
    with subprocess.Popen(args, cwd=ROOT, env=environment, stdout=-1, stderr=-1, text=True) as process:
        while len(started := children(process.pid)) < 3:  # some are loaded
            assert process.poll() is None
            time.sleep(0.02)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=120)
    assert (process.returncode, out) == (130, "")
    assert [line for line in err.splitlines() if not line.startswith(BUSY)] == ["jokr: interrupted"]
    assert not any(map(is_running, started))
    assert [path.name for path in tmp_path.iterdir()] == ["clip.mp4"]
