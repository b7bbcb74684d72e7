"""The benchmark for GPUs where there is none: its arithmetic on known numbers, its tables, and what it says."""

import itertools
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from torch import nn

from jokr_rt.training.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from tests.process import ROOT
from tests.tiny import TINY


@pytest.fixture(autouse=True)
def _scripts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))


@pytest.fixture
def report() -> ModuleType:
    import gpu_report

    return gpu_report


@pytest.fixture
def gpu() -> Iterator[ModuleType]:
    before = list(sys.path)
    import gpu

    yield gpu
    sys.path[:] = before


@pytest.fixture
def frames() -> ModuleType:
    import gpu_frames

    return gpu_frames


@pytest.fixture
def kernel() -> ModuleType:
    import gpu_kernel

    return gpu_kernel


def test_a_call_takes_its_share_of_the_median_repeat(report: ModuleType) -> None:
    assert report.median_per_call([50.0, 100.0, 9000.0], calls=50) == 2.0


def test_the_sampler_moves_each_heatmap_in_and_out_and_theta(report: ModuleType) -> None:
    assert report.sampler_bytes((256, 10, 128, 128), 4) == 2 * 256 * 10 * 128 * 128 * 4 + 256 * 24
    assert report.sampler_bytes((1, 1, 1, 1), 2) == 4 + 24


def test_kernel_bars(report: ModuleType) -> None:
    rows = [
        {"dtype": "float32", "batch": 1, "launched_ms": 0.01, "eager_ms": 0.03, "compiled_ms": 0.019, "of_copy": 0.1},
        {"dtype": "float32", "batch": 256, "launched_ms": 0.2, "eager_ms": 0.3, "compiled_ms": 0.3, "of_copy": 0.81},
        {"dtype": "float16", "batch": 1, "launched_ms": 0.01, "eager_ms": 0.02},
    ]
    found = [(bar.name, bar.value, bar.verdict) for bar in report.kernel_bars(rows)]
    assert found == [
        ("kernel float32, N = 256: of a copy's bandwidth", 81, "met"),
        ("kernel float32, N = 1: against the eager pair", pytest.approx(3), "met"),
        ("kernel float32, N = 1: against the compiled pair", pytest.approx(1.9), "missed"),
        ("kernel float16, N = 256: of a copy's bandwidth", None, "not measured"),
        ("kernel float16, N = 1: against the eager pair", pytest.approx(2), "missed"),
        ("kernel float16, N = 1: against the compiled pair", None, "not measured"),
    ]


def test_frame_bars_take_the_best_engine_in_fp16_and_the_faster_eager_run(report: ModuleType) -> None:
    rows = [
        {"engine": "torch eager", "precision": "fp32", "p50": 3.0},
        {"engine": "torch eager", "precision": "fp16", "p50": 4.0},
        {"engine": "torch-cuda", "precision": "fp32", "p50": 0.3},
        {"engine": "torch-cuda", "precision": "fp16", "p50": 0.5},
        {"engine": "tensorrt", "precision": "fp16", "skipped": "not installed: tensorrt"},
    ]
    absolute, relative = report.frame_bars(rows)
    assert (absolute.value, absolute.verdict) == (0.5, "met")
    assert (relative.value, relative.verdict) == (6, "missed")
    assert relative.to_json() == {
        "name": "frame, fp16, best engine against PyTorch eager",
        "value": 6.0,
        "unit": "times",
        "at_least": 8,
        "verdict": "missed",
    }
    assert [bar.verdict for bar in report.frame_bars([])] == ["not measured"] * 2


def test_tables_are_markdown_and_say_what_was_skipped(report: ModuleType) -> None:
    rows = [{"engine": "a", "p50": 0.123456, "fps": 7}, {"engine": "b", "skipped": "not installed: b"}]
    assert report.markdown(("engine", "p50", "fps"), rows).splitlines() == [
        "| engine | p50 | fps |",
        "| --- | --- | --- |",
        "| a | 0.1235 | 7 |",
        "| b |  | skipped: not installed: b |",
    ]


def test_latency_is_from_frame_to_image_one_by_one(frames: ModuleType) -> None:
    ticks = itertools.count()
    seen = []

    def draw(frame: np.ndarray) -> np.ndarray:
        seen.append(int(frame[0, 0, 0, 0]))
        assert frame.shape == (1, 4, 4, 3)
        for _ in range(len(seen) % 3):
            next(ticks)
        return frame

    pool = np.arange(2, dtype=np.uint8)[:, None, None, None].repeat(4, 1).repeat(4, 2).repeat(3, 3)
    found = frames.latency(draw, pool, count=3, clock=lambda: next(ticks) / 1000)
    assert len(seen) == frames.WARM_UPS + 3
    assert seen[-3:] == [0, 1, 0]
    assert found == {"p50": pytest.approx(2), "p95": pytest.approx(3), "p99": pytest.approx(3)}


@pytest.mark.parametrize("count", [1, 2, 7])
def test_throughput_keeps_two_frames_in_flight_and_collects_all(frames: ModuleType, count: int) -> None:
    class Queue:
        waiting = most = collected = 0

        def enqueue(self, frame: np.ndarray) -> None:
            self.waiting += 1
            self.most = max(self.most, self.waiting)

        def collect(self) -> None:
            assert self.waiting
            self.waiting -= 1
            self.collected += 1

    queue, clock = Queue(), iter([10.0, 12.0])
    assert frames.throughput(queue, np.zeros((3, 4, 4, 3), np.uint8), count, lambda: next(clock)) == count / 2
    assert (queue.waiting, queue.collected, queue.most) == (0, count, min(count, 2))


def test_the_model_is_seeded_and_a_checkpoint_that_exports(frames: ModuleType, tmp_path: Path) -> None:
    first, again, other = (frames.Seeded.of(TINY, seed) for seed in (0, 0, 1))
    weights = [each.model.generator.head.weight for each in (first, again, other)]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])
    assert first.references["a"].shape == (2, 64, 64, 3)
    save_checkpoint(tmp_path / "seeded.safetensors", Checkpoint(**vars(first)))
    assert load_checkpoint(tmp_path / "seeded.safetensors").domains == {"a": "first", "b": "second"}


def test_a_frames_arithmetic_is_that_of_its_layers(frames: ModuleType) -> None:
    """Two operations for each weight at each place, counted by hand."""
    model = frames.Seeded.of(TINY).model
    counted: list[int] = []

    def count(layer: nn.Module, inputs: tuple[torch.Tensor], output: torch.Tensor) -> None:
        places = (inputs[0] if isinstance(layer, nn.ConvTranspose2d) else output).shape[2:].numel()
        counted.append(2 * layer.weight.numel() * places)

    seen = model.extractor
    parts = (seen.encoder, seen.decoder, seen.keypoint_head, model.generator)  # looks are read once
    for layer in (layer for part in parts for layer in part.modules()):
        if isinstance(layer, (nn.Conv2d, nn.ConvTranspose2d, nn.Linear)):
            layer.register_forward_hook(count)
    with torch.no_grad():
        _, looks = model.extractor(torch.zeros(1, 3, 64, 64))
        model.generator(model.stn_a2b(torch.zeros(1, TINY.keypoints, 2))[1], looks)
    single, half = (frames.floor(TINY, precision, 1e12, 1e9) for precision in ("fp32", "fp16"))
    assert single.flops == half.flops == sum(counted)
    kernels = (parameter for part in parts for parameter in part.parameters() if parameter.dim() > 1)
    weights = sum(kernel.numel() for kernel in kernels)
    assert single.nbytes == 4 * weights + 2 * 64 * 64 * 3
    assert half.nbytes == 2 * weights + 2 * 64 * 64 * 3


def test_pytorchs_pair_is_the_operator(kernel: ModuleType) -> None:
    from jokr_rt.training.networks import affine_grid_sample

    heatmaps, theta = torch.rand(2, 3, 9, 7), kernel.thetas(2, reach=0.2)
    assert theta.shape == (2, 2, 3)
    torch.testing.assert_close(kernel.pair(heatmaps, theta), affine_grid_sample(heatmaps, theta))
    assert torch.equal(kernel.thetas(3, reach=0.0), torch.eye(2, 3).expand(3, 2, 3))


def test_the_report_has_every_part(gpu: ModuleType) -> None:
    found = {
        "device": {"name": "NVIDIA H100 80GB HBM3", "driver": "13.0"},
        "versions": {"python": "3.12.0", "torch": "2.11.0"},
        "peaks": {"fp32": 50e12, "fp16": 700e12, "bandwidth": 2.5e12},
        "kernel": [{"dtype": "float32", "batch": 1, "launched_ms": 0.004}],
        "model": "preset full, untrained, seed 0",
        "frames": [{"engine": "torch eager", "precision": "fp32", "p50": 3.0, "p95": 3.5, "p99": 4.0, "max_levels": 0}],
        "floors_ms": {"fp16": {"flops": 13.5e9, "bytes": 80e6, "compute_ms": 0.017, "memory_ms": 0.032, "ms": 0.032}},
        "bars": [{"name": "frame", "value": 0.6, "unit": "ms", "at_most": 0.5, "verdict": "missed"}],
    }
    words = gpu.report(found)
    assert "# NVIDIA H100 80GB HBM3, driver for CUDA 13.0" in words
    assert "50.0 TFLOP/s in fp32, 700.0 in fp16, 2500 GB/s of copy" in words
    assert "Compiled by PyTorch: skipped, triton is not installed." in words
    assert "## Whole frame, milliseconds (preset full, untrained, seed 0)" in words
    assert "| torch eager | fp32 | 3 | 3.5 | 4 |  | 0 |" in words
    assert "Floor in fp16: 13.5 GFLOP 0.017 ms, 80.0 MB 0.032 ms." in words
    assert words.endswith("| frame | 0.6 | at most 0.5 | ms | missed |")
    json.dumps(found, allow_nan=False)


def test_names_and_versions(gpu: ModuleType) -> None:
    assert gpu.slug("NVIDIA H100 80GB HBM3") == "nvidia-h100-80gb-hbm3"
    found = gpu.versions()
    assert found["torch"] == torch.__version__
    assert "tensorrt" not in found or found["tensorrt"]


ABSENT = ("av", "click", "onnx", "onnxruntime", "onnxscript", "openvino", "rich", "safetensors", "tensorrt", "triton")


def start(*arguments: str) -> subprocess.CompletedProcess[str]:
    """The benchmark in a process that has PyTorch, numpy and cuda-bindings alone, far from the source tree."""
    script = str(ROOT / "benchmarks" / "gpu.py")
    program = (
        "import runpy, sys\n"
        f"sys.modules.update(dict.fromkeys({ABSENT!r}))\n"
        f"sys.argv = [{script!r}, *sys.argv[1:]]\n"
        f"runpy.run_path({script!r}, run_name='__main__')\n"
    )
    return subprocess.run([sys.executable, "-c", program, *arguments], capture_output=True, text=True, cwd="/")


def test_help_tells_what_it_measures() -> None:
    done = start("--help")
    assert done.returncode == 0, done.stderr
    assert "untrained and seeded" in done.stdout
    assert "--only {kernel,frames}" in done.stdout


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_without_a_gpu_it_says_so_in_one_line() -> None:
    done = start()
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.startswith(f"error: PyTorch {torch.__version__} finds no NVIDIA GPU here")
    assert done.stderr.count("\n") == 1


def test_no_frames_cannot_be_meant() -> None:
    done = start("--frames", "0")
    assert done.returncode == 2
    assert "--frames 0: give 1 or more" in done.stderr


def test_all_of_it_can_be_imported_on_a_bare_machine() -> None:
    program = (
        "import sys\n"
        f"sys.modules.update(dict.fromkeys({ABSENT!r}))\n"
        f"sys.path[:0] = [{str(ROOT)!r}, {str(ROOT / 'benchmarks')!r}]\n"
        "import gpu, gpu_frames, gpu_kernel\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd="/")
    assert (done.returncode, done.stderr) == (0, "")


def test_an_engine_that_is_absent_is_named(frames: ModuleType) -> None:
    from jokr_rt.errors import EngineMissingError

    with pytest.raises(EngineMissingError, match="not installed: onnxruntime-gpu"):
        frames._load("onnxruntime-cuda", lambda: pytest.fail("nothing is exported for it"), "fp16")
