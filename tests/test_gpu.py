"""On an NVIDIA GPU: kernel and engines against PyTorch. Skipped without one, unless JOKR_REQUIRE_GPU is set."""

import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

from jokr_rt.engines.cuda import Device
from jokr_rt.training.checkpoint import load_checkpoint
from jokr_rt.training.cuda_engine import TorchCudaEngine
from jokr_rt.training.engine import TorchEngine
from tests import tolerances
from tests.process import ROOT
from tests.tiny import TINY, creature_frames


@pytest.fixture
def gpu_kernel(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    import gpu_kernel

    return gpu_kernel


@pytest.mark.gpu
@pytest.mark.parametrize("reach", [0.0, 0.2, 1.0])
@pytest.mark.parametrize("shape", [(1, 10, 128, 128), (3, 7, 33, 65), (256, 10, 32, 32), (2, 1, 1, 1)])
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_kernel_samples_as_pytorch_in_float64(
    gpu_kernel: ModuleType, dtype: str, shape: tuple[int, int, int, int], reach: float
) -> None:
    """Compiled by NVRTC, launched through the driver as TensorRT launches it, with each of the tactics."""
    with Device() as device:
        image = gpu_kernel.compile_ptx(device.compute_capability)
        sampler = gpu_kernel.Sampler(device, device.stream(), image, shape, dtype)
        for depth in gpu_kernel.DEPTHS:
            assert gpu_kernel.largest_error(sampler, reach, depth) <= gpu_kernel.TOLERANCES[dtype]


@pytest.mark.gpu
@pytest.mark.parametrize(("precision", "floats"), [("fp32", tolerances.FP32), ("fp16", 0.02), ("bf16", 0.2)])
def test_torch_cuda_computes_what_the_reference_does(tiny_checkpoint: Path, precision: str, floats: float) -> None:
    """One stage after the other, and whole frames in a CUDA graph, in batches of two sizes and both directions."""
    checkpoint = load_checkpoint(tiny_checkpoint)
    reference, engine = TorchEngine(checkpoint), TorchCudaEngine(checkpoint, precision)
    frames = creature_frames(5, TINY.size, seed=3)
    seen, expected = (each.run("extractor", {"frame": frames}) for each in (engine, reference))
    assert np.abs(seen["keypoints"] - expected["keypoints"]).max() <= floats
    for direction, target in (("a2b", "b"), ("b2a", "a")):
        appearance = reference.appearance(target)
        queue = engine.frames(direction, appearance)
        for batch in (slice(0, 1), slice(1, 2), slice(2, 5), slice(0, 1)):
            queue.enqueue(frames[batch])
            found = queue.collect()
            assert np.abs(found["keypoints"] - expected["keypoints"][batch]).max() <= floats
            warped = reference.run(f"stn-{direction}", {"keypoints": found["keypoints"]})["warped"]
            looks = np.repeat(appearance, len(warped), axis=0)
            image = reference.run("generator", {"warped": warped, "appearance": looks})["image"]
            difference = np.abs(found["image"].astype(int) - image)
            assert difference.mean() <= (0.01 if precision == "fp32" else 2)
        queue.close()
    engine.close()


@pytest.mark.gpu
def test_the_benchmark_runs(tmp_path: Path) -> None:
    out = tmp_path / "gpu.json"
    command = [sys.executable, ROOT / "benchmarks" / "gpu.py", "--frames", "20", "--only", "frames", "--out", out]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert torch.cuda.get_device_name() in done.stdout
    assert out.exists()


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
@pytest.mark.parametrize(("required", "outcome"), [("", "1 skipped"), ("1", "1 error")])
def test_absence_can_be_made_a_failure(required: str, outcome: str) -> None:
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"{__file__}::test_the_benchmark_runs"]
    environment = os.environ | {"JOKR_REQUIRE_GPU": required}
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=environment, check=False)
    assert done.stdout.splitlines()[-1].startswith(outcome), done.stdout
    assert ("JOKR_REQUIRE_GPU is set" in done.stdout) == bool(required)
