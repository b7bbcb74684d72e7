"""From paths and options to a trained checkpoint: what `jokr train` does."""

import os
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import torch

from jokr_rt.errors import TrainingError, UsageError
from jokr_rt.names import clip_names
from jokr_rt.training import distributed
from jokr_rt.training.checkpoint import Checkpoint
from jokr_rt.training.data import Clip, load_clip, on_black
from jokr_rt.training.inspection import inspect_clips
from jokr_rt.training.lock import exclusive
from jokr_rt.training.log import HAS_TENSORBOARD
from jokr_rt.training.networks import Model, soft_argmax
from jokr_rt.training.recipe import CLIPS, CONFIG, write_recipe
from jokr_rt.training.train import CHECKPOINT, Report, Training, TrainOptions


def train_clips(
    sources: tuple[Path, Path],
    masks: tuple[Path | None, Path | None],
    output: Path,
    options: TrainOptions,
    *,
    device: str,
    compiled: bool = False,
    resume: bool,
    overwrite: bool,
    say: Callable[[str], None],
    report: Report,
) -> Checkpoint:
    """Train from two clips into the folder `output`, telling `say` in words what happens and `report` every step.

    Of several processes, each of which calls this within `distributed.session`, only the leader tells and writes.
    Raises UsageError where the folder holds a checkpoint or another training is at work there, InputError where there
    is nothing to learn from the clips, TrainingError where the networks, if they are to be `compiled`, cannot be, and
    what `load_clip` and `Training` raise.
    """
    where = _device(device)
    with exclusive(output) if distributed.is_leader() else nullcontext():
        if not resume and not overwrite and (output / CHECKPOINT).exists():
            raise UsageError(f"{output}: holds a checkpoint; --resume goes on with it, --overwrite starts anew")
        if not distributed.is_leader():
            say = _keep_quiet
        team = f"{distributed.world_size()} processes, " if distributed.world_size() > 1 else ""
        say(f"training on {where}, {team}{torch.get_num_threads()} threads, seed {options.seed}")
        clips = _load(sources, masks, options, say)
        training = Training(clips, options, output, where)
        if resume:
            training.resume()
            say(f"resumed after step {training.step} of {training.steps}")
        paths = dict(zip(CLIPS, (sources[0], masks[0], sources[1], masks[1]), strict=True))
        if distributed.is_leader():
            write_recipe(output / CONFIG, options, {key: path for key, path in paths.items() if path is not None})
        if HAS_TENSORBOARD:
            say(f"to watch it: tensorboard --logdir {output}")
        checkpoint = _run_compiled(training, report) if compiled else training.run(report)
    for clip in clips:
        if clip.has_masks:
            gap = background_gap(checkpoint.model, clip)
            say(f"{clip.name}: keypoints with and without masks differ by {gap:.3f} of the half-width")
    say(f"trained {checkpoint.step} steps; next: jokr export {output / CHECKPOINT} -o {output.name}.jokr")
    return checkpoint


def _load(
    sources: tuple[Path, Path],
    masks: tuple[Path | None, Path | None],
    options: TrainOptions,
    say: Callable[[str], None],
) -> tuple[Clip, Clip]:
    """Both clips under names that differ, and a word about each."""
    size, holdout = options.config.size, options.holdout
    loaded = [load_clip(path, mask, size, holdout) for path, mask in zip(sources, masks, strict=True)]
    first, second = (replace(clip, name=name) for clip, name in zip(loaded, clip_names(*sources), strict=True))
    for clip in (first, second):
        kept = f" ({clip.held_out} more held out)" if holdout else ""
        say(f"{clip.name}: {len(clip.frames)} frames{kept}, {'with' if clip.has_masks else 'without'} masks")
    for words in inspect_clips(first, second):
        say(words)
    return first, second


@torch.inference_mode()
def background_gap(model: Model, clip: Clip) -> float:
    """Mean distance, in half-widths, between keypoints found before the clip's own background and before black."""
    device = next(model.parameters()).device
    distances = []
    for batch in clip.frames.split(16):
        views = batch.to(device).float() / 255
        plain, masked = views[:, :3] * 2 - 1, on_black(views)
        found, expected = (soft_argmax(model.extractor(frames)[0])[0] for frames in (plain, masked))
        distances.append((found - expected).norm(dim=-1).mean(dim=1))
    return torch.cat(distances).mean().item()


def _device(name: str) -> torch.device:
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda" and not torch.cuda.is_available():
        raise UsageError("--device cuda: PyTorch finds no CUDA device here; use --device cpu")
    if name == "cuda" and distributed.world_size() > 1:
        index = int(os.environ["LOCAL_RANK"])
        if index >= torch.cuda.device_count():
            raise UsageError(f"--nproc-per-node: {torch.cuda.device_count()} CUDA devices here; start one process each")
        torch.cuda.set_device(index)
        return torch.device(name, index)
    return torch.device(name)


def _run_compiled(training: Training, report: Report) -> Checkpoint:
    training.stepper.compile()
    try:
        return training.run(report)
    except RuntimeError as error:  # compiled at the first call of each network, and of its gradient
        if not isinstance(error, torch._dynamo.exc.TorchDynamoException):
            raise
        cause = getattr(error, "inner_exception", error)
        reason = f"{type(cause).__name__}: {str(cause).strip().splitlines()[0]}"
        raise TrainingError(f"--compile: {reason}; torch.compile needs a C++ compiler, on a GPU Triton") from None


def _keep_quiet(words: str) -> None:
    pass
