"""What is measured in a process of its own; see `jokr_rt.bench.child`."""

import itertools
import time
from collections.abc import Iterable, Iterator
from contextlib import closing
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from jokr_rt.bench.child import Found, peak_bytes
from jokr_rt.config import ModelConfig
from jokr_rt.errors import EngineMissingError
from jokr_rt.frame import Frame
from jokr_rt.retarget import Retargeter
from jokr_rt.timing import Timings, process_age

if TYPE_CHECKING:
    from jokr_rt.training.engine import TorchEngine
    from jokr_rt.video import Pair

TORCH = "torch"
DIRECTION = "a2b"
EDGE = 4  # frames before those that are counted where several are in flight, and after: about as many as are
SECONDS_A_TURN, MOST = 0.15, 60  # so long, and so many frames, is a turn of quick ones
TICK = Fraction(1, 25)


class Samples(Timings):
    """Keeps every duration, in milliseconds, for exact percentiles."""

    def __init__(self) -> None:
        super().__init__()
        self.stages: dict[str, list[float]] = {}

    def add(self, stage: str, seconds: float) -> None:
        self.stages.setdefault(stage, []).append(seconds * 1e3)


def frames(model: str, engine: str, precision: str, mode: str, clip: str, drawn: str, count: int) -> Iterator[Found]:
    """Load an engine, draw every frame of a clip (.npy, T x size x size x 3) for warming up, and keep what was drawn.

    model: a bundle, or for torch a checkpoint. A turn draws `count` frames, more if they are quick, and some before
    that are not counted. It answers with milliseconds by stage, and with frames a second.
    """
    pictures = np.load(clip)
    edge = 1 if mode == "latency" else EDGE
    with _retargeter(model, engine, precision, mode) as retargeter:
        images, ends = _draw(retargeter, pictures)
        np.save(drawn, images)
        count = max(count, min(MOST, round(SECONDS_A_TURN * (len(ends) - 1) / (ends[-1] - ends[0]))))
        yield {"engine": retargeter.engine.name, "precision": retargeter.engine.precision}
        for turn in itertools.count():
            wanted = np.take(pictures, np.arange(turn * count, (turn + 1) * count + 2 * edge), axis=0, mode="wrap")
            retargeter.timings = samples = Samples()
            _, ends = _draw(retargeter, wanted)
            milliseconds = {stage: times[edge : edge + count] for stage, times in samples.stages.items()}
            yield {"milliseconds": milliseconds, "fps": count / (ends[edge + count - 1] - ends[edge - 1])}


def loop(checkpoint: str, clip: str, output: str) -> Iterator[Found]:
    """What a user would write: read a frame, PyTorch's networks as they are, write it, and so on."""
    from jokr_rt.video import read_video, write_video

    engine = _torch_engine(checkpoint)
    retargeter = Retargeter(engine, DIRECTION, engine)
    start = time.perf_counter()
    ages: list[float | None] = []

    def drawn() -> Iterator[Frame]:
        for frame in read_video(clip, size=retargeter.size):
            image = retargeter(frame)
            ages.append(process_age())
            yield image

    count = write_video(output, drawn(), overwrite=True)
    seconds = time.perf_counter() - start
    report = {"frames": count, "seconds": seconds, "fps": count / seconds, "first_frame_s": ages[0]}
    yield report | {"peak_bytes": peak_bytes()}


def floor() -> Iterator[Found]:
    """The machine's peaks, measured anew each turn; see `jokr_rt.bench.floor`."""
    try:
        from jokr_rt.bench.floor import Peaks
    except ImportError as error:
        raise EngineMissingError(f"it is measured with openvino ({error}): pip install 'jokr-rt[cpu]'") from error

    peaks = Peaks()
    yield {"precisions": peaks.precisions}
    while True:
        yield peaks.measure()


def seed(config: dict[str, Any], checkpoint: str) -> Iterator[Found]:
    """Write an untrained model of a config."""
    _import_torch()
    from jokr_rt.training.checkpoint import save_checkpoint
    from jokr_rt.training.seeded import seeded_checkpoint

    save_checkpoint(Path(checkpoint), seeded_checkpoint(ModelConfig.from_json(config)))
    yield {}


def _retargeter(model: str, engine: str, precision: str, mode: str) -> Retargeter:
    if engine == TORCH:
        reference = _torch_engine(model, precision)
        return Retargeter(reference, DIRECTION, reference)
    from jokr_rt.bundle import open_bundle
    from jokr_rt.engines import load_engine

    bundle = open_bundle(model)
    return Retargeter(bundle, DIRECTION, load_engine(engine, bundle, precision), mode)


def _torch_engine(checkpoint: str, precision: str | None = None) -> "TorchEngine":
    _import_torch()
    from jokr_rt.training.checkpoint import load_checkpoint
    from jokr_rt.training.engine import load_torch_engine

    return load_torch_engine(TORCH, load_checkpoint(checkpoint), precision)


def _import_torch() -> None:
    try:
        import jokr_rt.training.checkpoint  # noqa: F401
    except ImportError as error:
        raise EngineMissingError(f"engine {TORCH} is not installed ({error}): pip install 'jokr-rt[train]'") from error


def _draw(retargeter: Retargeter, pictures: NDArray[np.uint8]) -> tuple[NDArray[np.uint8], list[float]]:
    """What becomes of pictures (T, size, size, 3), and when each was there, in seconds of `time.perf_counter`."""
    pairs: Iterable[Pair] = ((Frame(picture, index, TICK), None) for index, picture in enumerate(pictures))
    images, ends = [], []
    with closing(retargeter.retarget_all(pairs)) as results:
        for result in results:
            ends.append(time.perf_counter())
            images.append(result.image.rgb)
    return np.stack(images), ends
