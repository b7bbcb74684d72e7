"""What a run leaves in its folder to go on with: resume.safetensors."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from jokr_rt.config import ModelConfig
from jokr_rt.errors import CheckpointError
from jokr_rt.training.checkpoint import Tensors, read_tensors, write_tensors
from jokr_rt.training.data import Clip
from jokr_rt.training.options import TrainOptions

RESUME = "resume.safetensors"
RESUME_FORMAT = "jokr-training-3"
FREE = ("sheet_every", "save_every")  # options that may differ when a run goes on


def write_state(
    folder: Path, tensors: Tensors, step: int, options: TrainOptions, clips: tuple[Clip, Clip], device: torch.device
) -> None:
    """Write a stage's tensors after `step`, and the state of the random numbers, atomically. Raises OutputError."""
    random: Tensors = {"random.cpu": torch.get_rng_state()}
    if device.type == "cuda":
        random["random.cuda"] = torch.cuda.get_rng_state(device)
    header = {"step": step, "options": _fingerprint(options, clips)}
    write_tensors(folder / RESUME, tensors | random, header, RESUME_FORMAT)


def read_state(folder: Path, options: TrainOptions, clips: tuple[Clip, Clip]) -> tuple[Tensors, int]:
    """What `write_state` wrote: tensors and step. Raises CheckpointError, also where options or clips are not those."""
    tensors, header = read_tensors(folder / RESUME, RESUME_FORMAT)
    theirs, ours = header["options"], _fingerprint(options, clips)
    if theirs != ours:
        differing = next(key for key in ours if theirs.get(key) != ours[key])
        made = f"{differing} = {theirs.get(differing)}, not {ours[differing]}"
        raise CheckpointError(f"{folder / RESUME}: made with {made}; resume with the same options and clips")
    return tensors, int(header["step"])


def restore_random(tensors: Tensors, device: torch.device) -> None:
    """Make random numbers go on as they would have when `tensors` were written."""
    torch.set_rng_state(tensors["random.cpu"])
    if "random.cuda" in tensors and device.type == "cuda":
        torch.cuda.set_rng_state(tensors["random.cuda"], device)


def resumed_options(folder: Path, wanted: dict[str, Any]) -> TrainOptions:
    """Those to go on with in a folder; what is None in `wanted` is what its run chose. Raises CheckpointError."""
    _, header = read_tensors(folder / RESUME, RESUME_FORMAT)
    chosen = dict(header["options"])
    model = ModelConfig.from_json({name: chosen.pop(name) for name in asdict(ModelConfig())})
    left_open = {name: chosen[name] for name, value in wanted.items() if value is None and name in chosen}
    return TrainOptions(**wanted | left_open | {"config": wanted.get("config") or model})


def _fingerprint(options: TrainOptions, clips: tuple[Clip, Clip]) -> dict[str, object]:
    """What must be the same for a resumed run to be the run it resumes."""
    values = asdict(options)
    for free in FREE:
        del values[free]
    model, weights = values.pop("config"), values.pop("weights")
    lengths = [len(clip.frames) for clip in clips]
    return model | values | {"frames": lengths} | {f"weight {name}": weight for name, weight in weights.items()}
