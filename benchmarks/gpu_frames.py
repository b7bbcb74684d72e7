"""Whole frames, uint8 on the host in and out: how long an engine takes for one, and what the device needs at least."""

import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from functools import cache, partial
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from gpu_report import EAGER, Row
from numpy.typing import NDArray

from jokr_rt.bench import cost
from jokr_rt.bench.figures import Floor, percentiles
from jokr_rt.config import ModelConfig
from jokr_rt.engines import IN_FLIGHT, FrameQueue, load_engine
from jokr_rt.errors import EngineMissingError, JokrError
from jokr_rt.training.appearance import choose_appearance
from jokr_rt.training.cuda_engine import TorchCudaEngine, as_precise_as_said, on_gpu
from jokr_rt.training.networks import Model
from jokr_rt.training.stages import stages

if TYPE_CHECKING:
    from jokr_rt.bundle import Bundle

DIRECTION = "a2b"
WARM_UPS = 100
POOL = 32  # different frames
PRECISIONS = ("fp32", "fp16")
_EXPORT = ("onnx", "onnxscript", "safetensors", "onnxruntime")  # which also compares
NEEDS = {"onnxruntime-cuda": ("onnxruntime-gpu", *_EXPORT), "tensorrt": ("tensorrt", *_EXPORT)}
"""The packages that an engine of bundles needs here."""
Frames = NDArray[np.uint8]
Draw = Callable[[Frames], Frames]


@dataclass(frozen=True)
class Seeded:
    """An untrained model, as a checkpoint is: its weights are PyTorch's own for this seed, its domains alike."""

    model: Model
    domains: dict[str, str]
    references: dict[str, Frames]
    step: int
    recipe: dict[str, Any]

    @classmethod
    def of(cls, config: ModelConfig, seed: int = 0) -> "Seeded":
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            model = Model(config).eval()
        references = {domain: noise(config.size, 2, seed + index) for index, domain in enumerate("ab")}
        return cls(model, {"a": "first", "b": "second"}, references, step=0, recipe={})


def noise(size: int, count: int, seed: int) -> Frames:
    """Frames (count, size, size, 3) of smooth noise."""
    coarse = np.random.default_rng(seed).integers(0, 256, (count, size // 16, size // 16, 3), dtype=np.uint8)
    return coarse.repeat(16, axis=1).repeat(16, axis=2)


def latency(draw: Draw, frames: Frames, count: int, clock: Callable[[], float] = time.perf_counter) -> dict[str, float]:
    """Milliseconds from a frame on the host to its image on the host, one after the other."""
    for index in range(WARM_UPS):
        draw(frames[index % len(frames)][None])
    times = []
    for index in range(count):
        start = clock()
        draw(frames[index % len(frames)][None])
        times.append((clock() - start) * 1e3)
    return percentiles(times)


def throughput(queue: FrameQueue, frames: Frames, count: int, clock: Callable[[], float] = time.perf_counter) -> float:
    """Frames a second where one is copied while another is computed."""
    start = clock()
    for index in range(count):
        queue.enqueue(frames[index % len(frames)][None])
        if index >= IN_FLIGHT - 1:
            queue.collect()
    for _ in range(min(count, IN_FLIGHT - 1)):
        queue.collect()
    return count / (clock() - start)


def measure_frames(config: ModelConfig, count: int, tell: Callable[[str], None]) -> list[Row]:
    """A row for each engine and precision, or why it was skipped."""
    seeded = Seeded.of(config)
    appearance = choose_appearance(seeded.model, seeded.references["b"])
    rows: list[Row] = []
    with as_precise_as_said():
        stopwatch = Stopwatch(seeded.model, appearance, count)

        def add(name: str, precision: str, measure: Callable[[], Row]) -> None:
            tell(f"{name}, {precision}")
            about = {"engine": name, "precision": precision}
            try:
                rows.append(about | measure())
            except (JokrError, RuntimeError) as error:  # the others are still to be measured
                rows.append(about | {"skipped": " ".join(str(error).splitlines()[:1])})

        for precision in PRECISIONS:
            for name in (EAGER, "torch compiled"):
                draw = partial(_eager, seeded.model, precision, appearance, is_compiled=name != EAGER)
                add(name, precision, lambda draw=draw: stopwatch.plain(draw()))
            add("torch-cuda", precision, lambda each=precision: stopwatch.device(TorchCudaEngine(seeded, each)))
        with ExitStack() as stack:
            bundles = cache(lambda: stack.enter_context(_bundle(seeded, tell)))
            for name in NEEDS:
                for precision in PRECISIONS:
                    add(name, precision, lambda name=name, each=precision: stopwatch.device(_load(name, bundles, each)))
    return rows


def floor(config: ModelConfig, precision: str, peak: float, bandwidth: float) -> Floor:
    """Of one frame. Counted, with weights, frame and image as what is moved: the least that any engine has to."""
    weights = cost.weights(config) * {"fp32": 4, "fp16": 2}[precision]
    return Floor(sum(cost.flops(config).values()), weights + 2 * 3 * config.size**2, peak, bandwidth)


class Stopwatch:
    """Times ways to draw, and compares what they draw with PyTorch's in fp32."""

    def __init__(self, model: Model, appearance: NDArray[np.float32], count: int) -> None:
        self.appearance, self.count = appearance, count
        self.frames = noise(model.config.size, POOL, seed=1)
        self.wanted = self._all(_eager(model, "fp32", appearance, is_compiled=False))

    def plain(self, draw: Draw) -> Row:
        difference = int(np.abs(self._all(draw) - self.wanted).max())
        return {"max_levels": difference} | latency(draw, self.frames, self.count)

    def device(self, engine: Any) -> Row:
        """Of a `DeviceEngine`, which is closed."""
        with closing(engine), closing(engine.frames(DIRECTION, self.appearance)) as queue:

            def draw(frame: Frames) -> Frames:
                queue.enqueue(frame)
                image: Frames = queue.collect()["image"]
                return image

            return self.plain(draw) | {"fps": throughput(queue, self.frames, self.count)}

    def _all(self, draw: Draw) -> NDArray[np.int_]:
        return np.concatenate([draw(frame[None]) for frame in self.frames]).astype(int)


def _eager(model: Model, precision: str, appearance: NDArray[np.float32], is_compiled: bool) -> Draw:
    """As it is usually written: to the GPU, through the stages, back."""
    modules = stages(on_gpu(model, precision))
    looks = torch.from_numpy(appearance).cuda()

    def compute(frame: torch.Tensor) -> torch.Tensor:
        keypoints, _, _ = modules["extractor"](frame)
        _, warped = modules[f"stn-{DIRECTION}"](keypoints)
        image: torch.Tensor = modules["generator"](warped, looks)[0]
        return image

    if is_compiled:
        torch.compiler.reset()
        compute = torch.compile(compute, dynamic=False)

    @torch.inference_mode()
    def draw(frame: Frames) -> Frames:
        return compute(torch.from_numpy(frame).cuda()).cpu().numpy()

    return draw


def _load(name: str, bundle: Callable[[], "Bundle"], precision: str) -> Any:
    if missing := [package for package in NEEDS[name] if not _has(package)]:
        raise EngineMissingError(f"not installed: {', '.join(missing)}")
    return load_engine(name, bundle(), precision)


@contextmanager
def _bundle(seeded: Seeded, tell: Callable[[str], None]) -> "Iterator[Bundle]":
    """The model as a bundle in both precisions, while the block runs."""
    from export import export_bundle
    from jokr_rt.training.checkpoint import Checkpoint, save_checkpoint

    tell("exporting")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "model.safetensors")
        save_checkpoint(path, Checkpoint(**vars(seeded)))
        yield export_bundle(path, Path(folder, "model.jokr"), precisions=["fp16"])


def _has(package: str) -> bool:
    try:
        return bool(version(package))
    except PackageNotFoundError:
        return find_spec(package) is not None
