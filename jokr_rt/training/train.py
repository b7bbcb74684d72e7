"""The training loop: progress, contact sheets, checkpoints, resuming."""

import math
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from jokr_rt.config import ModelConfig
from jokr_rt.errors import CheckpointError, OutputError, TrainingError, UsageError
from jokr_rt.interrupt import deferred_interrupt
from jokr_rt.training import distributed
from jokr_rt.training.checkpoint import Checkpoint, Tensors, read_tensors, save_checkpoint, write_tensors
from jokr_rt.training.data import Clip, on_black
from jokr_rt.training.guard import Fault, Guard, not_numbers
from jokr_rt.training.log import MetricsLog
from jokr_rt.training.losses import LossWeights
from jokr_rt.training.networks import render_heatmaps, soft_argmax
from jokr_rt.training.sheet import save_sheet
from jokr_rt.training.sights import Sights
from jokr_rt.training.step import Stepper
from jokr_rt.training.views import Loader

CHECKPOINT = "checkpoint.safetensors"
RESUME = "resume.safetensors"
RESUME_FORMAT = "jokr-training-2"
PRECISIONS = ("fp32", "bf16")
REFERENCES = 8  # frames of each video that a checkpoint carries for appearance and parity
RAMP = (0.1, 0.3)  # shares of the steps; see `Training._ramp`
SETTLING_SHARE = 0.4  # of the steps, the last; see `Stepper.set_phase`

Report = Callable[[int, int, dict[str, float]], None]  # step, steps in all, losses


@dataclass(frozen=True)
class TrainOptions:
    """How to train. epochs, batch and lr as published; an epoch shows as many frames as the longer clip has.

    steps: instead of epochs, if given. batch: frames of each video in a step, in all processes. coarse: share of the
    steps, the first ones, that draw at half the size, which takes a third of the time. sheet_every, save_every: steps.
    precision: "fp32", or "bf16" for the large networks, all else staying fp32. holdout: keep the last of each so many
    frames of either clip from training, to measure on; 0 for none.
    """

    config: ModelConfig = ModelConfig()
    epochs: int = 100
    steps: int | None = None
    batch: int = 16
    lr: float = 2e-4
    seed: int = 0
    coarse: float = 0.0
    sheet_every: int = 250
    save_every: int = 250
    precision: str = "fp32"
    holdout: int = 0
    weights: LossWeights = field(default_factory=LossWeights)

    def __post_init__(self) -> None:
        for name in ("epochs", "batch", "sheet_every", "save_every", "lr"):
            if not 0 < getattr(self, name) < math.inf:
                raise UsageError(f"{name} must be positive, not {getattr(self, name)}")
        if self.steps is not None and self.steps <= 0:
            raise UsageError(f"steps must be positive, not {self.steps}")
        if self.batch < 2:
            raise UsageError("batch must be at least 2")
        if self.batch % distributed.world_size():
            raise UsageError(
                f"batch must divide into {distributed.world_size()} processes, which {self.batch} does not"
            )
        if not 0 <= self.coarse <= 1:
            raise UsageError(f"coarse must be between 0 and 1, not {self.coarse}")
        if self.coarse and (self.config.size // 2) % max(64, self.config.extractor_size):
            raise UsageError(
                f"coarse needs a size that can be halved, {2 * max(64, self.config.extractor_size)} or its multiple, "
                f"not {self.config.size}"
            )
        if self.precision not in PRECISIONS:
            raise UsageError(f"precision must be {' or '.join(PRECISIONS)}, not {self.precision!r}")
        if self.holdout < 0 or self.holdout == 1:
            raise UsageError(f"holdout must be 0, or 2 or more: a frame of so many is kept out; not {self.holdout}")
        if not 0 <= self.seed < 2**63:
            raise UsageError(f"seed must be 0 or more and below 2^63, not {self.seed}")
        for name, weight in asdict(self.weights).items():
            if not 0 <= weight < math.inf:
                raise UsageError(f"the weight {name} must be 0 or more, not {weight}")

    def to_recipe(self) -> dict[str, Any]:
        """All hyperparameters as `jokr_rt.training.recipe` has them: epochs or steps, and a table of weights."""
        values = asdict(self)
        del values["steps" if self.steps is None else "epochs"]
        weights = values.pop("weights")
        return values.pop("config") | values | {"weights": weights}

    def total_steps(self, clips: tuple[Clip, Clip]) -> int:
        if self.steps is not None:
            return self.steps
        return self.epochs * math.ceil(max(len(clip.frames) for clip in clips) / self.batch)


class Training:
    """A training run in a folder. `run` returns when the last step is done; interrupted, it has saved."""

    def __init__(self, clips: tuple[Clip, Clip], options: TrainOptions, folder: Path, device: torch.device) -> None:
        torch.manual_seed(options.seed)
        self.clips, self.options, self.folder = clips, options, folder
        self.steps = options.total_steps(clips)
        self.stepper = Stepper(options.config, options.weights, options.lr, device, options.precision)
        self.coarse_steps = round(options.coarse * self.steps)
        self.loader = Loader(
            clips,
            options.batch,
            options.seed,
            device,
            backgrounds=self._ramp,
            coarse_steps=self.coarse_steps,
            neighbours=options.weights.temporal > 0,
            settling=self._settles,
        )
        self.guard = Guard((clips[0].name, clips[1].name))
        self.step = 0
        self.saved_step: int | None = None
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OutputError(f"{folder}: cannot be made: {error.strerror}; choose another folder with -o") from None

    @property
    def lr(self) -> float:
        """Learning rate of the next step: falls to 0 over the second half."""
        return self.options.lr * min(1.0, 2 * (1 - self.step / self.steps))

    def run(self, report: Report) -> Checkpoint:
        """Train to the last step and log each, see `MetricsLog`. On Ctrl-C the step is finished and saved, then
        KeyboardInterrupt is raised. Of several processes (see `distributed`) the leader logs, reports and saves.

        Raises TrainingError where training has failed (see `Guard`), naming what is wrong, the step and the last good
        checkpoint, which is left as it is.
        """
        leads = distributed.is_leader()
        with deferred_interrupt() as interrupt, MetricsLog(self.folder, self.step) if leads else nullcontext() as log:
            while self.step < self.steps:
                lr, values = self.lr, self._advance()
                if log is not None:
                    log.write(self.step, lr, values)
                    report(self.step, self.steps, values)
                if self.step == self.steps:
                    self._fail_for(self.guard.at_the_end())
                is_shown = self.step % self.options.sheet_every == 0 or self.step == self.steps
                stop = distributed.anyone(interrupt.requested)
                is_due = self.step % self.options.save_every == 0 or self.step == self.steps or stop
                if not self.guard.suspects and (is_shown or is_due):
                    self._fail_for(self._unfit())  # the losses are of the weights before the step
                    if is_shown and leads:
                        self._save_sheet()
                    if is_due:
                        self.save()
                if stop:
                    raise KeyboardInterrupt(*([self._saved()] if self.saved_step else []))
        return self.checkpoint()

    def _advance(self) -> dict[str, float]:
        """One step. Its losses, or TrainingError."""
        self.stepper.set_phase(self.lr, settling=self._settles(self.step))
        found = self.stepper.step(self.loader.batch(self.step), self._ramp(self.step))
        values = {name: value.item() for name, value in found.items()}
        self.step += 1
        self.stepper.follow(self.step)
        self._fail_for(self.guard.watch(self.step, values, Sights(*self.stepper.sights.tolist())))
        return values

    @torch.inference_mode()
    def _unfit(self) -> Fault | None:
        """Whether the model to be kept finds and draws numbers."""
        model = self.stepper.average.eval()
        frames = torch.cat([clip.frames[:1] for clip in self.clips]).to(self.stepper.device).float() / 255
        logits, looks = model.extractor(on_black(frames))
        heatmaps = render_heatmaps(soft_argmax(logits)[0], model.config.heatmap_size)
        images, _ = model.generator(heatmaps, looks)
        return None if images.isfinite().all() else not_numbers("what the model draws")

    def _fail_for(self, fault: Fault | None) -> None:
        if fault is not None:
            raise TrainingError(
                f"step {self.step}: {fault.what}; {self._saved()}; try {fault.hint}, anew: in another folder or with "
                "--overwrite"
            )

    def _saved(self) -> str:
        return (
            f"step {self.saved_step} is in {self.folder / CHECKPOINT}"
            if self.saved_step
            else "nothing of this run was saved"
        )

    def _save_sheet(self) -> None:
        model = self.stepper.average
        if self.step < self.coarse_steps:
            model = model.resized(model.config.size // 2)
        save_sheet(self.folder / f"sheet-{self.step:06d}.png", model, self.clips)

    def _ramp(self, step: int) -> float:
        """How much of the backgrounds and of the late losses there is: rises from 0 to 1.

        At first the keypoints find the object, on black, undisturbed; they get nowhere near as far otherwise.
        """
        first, last = RAMP
        return min(1.0, max(0.0, (step / self.steps - first) / (last - first)))

    def _settles(self, step: int) -> bool:
        return step / self.steps >= 1 - SETTLING_SHARE

    def checkpoint(self) -> Checkpoint:
        domains = {domain: clip.name for domain, clip in zip("ab", self.clips, strict=True)}
        references = {domain: clip.references(REFERENCES) for domain, clip in zip("ab", self.clips, strict=True)}
        return Checkpoint(self.stepper.average.eval(), domains, references, self.step, self.options.to_recipe())

    def save(self) -> None:
        """Write what is needed to export and to resume, each file atomically; the leader does, for all."""
        self.saved_step = self.step
        if not distributed.is_leader():
            return
        save_checkpoint(self.folder / CHECKPOINT, self.checkpoint())
        tensors: Tensors = {f"networks.{name}": value for name, value in self.stepper.networks.state_dict().items()}
        for name, optimizer in self.stepper.optimizers.items():
            for index, slots in optimizer.state_dict()["state"].items():
                tensors |= {f"optimizers.{name}.{index}.{slot}": value for slot, value in slots.items()}
        tensors["random.cpu"] = torch.get_rng_state()
        if self.stepper.device.type == "cuda":
            tensors["random.cuda"] = torch.cuda.get_rng_state(self.stepper.device)
        write_tensors(self.folder / RESUME, tensors, {"step": self.step, "options": self._fingerprint()}, RESUME_FORMAT)

    def resume(self) -> None:
        """Go on where the run in this folder stopped, bit-exactly on the same machine in as many processes.

        Raises CheckpointError where there is none, or it was made with other options or clips.
        """
        tensors, header = read_tensors(self.folder / RESUME, RESUME_FORMAT)
        theirs, ours = header["options"], self._fingerprint()
        if theirs != ours:
            differing = next(key for key in ours if theirs.get(key) != ours[key])
            made = f"{differing} = {theirs.get(differing)}, not {ours[differing]}"
            raise CheckpointError(f"{self.folder / RESUME}: made with {made}; resume with the same options and clips")
        stepper = self.stepper
        stepper.networks.load_state_dict(_below(tensors, "networks."))
        for name, optimizer in stepper.optimizers.items():
            state: dict[int, Tensors] = {}
            for key, value in _below(tensors, f"optimizers.{name}.").items():
                index, _, slot = key.partition(".")
                state.setdefault(int(index), {})[slot] = value
            optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
        torch.set_rng_state(tensors["random.cpu"])
        if "random.cuda" in tensors and stepper.device.type == "cuda":
            torch.cuda.set_rng_state(tensors["random.cuda"], stepper.device)
        self.step = self.saved_step = int(header["step"])

    def _fingerprint(self) -> dict[str, object]:
        """What must be the same for a resumed run to be the run it resumes."""
        options = asdict(self.options)
        for free in ("epochs", "steps", "sheet_every", "save_every"):
            del options[free]
        model, weights = options.pop("config"), options.pop("weights")
        lengths = [len(clip.frames) for clip in self.clips]
        return (
            model | options | {"steps": self.steps, "frames": lengths} | {f"weight {n}": w for n, w in weights.items()}
        )


def _below(tensors: Tensors, prefix: str) -> Tensors:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
