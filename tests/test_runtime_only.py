"""A deployment has neither PyTorch nor the export: the runtime works without, and says what is missing for the rest."""

import json
import time
from pathlib import Path

import pytest

from jokr_rt import read_video
from tests import clips
from tests.process import jokr

BLOCKED = ("torch", "onnx", "onnxscript", "safetensors", "export")

PRELUDE = f"""
import atexit, sys

class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {BLOCKED}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Blocker())
atexit.register(lambda: print("loaded", *sorted(set({BLOCKED}) & set(sys.modules))))
"""


@pytest.mark.parametrize("engine", ["openvino", "onnxruntime"])
def test_a_run_needs_neither(tiny_bundle: Path, tmp_path: Path, engine: str) -> None:
    source, output = clips.video(tmp_path / "in.mp4", 4), tmp_path / "out.mp4"
    start = time.perf_counter()
    done = jokr("run", tiny_bundle, source, "-o", output, "--engine", engine, "--json", prelude=PRELUDE)
    seconds = time.perf_counter() - start
    assert (done.returncode, done.stderr) == (
        0,
        f"direction a2b (cat2fox), engine {engine}, precision fp32, mode throughput\n",
    )
    report, loaded = done.stdout.splitlines()
    assert json.loads(report)["frames"] == len(list(read_video(output))) == 4
    assert 0 < json.loads(report)["first_frame_s"] < seconds + 0.02  # the system counts hundredths
    assert loaded == "loaded"


def test_info_and_verify_need_neither(tiny_bundle: Path) -> None:
    for name in ("info", "verify"):
        done = jokr(name, tiny_bundle, "--json", prelude=PRELUDE)
        assert (done.returncode, done.stderr) == (0, "")
        told, loaded = done.stdout.splitlines()
        engines = {row["engine"] for row in json.loads(told)["parity"]}
        assert engines == ({"openvino", "onnxruntime"} if name == "verify" else {"onnxruntime"})
        assert loaded == "loaded"


def test_what_needs_them_names_the_extra(tiny_checkpoint: Path, tmp_path: Path) -> None:
    source = clips.video(tmp_path / "in.mp4", 2)
    run = ("run", tiny_checkpoint, source, "-o", tmp_path / "out.mp4", "--engine", "torch")
    for args, what in ((run, "--engine torch"), (("export", tiny_checkpoint, "-o", tmp_path / "b"), "jokr export")):
        done = jokr(*args, prelude=PRELUDE)
        assert done.returncode == 1
        assert done.stderr.startswith(f"jokr: error: {what} needs the extra train (No module named ")
        assert done.stderr.endswith("): pip install 'jokr-rt[train]'\n")
        assert done.stderr.count("\n") == 1
