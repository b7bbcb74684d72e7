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
from jokr_rt.training.checkpoint import read_tensors
from jokr_rt.training.data import load_clip
from jokr_rt.training.geometry import GeometryStage, first_map
from jokr_rt.training.losses import LossWeights
from jokr_rt.training.networks import Model
from jokr_rt.training.options import TrainOptions
from jokr_rt.training.perception import Features
from jokr_rt.training.resume import RESUME, RESUME_FORMAT
from jokr_rt.training.stage import Stage
from jokr_rt.training.texture import TextureStage
from jokr_rt.training.views import GeometryBatch, GeometryLoader, TextureBatch, TextureLoader
from tests.process import ROOT, command, jokr
from tests.tiny_stages import texture_stage
from tests.tolerances import BF16, EXACT, PROCESSES, REWRITE

CPU = torch.device("cpu")
CONFIG = ModelConfig(keypoints=4, size=64, width=1 / 16, extractor_size=64)
TINY = [
    "--keypoints", "4", "--size", "64", "--width", "0.0625", "--batch", "4", "--device", "cpu", "--no-mirror",
]  # fmt: skip
PATIENCE = 300  # seconds until a run that hangs is ended

IN_FLOAT64 = "import torch; torch.set_default_dtype(torch.float64); torch.Tensor.float = torch.Tensor.double\n"
"""Before a program that trains. Two processes sum in another order than one, and each processor in its own. Of a
gradient that is nothing but rounding Adam makes a whole step, unless it is far below Adam's epsilon of 1e-8. And L1 of
differences slopes by 1 or -1 where neighbours differ by rounding: an untrained generator draws whole areas flat."""


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
    """Through both stages, without and with late losses."""
    more = ["--steps", "6", "--geometry", "0.5", "--seed", "3", "--lr", "1e-4", "--json"]
    more += ["--weight", "temporal=1", "--weight", "differences=0", "--weight", "perceptual=0"]
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
    for part in ("learner", "critic", "average", "frozen", "optimizers.learner", "optimizers.critic"):
        names = [name for name in first if name.startswith(f"{part}.") and first[name].is_floating_point()]
        theirs, ours = (torch.cat([tensors[name].flatten() for name in names]) for tensors in (first, second))
        assert theirs.dtype == torch.float64
        assert (ours - theirs).norm() <= PROCESSES * theirs.norm(), part

    assert [json.loads(line)["step"] for line in together.stdout.splitlines()] == [1, 2, 3, 4, 5, 6]
    assert together.stderr.count("training on cpu, 2 processes, 1 threads") == 1
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
        before, done = done, read_tensors(tmp_path / RESUME, RESUME_FORMAT)[1]["step"]
        assert done > before
        steps = [json.loads(line)["step"] for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
        assert steps == list(range(1, done + 1))


@pytest.mark.parametrize("batch", ["3", "6"])
def test_a_batch_that_does_not_divide_into_even_shares_is_one_line(puppets, tmp_path, batch):
    done = run_two(*command(*arguments(puppets, tmp_path / "out", "--steps", "2", "--batch", batch)))
    assert done.returncode != 0
    assert errors(done.stderr) == [f"jokr: error: batch must be a multiple of 4 for 2 processes, not {batch}"]
    assert not (tmp_path / "out").exists()


def test_a_leader_that_cannot_write_ends_all_with_one_line(puppets, tmp_path):
    (tmp_path / "metrics.jsonl").mkdir()
    done = run_two(*command(*arguments(puppets, tmp_path, "--steps", "100000")))
    assert done.returncode != 0
    (line,) = errors(done.stderr)
    assert line.startswith(f"jokr: error: {tmp_path}: metrics cannot be written")
    assert "jokr_rt/training" not in done.stderr  # torchrun prints a traceback, of itself


def first_steps(puppets: Path, precision: str = "fp32") -> dict[str, torch.Tensor]:
    """Losses, gradients and statistics of a step of either stage, with every loss there is."""
    first, second = (load_clip(puppets / name / "frames", puppets / name / "masks", 64) for name in "ab")
    torch.manual_seed(3)
    model, weights = Model(CONFIG), LossWeights(temporal=1.0)
    geometry = GeometryStage(model, weights, first_map(first, second, mirror=True), precision, CPU)
    views = GeometryLoader((first, second), 4, 3, CPU, size=64, neighbours=True)
    found = one_step(geometry, views.make(0))
    geometry.follow(1)
    geometry.hand_over(geometry.average, model)
    with torch.no_grad():
        for weight in model.generator.parameters():
            weight += 0.05 * torch.randn_like(weight)  # so that it draws nothing flat
    texture = TextureStage(model, geometry.average, Features(), weights, precision, CPU)
    return found | one_step(texture, TextureLoader((first, second), 4, 3, CPU).make(0))


def one_step(stage: Stage, batch: GeometryBatch | TextureBatch) -> dict[str, torch.Tensor]:
    stage.set_rate(1e-4)
    found = stage.step(batch, ramp=1.0)
    kind, networks = type(stage).__name__, {"learner": stage.learner, "critic": stage.critic}
    results = {f"loss {name}": value for name, value in found.items()}
    for name, network in networks.items():
        assert {value.dtype for value in network.state_dict().values()} <= {torch.get_default_dtype(), torch.int64}
        slots = stage.optimizers[name].state_dict()["state"].values()
        results[f"{kind}: gradients of {name}"] = torch.cat([slot["exp_avg"].flatten() for slot in slots])
        for buffer, value in network.named_buffers():
            results[f"{kind}: {name}.{buffer}"] = value.clone().float()
    return results


def test_a_step_of_two_processes_has_the_losses_gradients_and_statistics_of_one_in_either_stage(puppets, tmp_path):
    alone = f"""{IN_FLOAT64}
from pathlib import Path
from safetensors.torch import save_file
from tests.test_distributed import first_steps
save_file(first_steps(Path({str(puppets)!r})), {str(tmp_path / "expected")!r})
"""
    subprocess.run([sys.executable, "-c", alone], cwd=ROOT, check=True, timeout=PATIENCE)
    program = f"""{IN_FLOAT64}
from pathlib import Path
from safetensors.torch import save_file
from jokr_rt.training import distributed
from tests.test_distributed import first_steps
with distributed.session():
    found = first_steps(Path({str(puppets)!r}))
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
        {name: value.item() for name, value in first_steps(puppets, precision).items() if name.startswith("loss")}
        for precision in ("fp32", "bf16")
    )
    # What is left of mean distances, which are of the order of 1, when others are taken away.
    assert coarse.pop("loss matching") == pytest.approx(exact.pop("loss matching"), abs=BF16)
    assert coarse == pytest.approx(exact, rel=BF16)
    for name in ("loss reconstruction", "loss adversarial", "loss sparsity"):
        assert abs(coarse[name] / exact[name] - 1) > REWRITE, name


def test_precision_is_checked_and_kept_with_the_run():
    with pytest.raises(UsageError, match="precision must be fp32 or bf16, not 'half'"):
        TrainOptions(precision="half")
    assert replace(TrainOptions(), precision="bf16").to_recipe()["precision"] == "bf16"


def test_a_compiled_network_computes_the_same(tmp_path, monkeypatch):
    """Of them all the critic of pictures, which takes the fewest minutes to compile: its values and its gradients."""
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    stages = [texture_stage(), texture_stage()]
    for stage in stages:
        stage.critic.double()
    stages[1].compile()
    images, domain = torch.randn(4, 3, 64, 64, dtype=torch.float64), torch.tensor([0, 1, 1, 0])
    results = []
    for stage in stages:
        scores, *levels = stage.critic(images, domain)
        scores.square().sum().backward()
        results.append([scores, *levels, *(weight.grad for weight in stage.critic.parameters())])
    assert list(tmp_path.rglob("*.so"))
    for expected, found in zip(*results, strict=True):
        torch.testing.assert_close(found, expected, rtol=0, atol=EXACT * (1 + expected.abs().max().item()))


def test_without_a_compiler_one_line_says_so(puppets, tmp_path):
    environment = {**os.environ, "CXX": "/nowhere/c++", "TORCHINDUCTOR_CACHE_DIR": str(tmp_path / "cache")}
    line = command(*arguments(puppets, tmp_path / "out", "--steps", "2", "--compile"))
    done = subprocess.run(line, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=PATIENCE)
    assert done.returncode == 1
    (words,) = errors(done.stderr)
    assert words.startswith("jokr: error: --compile: ")
    assert "Traceback" not in done.stderr
