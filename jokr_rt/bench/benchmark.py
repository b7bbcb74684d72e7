"""Every variant in a process of its own; they take turns, A B C A B C, so that a noisy machine disturbs all alike."""

import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from jokr_rt.bench import tasks
from jokr_rt.bench.figures import psnr_db
from jokr_rt.bench.machine import busy, machine, revision, versions
from jokr_rt.bench.processes import Child, Processes
from jokr_rt.bench.results import Peaks, Subject, results
from jokr_rt.bench.variants import TORCH, Variant, choose_variants
from jokr_rt.bundle import FP32
from jokr_rt.engines import Monitor
from jokr_rt.errors import EngineError
from jokr_rt.evaluation.puppets import BROWN, TEST, write_video
from jokr_rt.video import read_video

REPEATS = 50
RUNS = 3
BUSY = 0.1  # more than this share of the processor in others' hands makes figures worse
FRAMES_A_TURN = 5
FRAMES = 24  # of the clip, drawn over and over
FILM_SIDE = 480  # pixels, of the clip that is made: more than a model's, so that reading it includes making it smaller


def benchmark(
    subject: Subject,
    processes: Processes,
    monitor: Monitor,
    *,
    engines: Sequence[str] = (),
    precisions: Sequence[str] = (),
    source: str | Path | None = None,
    repeats: int = REPEATS,
    runs: int = RUNS,
) -> dict[str, Any]:
    """Measure `subject`, and return what was found, as `jokr_rt.bench.results` has it.

    engines, precisions: see `choose_variants`. source: a clip; a puppet's walk is filmed where there is none. repeats:
    of a frame, at least. runs: of the clip, from file to file. Raises UsageError, InputError for a clip that cannot be
    read.
    """
    variants = choose_variants(engines, precisions)
    about: dict[str, Any] = {"date": time.strftime("%Y-%m-%d"), "machine": machine(), "versions": versions()}
    about |= {"revision": revision(), "busy": busy()}
    if about["busy"] is not None and about["busy"] > BUSY:
        monitor.say(
            f"other programs take {about['busy']:.0%} of the processor: end them first, if figures are to be right"
        )
    begun = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="jokr-bench-") as folder:
        bench = _Bench(subject, processes, monitor, Path(folder))
        bench.seed()
        clip = Path(source) if source is not None else bench.film()
        bench.keep_frames(clip)
        peaks = bench.take_turns(variants, -(-repeats // FRAMES_A_TURN))
        bench.compare(variants)
        bench.run_files(variants, clip, runs)
    about["clip"] = str(source) if source is not None else f"a puppet's walk, {FILM_SIDE} x {FILM_SIDE}"
    about["settings"] = {"repeats": repeats, "runs": runs}
    about["seconds"] = time.perf_counter() - begun
    return results(about, subject, variants, peaks)


class _Bench:
    """What the parts of a benchmark share: a folder for its files, and who starts processes."""

    def __init__(self, subject: Subject, processes: Processes, monitor: Monitor, folder: Path) -> None:
        self.subject = subject
        self.processes = processes
        self.monitor = monitor
        self.folder = folder
        self.checkpoint = subject.checkpoint or folder / "model.safetensors"

    def seed(self) -> None:
        """A checkpoint for PyTorch, if there is none."""
        if self.subject.checkpoint is None:
            with suppress(EngineError):  # without PyTorch: the variant will say so
                config = self.subject.bundle.config.to_json()
                self.processes.once(tasks.seed, config=config, checkpoint=str(self.checkpoint))

    def film(self) -> Path:
        """The demo's walk."""
        path = self.folder / "walk.mp4"
        write_video(path, BROWN, TEST.motion(), FILM_SIDE)
        return path

    def keep_frames(self, clip: Path) -> None:
        """The first frames of a clip, decoded, for every variant to draw."""
        frames = islice(read_video(clip, size=self.subject.bundle.config.size), FRAMES)
        np.save(self.folder / "clip.npy", np.stack([frame.rgb for frame in frames]))

    def take_turns(self, variants: list[Variant], turns: int) -> Peaks:
        """Load all variants; then each draws some frames in every turn, and so is the floor measured in every turn."""
        peaks, floor = self._load_floor()
        children: list[tuple[Variant, Child]] = []
        for index, variant in enumerate(variants):
            self.monitor.step("loading", index, len(variants))
            if (child := self._load(variant)) is not None:
                children.append((variant, child))
        self.monitor.step("loading", 1, 1)
        for turn in range(turns):
            self.monitor.step("inference", turn, turns)
            if floor is not None:
                peaks.add(floor.turn())
            for variant, child in children:
                self._take_turn(variant, child)
        self.monitor.step("inference", 1, 1)
        for child in filter(None, [floor, *(child for _, child in children)]):
            self.processes.end(child)
        return peaks

    def _load_floor(self) -> tuple[Peaks, Child | None]:
        child = self.processes.child(tasks.floor)
        try:
            child.answer()
            return Peaks(), child
        except EngineError as error:
            self.processes.end(child)
            return Peaks(str(error)), None

    def _load(self, variant: Variant) -> Child | None:
        child = self.processes.child(
            tasks.frames,
            model=str(self.checkpoint if variant.engine == TORCH else self.subject.bundle.root),
            engine=variant.engine,
            precision=variant.precision,
            mode=variant.mode,
            clip=str(self.folder / "clip.npy"),
            drawn=str(self._images(variant)),
            count=FRAMES_A_TURN,
        )
        try:
            ran = child.answer()["precision"]
            if ran != variant.precision:
                raise EngineError(f"it ran in {ran}")
            return child
        except EngineError as error:
            variant.reason = str(error).replace(str(self.subject.bundle.root), self.subject.name)
            self.processes.end(child)
            return None

    def _take_turn(self, variant: Variant, child: Child) -> None:
        if variant.reason:  # it failed in an earlier turn
            return
        try:
            found = child.turn()
        except EngineError as error:
            variant.reason = str(error)
            return
        variant.fps.append(found["fps"])
        for stage, times in found["milliseconds"].items():
            variant.milliseconds.setdefault(stage, []).extend(times)

    def compare(self, variants: list[Variant]) -> None:
        """PSNR of what each has drawn to what an engine has in fp32, and PyTorch too where that is the same model."""
        bundled = [each for each in variants if not each.reason and (each.engine != TORCH or self.subject.checkpoint)]
        reference = next((each for each in bundled if each.precision == FP32 and each.engine != TORCH), None)
        if reference is None:
            return
        wanted = np.load(self._images(reference))
        for variant in bundled:
            variant.psnr_db = psnr_db(np.load(self._images(variant)), wanted)

    def run_files(self, variants: list[Variant], clip: Path, runs: int) -> None:
        """The whole clip, from file to file, with what runs so; in turns again."""
        chosen = [variant for variant in variants if variant.is_file_to_file]
        for run in range(runs):
            for index, variant in enumerate(chosen):
                self.monitor.step("file to file", run * len(chosen) + index, runs * len(chosen))
                try:
                    variant.runs.append(self._run_file(variant, clip))
                except EngineError as error:
                    variant.reason = str(error)
        self.monitor.step("file to file", 1, 1)

    def _run_file(self, variant: Variant, clip: Path) -> dict[str, Any]:
        output = self.folder / "out.mp4"
        if variant.engine == TORCH:
            files = {"checkpoint": self.checkpoint, "clip": clip, "output": output}
            return self.processes.once(tasks.loop, **{name: str(path) for name, path in files.items()})
        options = {"--engine": variant.engine, "--precision": variant.precision, "--mode": variant.mode}
        arguments = [word for option in options.items() for word in option]
        return self.processes.jokr("run", self.subject.bundle.root, clip, "-o", output, "--overwrite", *arguments)

    def _images(self, variant: Variant) -> Path:
        """What a variant drew."""
        return self.folder / f"{variant}.npy"
