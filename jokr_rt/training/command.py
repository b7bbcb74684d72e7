"""From paths and options to a trained checkpoint: what `jokr train` does."""

import os
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from jokr_rt.config import PRESETS
from jokr_rt.errors import TrainingError, UsageError
from jokr_rt.names import clip_names
from jokr_rt.training import distributed
from jokr_rt.training.auto import ENOUGH_STEPS, Choice, choose_options
from jokr_rt.training.checkpoint import Checkpoint
from jokr_rt.training.data import Clip, load_clip, on_black
from jokr_rt.training.inspection import inspect_clips
from jokr_rt.training.lock import exclusive
from jokr_rt.training.log import HAS_TENSORBOARD
from jokr_rt.training.networks import Model, soft_argmax
from jokr_rt.training.options import TrainOptions
from jokr_rt.training.orientation import facing
from jokr_rt.training.recipe import CLIPS, CONFIG, write_recipe
from jokr_rt.training.resume import RESUME, resumed_options
from jokr_rt.training.train import CHECKPOINT, Report, Training
from jokr_rt.video import open_masks, open_video


def train_clips(
    sources: tuple[Path, Path],
    masks: tuple[Path | None, Path | None],
    output: Path,
    wanted: dict[str, Any],
    *,
    minutes: float,
    device: str,
    compiled: bool = False,
    resume: bool,
    overwrite: bool,
    say: Callable[[str], None],
    report: Report,
) -> Checkpoint:
    """Train from two clips into the folder `output`, telling `say` in words what happens and `report` every step.

    wanted: fields of TrainOptions; what is None of `config`, `steps`, `coarse`, `precision` and `mirror` is chosen, see
    `choose_options` and `facing`, and said; a run that is resumed keeps what it chose. minutes: for `steps`.

    Of several processes, each of which calls this within `distributed.session`, only the leader tells and writes.
    Raises UsageError where the folder holds a checkpoint or another training is at work there, InputError where there
    is nothing to learn from the clips, TrainingError where the networks, if they are to be `compiled`, cannot be, and
    what `load_clip` and `Training` raise.
    """
    where = _device(device)
    with exclusive(output) if distributed.is_leader() else nullcontext():
        if not resume and not overwrite and any((output / name).exists() for name in (CHECKPOINT, RESUME)):
            raise UsageError(f"{output}: holds a checkpoint; --resume goes on with it, --overwrite starts anew")
        _refuse_early(sources, masks, wanted)
        if not distributed.is_leader():
            say = _keep_quiet
        team = f"{distributed.world_size()} processes, " if distributed.world_size() > 1 else ""
        say(f"training on {where}, {team}{torch.get_num_threads()} threads")
        choice = None if resume else _choose(wanted, minutes, where, say)
        options = resumed_options(output, wanted) if choice is None else choice.options
        clips = _load(sources, masks, options, say)
        if wanted.get("mirror") is None and not resume:
            options = replace(options, mirror=_face_opposite_ways(clips, say))
        training = Training(clips, options, output, where, None if choice is None else choice.pace)
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


def _refuse_early(sources: tuple[Path, Path], masks: tuple[Path | None, Path | None], wanted: dict[str, Any]) -> None:
    """Before time is spent on measuring: raises UsageError for options and InputError for clips that are no use."""
    TrainOptions(**{"config": PRESETS["full"]} | {name: value for name, value in wanted.items() if value is not None})
    for source, mattes in zip(sources, masks, strict=True):
        open_video(source).close()
        if mattes is not None:
            open_masks(mattes).close()


def _choose(wanted: dict[str, Any], minutes: float, device: torch.device, say: Callable[[str], None]) -> Choice:
    """What the machine chooses of what was not given, said in a line."""
    choice = choose_options(wanted, minutes, device)
    options, model, words = choice.options, choice.options.config, []
    if choice.preset:
        others = " or ".join(name for name in PRESETS if name != choice.preset)
        words += [
            f"preset {choice.preset} (--preset {others}): {model.size} x {model.size} pixels, width {model.width:g}, "
            f"{model.keypoints} keypoints"
        ]
    if wanted.get("precision") is None:
        words += [f"precision {options.precision}"]
    if wanted.get("steps") is None:
        words += [f"{options.steps} steps (--minutes, --steps)"]
    if words:
        say(f"chosen for this machine: {'; '.join(words)}")
    if choice.pace is not None:
        say(f"{options.steps} steps will take about {choice.pace.seconds(options) / 60:.0f} minutes")
    if options.steps < ENOUGH_STEPS and wanted.get("steps") is None:
        say(f"too few for good pictures, which take {ENOUGH_STEPS} and more: give it more --minutes")
    return choice


def _face_opposite_ways(clips: tuple[Clip, Clip], say: Callable[[str], None]) -> bool:
    first, second = (clip.name for clip in clips)
    found = facing(*clips)
    ways = "opposite ways" if found.opposite else "the same way"
    say(
        f"{first} and {second} face {ways}{'' if found.sure else ', as far as can be seen'}; "
        f"if not, say {'--no-mirror' if found.opposite else '--mirror'}"
    )
    return found.opposite


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
        found, expected = (soft_argmax(model.extractor.find(frames))[0] for frames in (plain, masked))
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
    training.compile()
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
