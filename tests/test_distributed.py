"""Two real processes of torchrun make the run that one makes; precision, and compiled networks."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from jokr_rt.config import ModelConfig
from jokr_rt.errors import UsageError
from jokr_rt.evaluation.puppets import BLUE, BROWN, Motion, write_clip
from jokr_rt.training.checkpoint import load_checkpoint
from jokr_rt.training.data import load_clip
from jokr_rt.training.losses import LossWeights
from jokr_rt.training.step import Stepper
from jokr_rt.training.train import CHECKPOINT, RESUME, TrainOptions
from jokr_rt.training.views import Loader
from tests.process import ROOT, command, jokr
from tests.tolerances import BF16, EXACT, PROCESSES, REWRITE

CPU = torch.device("cpu")
CONFIG = ModelConfig(keypoints=4, size=64, width=1 / 16, extractor_size=64)
TINY = ["--keypoints", "4", "--size", "64", "--width", "0.0625", "--batch", "4", "--device", "cpu"]
PATIENCE = 300  # seconds until a run that hangs is ended

IN_FLOAT64 = "import torch; torch.set_default_dtype(torch.float64); torch.Tensor.float = torch.Tensor.double\n"
"""Before a program that trains. Two processes sum in another order than one, and each processor in its own. Of a
gradient that is nothing but rounding Adam makes a whole step, unless it is far below Adam's epsilon of 1e-8."""


@pytest.fixture(scope="module")
def puppets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("puppets")
    for name, puppet in (("a", BROWN), ("b", BLUE)):
        write_clip(folder / name, puppet, Motion.walk(6, seed=1), 64)
    return folder


def arguments(puppets: Path, output: Path, *more: str) -> list[str]:
    a, b = puppets / "a", puppets / "b"
    clips = ["--a", a / "frames", "--a-masks", a / "masks", "--b", b / "frames", "--b-masks", b / "masks"]
    return ["train", *map(str, clips), "-o", str(output), *TINY, *more]


@contextmanager
def two_processes(*line: str) -> Iterator[subprocess.Popen[str]]:
    """A command in two processes of torchrun, on this machine's own interface. Leaves none behind."""
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "--no-python"]
    environment = {**os.environ, "GLOO_SOCKET_IFNAME": "lo", "OMP_NUM_THREADS": "1"}
    pipe = subprocess.PIPE
    with subprocess.Popen(
        [*torchrun, *line], cwd=ROOT, env=environment, stdout=pipe, stderr=pipe, text=True
    ) as process:
        try:
            yield process
        finally:
            process.terminate()  # one that still runs: torchrun ends its own


def run_two(*line: str) -> subprocess.CompletedProcess[str]:
    with two_processes(*line) as process:
        out, err = process.communicate(timeout=PATIENCE)
    return subprocess.CompletedProcess(line, process.returncode, out, err)


def metrics(folder: Path) -> list[dict[str, float]]:
    return [json.loads(line)["losses"] for line in (folder / "metrics.jsonl").read_text().splitlines()]


def errors(words: str) -> list[str]:
    return [line for line in words.splitlines() if line.startswith("jokr:")]


def test_two_processes_make_the_run_of_one_and_one_of_them_writes_and_talks(puppets, tmp_path):
    """Through all phases: without and with late losses, with BatchNorm's own statistics and with frozen ones."""
    more = ["--steps", "6", "--seed", "3", "--lr", "1e-4", "--weight", "temporal=1", "--json"]
    alone = jokr(*arguments(puppets, tmp_path / "alone", *more), prelude=IN_FLOAT64)
    assert alone.returncode == 0, alone.stderr
    together = run_two(*command(*arguments(puppets, tmp_path / "together", *more), prelude=IN_FLOAT64))
    assert together.returncode == 0, together.stderr

    expected, found = metrics(tmp_path / "alone"), metrics(tmp_path / "together")
    assert len(found) == len(expected) == 6
    for step, (ours, theirs) in enumerate(zip(found, expected, strict=True), 1):
        assert ours == pytest.approx(theirs, rel=PROCESSES, abs=PROCESSES), step
    first, second = (load_file(tmp_path / name / RESUME) for name in ("alone", "together"))
    assert first.keys() == second.keys()
    assert torch.equal(first["random.cpu"], second["random.cpu"])
    networks = ("model", "discriminator", "classifier")
    for part in [*(f"networks.{name}" for name in networks), *(f"optimizers.{name}" for name in networks)]:
        names = [name for name in first if name.startswith(f"{part}.") and first[name].is_floating_point()]
        theirs, ours = (torch.cat([tensors[name].flatten() for name in names]) for tensors in (first, second))
        assert theirs.dtype == torch.float64
        assert (ours - theirs).norm() <= PROCESSES * theirs.norm(), part

    assert [json.loads(line)["step"] for line in together.stdout.splitlines()] == [1, 2, 3, 4, 5, 6]
    assert together.stderr.count("training on cpu, 2 processes, 1 threads, seed 3") == 1
    words = alone.stderr.replace("alone", "together").splitlines()[1:]
    for line in words:
        if "differ by" not in line and not line.startswith("step "):
            assert together.stderr.splitlines().count(line) == 1, line
    assert "Traceback" not in together.stderr
    files = [sorted(path.name for path in (tmp_path / name).iterdir()) for name in ("alone", "together")]
    assert files[0] == files[1]


def test_ctrl_c_ends_all_after_the_same_step_and_the_run_goes_on_from_there(puppets, tmp_path):
    done = 0
    for more in ([], ["--resume"]):
        line = command(*arguments(puppets, tmp_path, "--steps", "100000", "--json", *more))
        with two_processes(*line) as process:
            assert process.stdout is not None
            json.loads(process.stdout.readline())
            process.send_signal(signal.SIGINT)
            _, err = process.communicate(timeout=PATIENCE)
        assert process.returncode != 0
        (words,) = errors(err)
        assert words.startswith("jokr: interrupted; step ")
        assert words.endswith("--json --resume")
        assert ("resumed after step" in err) == (done > 0)
        assert f"resumed after step {done} of 100000" in err or not done
        before, done = done, load_checkpoint(tmp_path / CHECKPOINT).step
        assert done > before
        steps = [json.loads(line)["step"] for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
        assert steps == list(range(1, done + 1))


def test_a_batch_that_does_not_divide_is_one_line(puppets, tmp_path):
    done = run_two(*command(*arguments(puppets, tmp_path / "out", "--steps", "1", "--batch", "3")))
    assert done.returncode != 0
    assert errors(done.stderr) == ["jokr: error: batch must divide into 2 processes, which 3 does not"]
    assert not (tmp_path / "out").exists()


def test_a_leader_that_cannot_write_ends_all_with_one_line(puppets, tmp_path):
    (tmp_path / "metrics.jsonl").mkdir()
    done = run_two(*command(*arguments(puppets, tmp_path, "--steps", "100000")))
    assert done.returncode != 0
    (line,) = errors(done.stderr)
    assert line.startswith(f"jokr: error: {tmp_path}: metrics cannot be written")
    assert "jokr_rt/training" not in done.stderr  # torchrun prints a traceback, of itself


def first_step(puppets: Path, precision: str = "fp32") -> dict[str, torch.Tensor]:
    """Losses, gradients and statistics of a step of a model whose every part matters; thetas depend on the pose."""
    clips = [load_clip(puppets / name / "frames", puppets / name / "masks", 64) for name in "ab"]
    torch.manual_seed(3)
    stepper = Stepper(CONFIG, LossWeights(temporal=1.0), 1e-4, CPU, precision)
    for stn in (stepper.model.stn_a2b, stepper.model.stn_b2a):
        torch.nn.init.normal_(stn.regressor.weight, std=0.1)
    stepper.set_phase(1e-4, settling=False)
    found = stepper.step(Loader((clips[0], clips[1]), 4, 3, CPU, neighbours=True).batch(0), ramp=1.0)
    assert {value.dtype for value in stepper.networks.state_dict().values()} <= {torch.get_default_dtype(), torch.int64}
    results = {f"loss {name}": value for name, value in found.items()}
    for name, optimizer in stepper.optimizers.items():
        gradients = [state["exp_avg"].flatten() for state in optimizer.state_dict()["state"].values()]
        results[f"gradients of {name}"] = torch.cat(gradients)
    return results | {f"buffer {name}": value.clone().float() for name, value in stepper.networks.named_buffers()}


def test_a_step_of_two_processes_has_the_losses_gradients_and_statistics_of_one(puppets, tmp_path):
    alone = f"""{IN_FLOAT64}
from pathlib import Path
from safetensors.torch import save_file
from tests.test_distributed import first_step
save_file(first_step(Path({str(puppets)!r})), {str(tmp_path / "expected")!r})
"""
    subprocess.run([sys.executable, "-c", alone], cwd=ROOT, check=True, timeout=PATIENCE)
    program = f"""{IN_FLOAT64}
from pathlib import Path
from safetensors.torch import save_file
from jokr_rt.training import distributed
from tests.test_distributed import first_step
with distributed.session():
    found = first_step(Path({str(puppets)!r}))
    if distributed.is_leader():
        save_file(found, {str(tmp_path / "found")!r})
"""
    done = run_two(sys.executable, "-c", program)
    assert done.returncode == 0, done.stderr
    found, expected = (load_file(tmp_path / name) for name in ("found", "expected"))
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert value.dtype == torch.float64
        assert (found[name] - value).norm() <= PROCESSES * (1 + value.norm()), name


def test_bf16_losses_are_near_those_of_fp32(puppets):
    exact, coarse = (
        {name: value.item() for name, value in first_step(puppets, precision).items() if name.startswith("loss")}
        for precision in ("fp32", "bf16")
    )
    assert coarse == pytest.approx(exact, rel=BF16)
    for name in ("loss reconstruction", "loss adversarial", "loss sparsity"):
        assert abs(coarse[name] / exact[name] - 1) > REWRITE, name


def test_precision_is_checked_and_kept_with_the_run():
    with pytest.raises(UsageError, match="precision must be fp32 or bf16, not 'half'"):
        TrainOptions(precision="half")
    assert replace(TrainOptions(), precision="bf16").to_recipe()["precision"] == "bf16"


def test_a_compiled_network_computes_the_same(tmp_path, monkeypatch):
    """Of the three the discriminator, which takes the fewest minutes to compile: its values and its gradients."""
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    torch.manual_seed(3)
    steppers = [Stepper(CONFIG, LossWeights(), 1e-4, CPU) for _ in range(2)]
    for stepper in steppers:
        stepper.networks.double()
    steppers[1].networks.load_state_dict(steppers[0].networks.state_dict())
    steppers[1].compile()
    images, domain = torch.randn(4, 3, 64, 64, dtype=torch.float64), torch.tensor([0, 1, 1, 0])
    results = []
    for stepper in steppers:
        discriminator = stepper.networks["discriminator"].train()
        scores = discriminator(images, domain)
        scores.square().sum().backward()
        results.append([scores, *(weight.grad for weight in discriminator.parameters())])
    assert list(tmp_path.rglob("*.so"))
    for expected, found in zip(*results, strict=True):
        torch.testing.assert_close(found, expected, rtol=0, atol=EXACT * (1 + expected.abs().max().item()))


def test_without_a_compiler_one_line_says_so(puppets, tmp_path):
    environment = {**os.environ, "CXX": "/nowhere/c++", "TORCHINDUCTOR_CACHE_DIR": str(tmp_path / "cache")}
    line = command(*arguments(puppets, tmp_path / "out", "--steps", "1", "--compile"))
    done = subprocess.run(line, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=PATIENCE)
    assert done.returncode == 1
    (words,) = errors(done.stderr)
    assert words.startswith("jokr: error: --compile: ")
    assert "Traceback" not in done.stderr
