"""The training loop: both stages, progress, contact sheets, checkpoints, resuming."""

import copy
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch

from jokr_rt.errors import OutputError, TrainingError
from jokr_rt.interrupt import deferred_interrupt
from jokr_rt.training import distributed
from jokr_rt.training.affine import determinant
from jokr_rt.training.checkpoint import Checkpoint, Tensors, save_checkpoint
from jokr_rt.training.data import Clip, on_black
from jokr_rt.training.geometry import GeometryNetworks, GeometryStage, first_map
from jokr_rt.training.guard import Fault, Guard, not_numbers
from jokr_rt.training.log import MetricsLog
from jokr_rt.training.networks import Model, render_heatmaps, soft_argmax
from jokr_rt.training.options import Pace, TrainOptions
from jokr_rt.training.perception import Features
from jokr_rt.training.resume import RESUME, read_state, restore_random, write_state
from jokr_rt.training.sheet import save_geometry_sheet, save_sheet
from jokr_rt.training.sights import Sights
from jokr_rt.training.stage import Stage, placed, recompute_statistics
from jokr_rt.training.texture import TextureStage
from jokr_rt.training.views import GeometryLoader, TextureLoader

CHECKPOINT = "checkpoint.safetensors"
REFERENCES = 8  # frames of each video that a checkpoint carries for appearance and parity
BACKGROUNDS = (0.1, 0.3)  # shares of the geometry's steps between which backgrounds come in
MATCHING = 0.1  # share of the geometry's steps in which the other video comes in
CRITIC = (0.1, 0.3)  # shares of the texture's steps between which the critic's word comes in
STATISTICS_BATCHES = 8
STATISTICS_STEP = 2**40  # batches that no step sees

Report = Callable[[int, int, dict[str, float], float], None]  # step, steps in all, losses, share of the time done


class Training:
    """A training run in a folder. `run` returns when the last step is done; interrupted, it has saved.

    `stage` is what learns now: first a `GeometryStage`, then a `TextureStage`. `model` is what is kept of the first
    when the second begins.
    """

    def __init__(
        self,
        clips: tuple[Clip, Clip],
        options: TrainOptions,
        folder: Path,
        device: torch.device,
        pace: Pace | None = None,
    ) -> None:
        torch.manual_seed(options.seed)
        self.pace = pace or Pace()
        self.clips, self.options, self.folder, self.device = clips, options, folder, device
        self.steps = options.steps
        self.model = placed(Model(options.config), device)
        self.features = Features() if options.weights.perceptual else None  # here, for its file may be missing
        self.step = 0
        self.saved_step: int | None = None
        self._compiles = False
        self._begin_geometry()
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OutputError(f"{folder}: cannot be made: {error.strerror}; choose another folder with -o") from None

    @property
    def in_geometry(self) -> bool:
        return isinstance(self.stage, GeometryStage)

    @property
    def stage_step(self) -> int:
        """Steps of the present stage that are done."""
        return self.step if self.in_geometry else self.step - self.options.geometry_steps

    @property
    def stage_steps(self) -> int:
        """Steps that the present stage has."""
        return self.options.geometry_steps if self.in_geometry else self.steps - self.options.geometry_steps

    @property
    def lr(self) -> float:
        """Learning rate of the next step: falls to 0 over the second half of a stage, of its part at full size."""
        coarse = 0 if self.in_geometry else min(self.options.coarse_steps, self.stage_steps - 1)
        share = (self.stage_step - coarse) / (self.stage_steps - coarse)
        return self.options.lr * min(1.0, 2 * (1 - share))

    def _begin_geometry(self) -> None:
        options = self.options
        self.guard = Guard((self.clips[0].name, self.clips[1].name))
        self.loader: GeometryLoader | TextureLoader = GeometryLoader(
            self.clips,
            options.batch,
            options.seed,
            self.device,
            size=options.config.extractor_size,
            neighbours=options.weights.temporal > 0,
            backgrounds=lambda step: _rise(step / options.geometry_steps, *BACKGROUNDS),
        )
        start = first_map(*self.clips, options.mirror)
        self.stage: Stage[Any] = GeometryStage(self.model, options.weights, start, options.precision, self.device)

    def _begin_texture(self) -> None:
        """Freeze what the geometry has come to, and go on with it."""
        geometry = self.stage.average
        self._recompute_statistics(geometry)
        self.stage.hand_over(geometry, self.model)
        self._enter_texture(geometry)

    def _enter_texture(self, geometry: torch.nn.Module) -> None:
        assert isinstance(geometry, GeometryNetworks)
        options = self.options
        self.guard = Guard((self.clips[0].name, self.clips[1].name))
        self.loader = TextureLoader(
            self.clips, options.batch, options.seed, self.device, coarse=lambda step: step < options.coarse_steps
        )
        self.stage = TextureStage(self.model, geometry, self.features, options.weights, options.precision, self.device)
        if self._compiles:
            self.stage.compile()

    @torch.no_grad()
    def _recompute_statistics(self, networks: torch.nn.Module) -> None:
        batches = (self.loader.make(STATISTICS_STEP + index) for index in range(STATISTICS_BATCHES))
        recompute_statistics(networks, (self.stage.look(networks, batch) for batch in batches))

    def compile(self) -> None:
        """Let `torch.compile` make the large networks faster; the first steps of each stage are slow then."""
        self._compiles = True
        self.stage.compile()

    def run(self, report: Report) -> Checkpoint:
        """Train to the last step and log each, see `MetricsLog`. On Ctrl-C the step is finished and saved, then
        KeyboardInterrupt is raised. Of several processes (see `distributed`) the leader logs, reports and saves.

        Raises TrainingError where training has failed (see `Guard`), naming what is wrong, the step and the last good
        checkpoint, which is left as it is.
        """
        leads = distributed.is_leader()
        with deferred_interrupt() as interrupt, MetricsLog(self.folder, self.step) if leads else nullcontext() as log:
            model: Model | None = None  # as it is after the last step; none where there is no step left
            while self.step < self.steps:
                lr, values = self.lr, self._advance()
                if log is not None:
                    log.write(self.step, lr, values)
                    report(self.step, self.steps, values, self._share_done())
                ends = self.stage_step == self.stage_steps
                if ends:
                    self._fail_for(self.guard.at_the_end())
                is_shown = self.step % self.options.sheet_every == 0 or ends
                stop = distributed.anyone(interrupt.requested)
                is_due = self.step % self.options.save_every == 0 or self.step == self.steps or stop
                if not self.guard.suspects and (is_shown or is_due):
                    model = self.kept()
                    self._fail_for(self._unfit(model))  # the losses are of the weights before the step
                    if is_shown and leads:
                        self._save_sheet(model)
                    if is_due:
                        self._save(model)
                if ends and self.step < self.steps:
                    self._begin_texture()
                if stop:
                    raise KeyboardInterrupt(*([self._saved()] if self.saved_step else []))
        return self.checkpoint(model)

    def _share_done(self) -> float:
        return self.pace.seconds(self.options, self.step) / self.pace.seconds(self.options)

    def _advance(self) -> dict[str, float]:
        """One step. Its losses, or TrainingError."""
        step, share = self.stage_step, self.stage_step / self.stage_steps
        self.stage.set_rate(self.lr)
        batch = self.loader.batch(step)
        found = self.stage.step(batch, _rise(share, 0, MATCHING) if self.in_geometry else _rise(share, *CRITIC))
        values = {name: value.item() for name, value in found.items()}
        self.step += 1
        self.stage.follow(step + 1)
        self._fail_for(self.guard.watch(step + 1, values, Sights(*self.stage.sights.tolist()), self._area()))
        return values

    def _area(self) -> float | None:
        """By how much the map changes areas; negative where it mirrors and should not, or the reverse."""
        if not isinstance(self.stage, GeometryStage):
            return None
        theta = self.stage.learner.transformer.theta.detach()
        return determinant(theta[None]).item() * (-1 if self.options.mirror else 1)

    def kept(self) -> Model:
        """The model as it is now, in eval mode, by averaged weights. Its generator learns in the second stage only."""
        model = copy.deepcopy(self.model)
        self._recompute_statistics(self.stage.average)
        self.stage.hand_over(self.stage.average, model)
        return model.eval()

    @torch.inference_mode()
    def _unfit(self, model: Model) -> Fault | None:
        """Whether the model to be kept finds and draws numbers."""
        frames = torch.cat([clip.frames[:1] for clip in self.clips]).to(self.device).float() / 255
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
        if not self.saved_step:
            return "nothing of this run was saved"
        file = RESUME if self.saved_step <= self.options.geometry_steps else CHECKPOINT
        return f"step {self.saved_step} is in {self.folder / file}"

    def _save_sheet(self, model: Model) -> None:
        path = self.folder / f"sheet-{self.step:06d}.png"
        if isinstance(self.stage, GeometryStage):
            save_geometry_sheet(path, model, self.stage.average.drawer, self.clips)
        else:
            coarse = self.stage_step < self.options.coarse_steps
            save_sheet(path, model.resized(model.config.size // 2) if coarse else model, self.clips)

    def checkpoint(self, model: Model | None = None) -> Checkpoint:
        domains = {domain: clip.name for domain, clip in zip("ab", self.clips, strict=True)}
        references = {domain: clip.references(REFERENCES) for domain, clip in zip("ab", self.clips, strict=True)}
        return Checkpoint(model or self.kept(), domains, references, self.step, self.options.to_recipe())

    def save(self) -> None:
        """Write what is needed to resume and, once there are pictures, to export; each file atomically."""
        self._save(self.kept())

    def _save(self, model: Model) -> None:
        self.saved_step = self.step
        if not distributed.is_leader():
            return
        if self.in_geometry:
            (self.folder / CHECKPOINT).unlink(missing_ok=True)  # of a run that this one overwrites
        else:
            save_checkpoint(self.folder / CHECKPOINT, self.checkpoint(model))
        write_state(self.folder, self.stage.tensors(), self.step, self.options, self.clips, self.device)

    def resume(self) -> None:
        """Go on where the run in this folder stopped, bit-exactly on the same machine in as many processes.

        Raises CheckpointError where there is none, or it was made with other options or clips.
        """
        tensors, self.step = read_state(self.folder, self.options, self.clips)
        self.saved_step = self.step
        if self.step > self.options.geometry_steps:
            geometry = self.stage.average
            geometry.load_state_dict(_below(tensors, "frozen."))
            self.stage.hand_over(geometry, self.model)
            self._enter_texture(geometry)
        self.stage.load(tensors)
        restore_random(tensors, self.device)
        if self.step == self.options.geometry_steps:
            self._begin_texture()


def _below(tensors: Tensors, prefix: str) -> Tensors:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}


def _rise(share: float, first: float, last: float) -> float:
    """From 0 at `first` to 1 at `last`."""
    return min(1.0, max(0.0, (share - first) / (last - first)))
