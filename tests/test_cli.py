"""`jokr`: what is printed where, exit codes, and one line for every bad input."""

import json
import math
import pickle
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from jokr_rt import __version__, read_video
from jokr_rt.training.checkpoint import save_checkpoint
from tests import clips
from tests.process import ROOT, Call, command, jokr, jokr_on_terminal
from tests.tiny import TINY, make_checkpoint


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    return clips.video(tmp_path / "in.mp4", 5, audio="aac")


def edit_manifest(bundle: Path, change: Callable[[dict[str, Any]], object]) -> None:
    manifest = bundle / "manifest.json"
    values = json.loads(manifest.read_text())
    change(values)
    manifest.write_text(json.dumps(values))


def test_version_and_help(call: Call) -> None:
    assert call("--version") == (0, f"jokr, version {__version__}\n", "")
    code, out, _ = call("--help")
    assert code == 0
    assert all(name in out for name in ("run", "info", "verify", "export"))


def test_run_says_what_it_did(call: Call, tiny_bundle: Path, clip: Path, tmp_path: Path) -> None:
    output = tmp_path / "out.mp4"
    code, out, err = call("run", tiny_bundle, clip, "-o", output)
    assert (code, err) == (0, "direction a2b (cat2fox), engine openvino, precision fp32, mode throughput\n")
    assert out.startswith(f"{output}: 5 frames in ")
    assert " fps, openvino in fp32, mode throughput (median ms: read " in out
    assert len(list(read_video(output))) == 5


def test_figures_of_too_few_frames_are_left_out(call: Call, tiny_bundle: Path, tmp_path: Path) -> None:
    one, output = clips.video(tmp_path / "one.mp4", 1, rate=24), tmp_path / "out.mp4"
    code, out, _ = call("run", tiny_bundle, one, "-o", output)
    assert code == 0
    assert re.fullmatch(r".*: 1 frame in \d+\.\d s, openvino in fp32, mode throughput\n", out)
    code, out, _ = call("run", tiny_bundle, one, "-o", output, "--overwrite", "--json")
    assert (code, json.loads(out)["frames"], json.loads(out)["fps"]) == (0, 1, None)
    code, out, _ = call("keypoints", tiny_bundle, one, "-o", tmp_path / "tracks.json")
    assert (code, out.partition(": ")[2]) == (0, "10 keypoints in 1 frame of cat, openvino in fp32, mode throughput\n")


def test_bundle_and_input_the_wrong_way_round(
    call: Call, tiny_bundle: Path, tiny_checkpoint: Path, clip: Path, tmp_path: Path
) -> None:
    out, tracks = tmp_path / "out.mp4", write(tmp_path / "tracks.json", b"{}")
    for first, model, command_line in (
        (clip, tiny_bundle, ("run", clip, tiny_bundle, "-o", out)),
        (clip, tiny_checkpoint, ("run", clip, tiny_checkpoint, "-o", out, "--engine", "torch")),
        (clip, tiny_bundle, ("keypoints", clip, tiny_bundle, "-o", tmp_path / "out.json")),
        (tracks, tiny_bundle, ("render", tracks, tiny_bundle, "-o", out)),
        (clip, tiny_bundle, ("studio", clip, tiny_bundle)),
        (clip, tiny_bundle, ("live", clip, "--input", tiny_bundle, "--output", "preview")),
        (clip, tiny_bundle, ("evaluate", clip, "--data", tiny_bundle, clip)),
    ):
        code, printed, err = call(*command_line)
        assert (code, printed) == (2, ""), command_line
        assert err == (
            f"jokr: error: {first}, {model}: the wrong way round? {model} is a model, and {first} is none; swap them\n"
        )
    for name in ("info", "verify"):
        code, _, err = call(name, clip)
        assert (code, err) == (1, f"jokr: error: {clip}: a file, and a bundle is a folder; `jokr export` writes one\n")


def test_run_json_is_one_object(call: Call, tiny_bundle: Path, clip: Path, tmp_path: Path) -> None:
    options = "--json --direction fox2cat --engine onnxruntime --layout side-by-side --size 128 --no-audio"
    output = tmp_path / "out.mkv"
    code, out, err = call("run", tiny_bundle, clip, "-o", output, *options.split())
    assert (code, err) == (0, "direction b2a (fox2cat), engine onnxruntime, precision fp32, mode throughput\n")
    report = json.loads(out)
    assert out.count("\n") == 1
    keys = ["output", "direction", "engine", "precision", "mode", "frames", "seconds", "stages", "first_frame_s", "fps"]
    assert list(report) == keys
    assert (report["output"], report["direction"], report["engine"]) == (str(output), "b2a", "onnxruntime")
    assert report["frames"] == 5
    assert report["fps"] == pytest.approx(5 / report["seconds"])
    assert list(report["stages"]) == ["read", "extract", "draw", "frame", "write"]
    assert all(list(stage) == ["p50", "p95", "p99"] for stage in report["stages"].values())
    assert next(read_video(output)).rgb.shape == (128, 384, 3)


def test_run_takes_a_checkpoint_with_the_torch_engine(
    call: Call, tiny_checkpoint: Path, tiny_bundle: Path, clip: Path, tmp_path: Path
) -> None:
    torch, bundled = tmp_path / "torch.mp4", tmp_path / "bundled.mp4"
    code, _, err = call("run", tiny_checkpoint, clip, "-o", torch, "--engine", "torch")
    assert (code, err) == (0, "direction a2b (cat2fox), engine torch, precision fp32, mode throughput\n")
    assert call("run", tiny_bundle, clip, "-o", bundled)[0] == 0
    for one, other in zip(read_video(torch), read_video(bundled), strict=True):
        assert abs(one.rgb.astype(int) - other.rgb).mean() < 1
    code, _, err = call("run", tiny_checkpoint, clip, "-o", torch)
    assert code == 2
    fix = "`jokr export` it, or run it with --engine torch or torch-cuda"
    assert err == f"jokr: error: {tiny_checkpoint}: a file, and a bundle is a folder; {fix}\n"


def test_an_output_is_replaced_only_on_request(call: Call, tiny_bundle: Path, clip: Path, tmp_path: Path) -> None:
    output = tmp_path / "out.mp4"
    output.write_bytes(b"precious")
    code, out, err = call("run", tiny_bundle, clip, "-o", output)
    assert (code, out) == (1, "")
    assert err.endswith(f"jokr: error: {output}: already exists; choose another name, or replace it with --overwrite\n")
    assert output.read_bytes() == b"precious"
    assert call("run", tiny_bundle, clip, "-o", output, "--overwrite")[0] == 0
    assert len(list(read_video(output))) == 5


def test_info(call: Call, tiny_bundle: Path) -> None:
    code, out, err = call("info", tiny_bundle)
    assert (code, err) == (0, "")
    for words in (
        str(tiny_bundle),
        "a: cat, b: fox",
        "a2b (cat2fox) and b2a (fox2cat)",
        "64 x 64, 10 keypoints",
        "uint8 (N, 64, 64, 3)",
    ):
        assert words in out
    assert out.count("onnxruntime") == out.count(" ok\n") == 10  # outputs of four graphs, frames of two directions
    code, out, err = call("info", tiny_bundle, "--json")
    told = json.loads(out)
    assert (code, err) == (0, "")
    assert told["directions"] == ["a2b", "b2a"]
    assert told["precisions"] == ["fp32"]
    assert [graph["name"] for graph in told["graphs"]] == ["extractor", "stn-a2b", "stn-b2a", "generator"]
    assert told["domains"] == {"a": "cat", "b": "fox"}
    assert told["config"]["size"] == 64


def test_verify(call: Call, tiny_bundle: Path) -> None:
    code, out, err = call("verify", tiny_bundle)
    assert (code, err) == (0, "")
    assert (out.count("openvino"), out.count("onnxruntime"), out.count(" ok\n")) == (10, 10, 20)
    code, out, err = call("verify", tiny_bundle, "--engine", "openvino", "--json")
    told = json.loads(out)
    assert (code, err, told["passed"]) == (0, "", True)
    assert {row["engine"] for row in told["parity"]} == {"openvino"}
    assert all(row["max_abs"] <= row["tolerance"] for row in told["parity"][:8])
    assert [row["graph"] for row in told["parity"][8:]] == ["a2b", "b2a"]
    assert all(row["psnr_db"] is None or row["psnr_db"] >= row["min_psnr_db"] == 60 for row in told["parity"][8:])


def test_verify_fails_where_a_graph_computes_something_else(call: Call, bundle_copy: Path) -> None:
    """The other direction's transformer, with its hash in the manifest: every check but that of values passes."""

    def swap(values: dict[str, Any]) -> None:
        hashes = {graph["name"]: graph["sha256"] for graph in values["graphs"]}
        for graph in values["graphs"]:
            if graph["name"] == "stn-a2b":
                graph["sha256"] = hashes["stn-b2a"]

    shutil.copy(bundle_copy / "stn-b2a.onnx", bundle_copy / "stn-a2b.onnx")
    edit_manifest(bundle_copy, swap)
    code, out, err = call("verify", bundle_copy)
    assert code == 1
    assert out.count("FAILED\n") == 6  # theta, warped and the frames of a2b, in two engines
    assert err.count("\n") == 1
    assert err.startswith("jokr: error: stn-a2b (openvino, fp32): theta differs from PyTorch's by ")
    code, out, err = call("verify", bundle_copy, "--json", "--engine", "onnxruntime")
    assert (code, json.loads(out)["passed"]) == (1, False)
    assert err.startswith("jokr: error: stn-a2b (onnxruntime, fp32): theta differs")


def test_export(call: Call, tiny_checkpoint: Path, bundle_copy: Path) -> None:
    (bundle_copy / "samples.npz").unlink()
    code, out, err = call("export", tiny_checkpoint, "-o", bundle_copy, "--json")
    assert (code, out) == (1, "")
    assert "--overwrite" in one_line(err)
    code, out, err = call("export", tiny_checkpoint, "-o", bundle_copy, "--json", "--overwrite")
    told = json.loads(out)
    assert (code, err, told["bundle"]) == (0, "", str(bundle_copy))
    assert len(told["parity"]) == 10
    assert told["quantisation"] is None
    assert call("verify", bundle_copy)[0] == 0


BAD_RUNS: dict[str, tuple[Callable[[Path], tuple[str | Path, ...]], int, str]] = {
    "missing": (lambda tmp: (tmp / "none.mp4",), 1, "none.mp4: there is no such file"),
    "empty": (lambda tmp: (write(tmp / "empty.mp4", b""),), 1, "empty.mp4: the file is empty"),
    "truncated": (lambda tmp: (clips.truncated(tmp / "in.mp4", tmp / "cut.mp4", 0.5),), 1, "cut.mp4: not a video"),
    "audio only": (lambda tmp: (clips.audio_only(tmp / "song.m4a"),), 1, "song.m4a: there is no video in this file"),
    "no video": (lambda tmp: (write(tmp / "notes.txt", b"to do"),), 1, "notes.txt: "),
    "no frames": (lambda tmp: (made(tmp / "folder"),), 1, "folder: no frames in this folder"),
    "no sequence": (lambda tmp: (tmp / "%05d.png",), 1, "%05d.png: no file fits this pattern"),
    "resolution": (lambda tmp: (clips.resolution_change(tmp / "change.ts"),), 1, "is 96 x 64 pixels, those before"),
    "no masks": (lambda tmp: (tmp / "in.mp4", "--masks", tmp / "none"), 1, "none: there is no such file"),
    "direction": (lambda tmp: (tmp / "in.mp4", "--direction", "a2c"), 2, "unknown direction 'a2c'; this model has a2b"),
    "engine": (lambda tmp: (tmp / "in.mp4", "--engine", "tpu"), 2, "unknown engine 'tpu'; choose auto, openvino"),
    "torch engine": (lambda tmp: (tmp / "in.mp4", "--engine", "torch"), 2, "torch runs a checkpoint, not a bundle"),
    "smooth": (lambda tmp: (tmp / "in.mp4", "--smooth", "0"), 2, "smooth must be a cutoff frequency above 0 Hz"),
    "smooth nan": (lambda tmp: (tmp / "in.mp4", "--smooth", "nan"), 2, "above 0 Hz, not nan"),
    "layout": (lambda tmp: (tmp / "in.mp4", "--layout", "grid"), 2, "unknown layout 'grid'"),
    "size": (lambda tmp: (tmp / "in.mp4", "--size", "1"), 2, "size must be between 16 and 4096"),
    "codec": (lambda tmp: (tmp / "in.mp4", "--codec", "h999"), 2, "h999"),
    "kind of file": (lambda tmp: (tmp / "in.mp4", "-o", tmp / "out.doc"), 2, "out.doc: unknown kind of video"),
    "no folder": (lambda tmp: (tmp / "in.mp4", "-o", tmp / "no" / "out.mp4"), 1, "there is no folder"),
    "a folder": (lambda tmp: (tmp / "in.mp4", "-o", made(tmp / "dir.mp4")), 1, "dir.mp4: is a folder"),
}


def write(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


def made(path: Path) -> Path:
    path.mkdir()
    return path


@pytest.mark.parametrize("case", BAD_RUNS)
def test_bad_input_of_a_run(call: Call, tiny_bundle: Path, clip: Path, tmp_path: Path, case: str) -> None:
    arguments, expected_code, words = BAD_RUNS[case]
    code, out, err = call("run", tiny_bundle, "-o", tmp_path / "out.mp4", *arguments(tmp_path))
    assert (code, out) == (expected_code, "")
    assert words in one_line(err)
    assert not (tmp_path / "out.mp4").exists()


def one_line(err: str) -> str:
    """The error, after at most the line that names the engine."""
    *before, line = err.splitlines()
    assert before in ([], ["direction a2b (cat2fox), engine openvino, precision fp32, mode throughput"])
    assert line.startswith("jokr: error: ")
    return line


def swap_shape(bundle: Path) -> None:
    edit_manifest(bundle, lambda values: values["graphs"][0]["inputs"][0].update(shape=["N", 128, 128, 3]))


BAD_BUNDLES: dict[str, tuple[Callable[[Path], object], str]] = {
    "no manifest": (lambda root: (root / "manifest.json").unlink(), "no bundle here (manifest.json is missing)"),
    "file missing": (lambda root: (root / "generator.onnx").unlink(), "generator.onnx: missing"),
    "wrong hash": (lambda root: (root / "stn-a2b.onnx").write_bytes(b"x"), "stn-a2b.onnx: its SHA-256 differs"),
    "wrong shape": (swap_shape, "graph extractor has shapes that do not follow from the model config"),
    "version": (lambda root: edit_manifest(root, lambda values: values.update(format_version=9)), "format version 9"),
    "outside": (
        lambda root: edit_manifest(root, lambda values: values["graphs"][0].update(file="../extractor.onnx")),
        "'../extractor.onnx', which is outside the bundle",
    ),
}


@pytest.mark.parametrize("case", BAD_BUNDLES)
def test_a_bad_bundle(call: Call, bundle_copy: Path, clip: Path, tmp_path: Path, case: str) -> None:
    damage, words = BAD_BUNDLES[case]
    damage(bundle_copy)
    for name, *rest in (("run", clip, "-o", tmp_path / "out.mp4"), ("info",), ("verify",)):
        code, out, err = call(name, bundle_copy, *rest)
        assert (code, out) == (1, "")
        assert words in one_line(err)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_checkpoint_whose_weights_are_no_numbers(call: Call, clip: Path, tmp_path: Path, value: float) -> None:
    """PyTorch draws with it without a word."""
    model = tmp_path / "model.safetensors"
    checkpoint = make_checkpoint(TINY)
    with torch.no_grad():
        checkpoint.model.generator.down[1][0].weight[0, 0, 0, 0] = value
    save_checkpoint(model, checkpoint)
    output = tmp_path / "out"
    for line in (("run", model, clip, "-o", f"{output}.mp4", "--engine", "torch"), ("export", model, "-o", output)):
        code, _, err = call(*line)
        assert (code, one_line(err)) == (
            1,
            f"jokr: error: {model}: model.generator.down.1.0.weight holds NaN or infinity; "
            "take an earlier checkpoint or train again",
        )
    assert list(tmp_path.glob("out*")) == []


def test_a_pickled_checkpoint(call: Call, clip: Path, tmp_path: Path) -> None:
    pickled = write(tmp_path / "model.pt", pickle.dumps({"weights": [1.0]}))
    output = tmp_path / "out.mp4"
    for name, *rest in (("run", clip, "-o", output, "--engine", "torch"), ("export", "-o", output)):
        code, out, err = call(name, pickled, *rest)
        assert (code, out) == (1, "")
        assert "model.pt: not a safetensors checkpoint (pickled ones are not loaded)" in one_line(err)


def test_an_engine_that_is_not_installed(tiny_bundle: Path, clip: Path, tmp_path: Path) -> None:
    prelude = "import sys\nsys.modules['openvino'] = None"
    args = ("run", tiny_bundle, clip, "-o", tmp_path / "out.mp4", "--engine")
    done = jokr(*args, "openvino", prelude=prelude)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "jokr: error: engine openvino is not installed: pip install 'jokr-rt[cpu]'\n"
    done = jokr(*args, "auto", prelude=prelude)
    assert (done.returncode, done.stderr) == (
        0,
        "direction a2b (cat2fox), engine onnxruntime, precision fp32, mode throughput\n",
    )


def test_options_and_commands_that_cannot_be_parsed(call: Call) -> None:
    for args in (("run", "--frobnicate"), ("run", "--crf", "64"), ("frobnicate",), ("run",), ("verify",)):
        code, out, err = call(*args)
        assert (code, out) == (2, "")
        assert "Error: " in err


def test_what_the_system_refuses_is_one_line(call: Call, tiny_bundle: Path, clip: Path) -> None:
    code, out, err = call("run", tiny_bundle, clip, "-o", "x" * 300 + ".mp4")
    assert (code, out) == (1, "")
    assert "File name too long" in one_line(err)


def test_progress_is_for_a_terminal(tiny_bundle: Path, clip: Path, tmp_path: Path) -> None:
    """stderr is a real (pseudo) terminal here; `call` above shows that a file gets none of it."""
    code, out, shown = jokr_on_terminal("run", tiny_bundle, clip, "-o", tmp_path / "out.mp4", "--json", columns=100)
    assert code == 0
    assert json.loads(out)["frames"] == 5
    assert "5/5" in shown
    assert " fps" in shown
    assert "0:00:0" in shown  # time left


def test_ctrl_c_leaves_a_file_that_plays(tiny_bundle: Path, tmp_path: Path) -> None:
    """A real signal, once the part file has something in it."""
    source, output = clips.video(tmp_path / "in.mp4", 4000), tmp_path / "out.mp4"
    part = tmp_path / "out.mp4.part"
    args = command("run", tiny_bundle, source, "-o", output, "--engine", "onnxruntime", "--json")
    with subprocess.Popen(args, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            while process.poll() is None and not (part.exists() and part.stat().st_size > 10_000):
                time.sleep(0.01)
            process.send_signal(signal.SIGINT)
            out, err = process.communicate(timeout=60)
        finally:
            process.kill()  # else a process that hangs would hang the tests: leaving `with` waits for it
    assert (process.returncode, out) == (130, "")
    frames = sum(1 for _ in read_video(part))
    assert 0 < frames < 4000
    assert err.splitlines()[-1] == f"jokr: interrupted; the first {frames} frames are kept in {part}"
    assert "Traceback" not in err
    assert not output.exists()
