"""From paths and options to a trained checkpoint: what `jokr train` does."""

from collections.abc import Callable
from pathlib import Path

import torch

from jokr_rt.errors import UsageError
from jokr_rt.training.checkpoint import Checkpoint
from jokr_rt.training.data import Clip, load_clip, on_black
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
    resume: bool,
    overwrite: bool,
    say: Callable[[str], None],
    report: Report,
) -> Checkpoint:
    """Train from two clips into the folder `output`, telling `say` in words what happens and `report` every step.

    Raises UsageError where the folder holds a checkpoint, and what `load_clip` and `Training` raise.
    """
    if not resume and not overwrite and (output / CHECKPOINT).exists():
        raise UsageError(f"{output}: holds a checkpoint; --resume goes on with it, --overwrite starts anew")
    where = _device(device)
    say(f"training on {where}, {torch.get_num_threads()} threads, seed {options.seed}")
    first, second = (load_clip(path, mask, options.config.size) for path, mask in zip(sources, masks, strict=True))
    for clip in (first, second):
        say(f"{clip.name}: {len(clip.frames)} frames, {'with' if clip.has_masks else 'without'} masks")
    training = Training((first, second), options, output, where)
    if resume:
        training.resume()
        say(f"resumed after step {training.step} of {training.steps}")
    clips = dict(zip(CLIPS, (sources[0], masks[0], sources[1], masks[1]), strict=True))
    write_recipe(output / CONFIG, options, {key: path for key, path in clips.items() if path is not None})
    if HAS_TENSORBOARD:
        say(f"to watch it: tensorboard --logdir {output}")
    checkpoint = training.run(report)
    for clip in (first, second):
        if clip.has_masks:
            gap = background_gap(checkpoint.model, clip)
            say(f"{clip.name}: keypoints with and without masks differ by {gap:.3f} of the half-width")
    say(f"trained {checkpoint.step} steps; next: jokr export {output / CHECKPOINT} -o {output.name}.jokr")
    return checkpoint


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
    return torch.device(name)
