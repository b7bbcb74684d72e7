"""Checkpoints: one safetensors file, its header's metadata holding the JSON. Never pickle."""

import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from jokr_rt.config import ModelConfig
from jokr_rt.errors import CheckpointError, OutputError, UsageError
from jokr_rt.training.networks import Model

FORMAT = "jokr-checkpoint-3"  # 2: a map for each pose, appearance from the keypoints' features
Tensors = dict[str, torch.Tensor]


@dataclass(frozen=True)
class Checkpoint:
    """What training hands to export.

    model: in eval mode. domains: the videos' names for people, of "a" and "b".
    references: for "a" and "b", frames (R, size, size, 3) uint8 of the object on black, spread over the video; the
    target's appearance is read off one of them. step: optimizer steps taken. recipe: the hyperparameters it was trained
    with, keys as in `jokr_rt.training.recipe`; empty for a model that was not trained.
    """

    model: Model
    domains: dict[str, str]
    references: dict[str, NDArray[np.uint8]]
    step: int
    recipe: dict[str, Any] = field(default_factory=dict)


def save_checkpoint(path: Path, checkpoint: Checkpoint) -> None:
    """Write atomically: `path` holds the old or the new checkpoint, never half of one. Raises OutputError."""
    tensors = {f"model.{name}": tensor for name, tensor in checkpoint.model.state_dict().items()}
    tensors |= {f"references.{domain}": torch.from_numpy(frames) for domain, frames in checkpoint.references.items()}
    header = {
        "config": checkpoint.model.config.to_json(),
        "domains": checkpoint.domains,
        "step": checkpoint.step,
        "recipe": checkpoint.recipe,
    }
    write_tensors(path, tensors, header, FORMAT)


def load_checkpoint(path: str | Path) -> Checkpoint:
    """Read what `save_checkpoint` wrote. Raises CheckpointError in one line."""
    path = Path(path)
    tensors, header = read_tensors(path, FORMAT)
    for name, tensor in tensors.items():
        if not tensor.isfinite().all():  # what such a model draws looks like a picture, and means nothing
            raise CheckpointError(f"{path}: {name} holds NaN or infinity; take an earlier checkpoint or train again")
    try:
        model = Model(ModelConfig.from_json(header["config"]))
        weights = {name.removeprefix("model."): tensor for name, tensor in tensors.items() if name.startswith("model.")}
        model.load_state_dict(weights)
        references = {domain: tensors[f"references.{domain}"].numpy() for domain in ("a", "b")}
        domains = {domain: str(header["domains"][domain]) for domain in ("a", "b")}
        return Checkpoint(model.eval(), domains, references, int(header["step"]), dict(header["recipe"]))
    except (KeyError, TypeError, ValueError, RuntimeError, UsageError) as error:
        reason = str(error).splitlines()[-1].strip()
        raise CheckpointError(f"{path}: weights and model config do not fit each other: {reason}") from None


def write_tensors(path: Path, tensors: Tensors, header: dict[str, Any], kind: str) -> None:
    """Write a safetensors file of `kind` with a JSON header, atomically. Raises OutputError."""
    partial = path.with_name(path.name + ".part")
    try:
        metadata = {"format": kind, "header": json.dumps(header)}
        save_file({name: tensor.detach().contiguous().cpu() for name, tensor in tensors.items()}, partial, metadata)
        os.replace(partial, path)
    except (OSError, SafetensorError) as error:
        partial.unlink(missing_ok=True)
        raise OutputError(f"{path}: cannot be written: {error}") from None


def read_tensors(path: Path, kind: str) -> tuple[Tensors, dict[str, Any]]:
    """Tensors and JSON header of a safetensors file of `kind`. Raises CheckpointError."""
    if not path.is_file():
        raise CheckpointError(f"{path}: no such checkpoint; `jokr train` writes one")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            if metadata.get("format") != kind:
                found = metadata.get("format", "an unknown one")
                old = "; an older version made it: train again, or use the bundle exported then, which still runs"
                hint = old if found.rpartition("-")[0] == kind.rpartition("-")[0] else ""
                raise CheckpointError(f"{path}: not a {kind} file, but {found!r}{hint}")
            return {name: file.get_tensor(name) for name in file.keys()}, json.loads(metadata["header"])  # noqa: SIM118
    except (OSError, SafetensorError, KeyError, ValueError) as error:
        if isinstance(error, CheckpointError):
            raise
        raise CheckpointError(f"{path}: not a safetensors checkpoint (pickled ones are not loaded): {error}") from None
