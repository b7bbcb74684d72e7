"""PyTorch on a GPU where there is none, and a checkpoint's engines by name. What runs on one: tests/test_gpu.py."""

from pathlib import Path

import pytest
import torch
from click.testing import CliRunner

from jokr_rt.cli import main
from jokr_rt.errors import EngineMissingError, UsageError
from jokr_rt.training.checkpoint import Checkpoint, load_checkpoint
from jokr_rt.training.cuda_engine import TorchCudaEngine
from jokr_rt.training.engine import TorchEngine, load_torch_engine


@pytest.fixture
def checkpoint(tiny_checkpoint: Path) -> Checkpoint:
    return load_checkpoint(tiny_checkpoint)


def test_the_reference_is_fp32(checkpoint: Checkpoint) -> None:
    for precision in (None, "fp32"):
        engine = load_torch_engine("torch", checkpoint, precision)
        assert (type(engine), engine.name, engine.precision) == (TorchEngine, "torch", "fp32")
    with pytest.raises(UsageError, match="engine torch is the reference, in fp32, not 'fp16'; leave --precision out"):
        load_torch_engine("torch", checkpoint, "fp16")


def test_torch_cuda_takes_its_own_precisions_only(checkpoint: Checkpoint) -> None:
    with pytest.raises(UsageError, match="engine torch-cuda runs fp16, bf16, fp32, not 'int8'"):
        TorchCudaEngine(checkpoint, "int8")


def test_torch_cuda_without_a_gpu(
    checkpoint: Checkpoint, tiny_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(EngineMissingError, match="PyTorch .* finds no NVIDIA GPU; it needs one with its driver, and"):
        load_torch_engine("torch-cuda", checkpoint, None)
    command = ["run", str(tiny_checkpoint), "in.mp4", "-o", str(tmp_path / "out.mp4"), "--engine", "torch-cuda"]
    refused = CliRunner().invoke(main, command)
    assert refused.exit_code == 1
    assert refused.stderr.startswith("jokr: error: engine torch-cuda: PyTorch")
    assert refused.stderr.count("\n") == 1


def test_a_gpu_that_the_driver_does_not_show(checkpoint: Checkpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    from tests.cuda_double import install

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    double = install(monkeypatch)
    double.fail("cuInit", "CUDA_ERROR_NO_DEVICE")
    with pytest.raises(EngineMissingError, match="no NVIDIA GPU 0 here"):
        TorchCudaEngine(checkpoint)


def test_a_checkpoint_needs_one_of_its_engines(tiny_checkpoint: Path, tmp_path: Path) -> None:
    refused = CliRunner().invoke(main, ["run", str(tiny_checkpoint), "in.mp4", "-o", str(tmp_path / "out.mp4")])
    assert refused.exit_code == 2
    assert "or run it with --engine torch or torch-cuda" in refused.stderr
