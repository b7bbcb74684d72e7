"""A model as live streams use it: one engine, any number of streams, what waits in one batch."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from jokr_rt.bundle import DIRECTIONS
from jokr_rt.engines import DeviceEngine, Engine
from jokr_rt.familiar import Familiarity, familiarity
from jokr_rt.live.compose import Picture
from jokr_rt.looks import with_looks
from jokr_rt.retarget import Model, Retargeter, direction_name, find_direction
from jokr_rt.video import read_picture

Found = tuple[NDArray[np.float32], NDArray[np.float32]]
"""Keypoints (K, 2) and their confidence (K,)."""

Load = Callable[[], tuple[Model, Engine]]
"""Opens a model and loads it into an engine; called again after the engine hung."""


@dataclass
class _Loaded:
    model: Model
    engine: Engine
    targets: "dict[Target, tuple[Retargeter, NDArray[np.float32]]]" = field(default_factory=dict)
    """What was used so far: its retargeter, and the target's appearance (1, 3, size/2, size/2)."""


class LiveModel:
    """A model in one engine, loaded by `load` when it is first needed, and again after `forget`.

    batches: whether there will be some, which engines may want to be prepared for.

    `extract` and what `target` returns are called in one thread at a time; see `jokr_rt.live.inference`. A stream's
    results do not depend on the others in a batch: to the bit where the engine computes those as it does single frames.

    size: side of the square frames in and out, pixels. is_loading: whether a call takes long for this.
    """

    def __init__(self, load: Load, batches: bool = False) -> None:
        self._load, self._batches = load, batches
        self._loaded: _Loaded | None = None
        self.is_loading = False
        model = self._get().model
        self.size, self._domains = model.config.size, model.domains
        self._targets: dict[tuple[str, str | None], Target] = {}

    def direction(self, name: str) -> str:
        """ "a2b" or "b2a" for a direction's name. Raises UsageError."""
        return find_direction(name, self._domains)

    def target(self, direction: str, appearance: str | None = None) -> "Target":
        """One of the two directions, by its name; the same where all is the same. Raises UsageError.

        appearance: a picture that it has its looks from, instead of the model's own.
        """
        key = self.direction(direction), appearance
        return self._targets.setdefault(key, Target(self, *key))

    def name_of(self, direction: str) -> str:
        """Such as "cat2fox"."""
        return direction_name(direction, self._domains)

    def other(self, direction: str) -> str:
        """The name of the opposite direction."""
        return next(name for name in DIRECTIONS if name != self.direction(direction))

    def extract(self, frames: Sequence[Picture]) -> Sequence[Found]:
        """For frames (size, size, 3). Raises EngineError."""
        loaded = self._get()
        if len(frames) == 1:
            any_target = next(iter(loaded.targets), None) or self.target("a2b")
            return [self.load(any_target)[0].extract(frames[0])]
        found = loaded.engine.run("extractor", {"frame": np.stack(frames)})
        return list(zip(found["keypoints"], found["confidence"], strict=True))

    def load(self, target: "Target") -> tuple[Retargeter, NDArray[np.float32]]:
        """What it needs, if that is not there yet. Raises InputError, BundleError, EngineError."""
        loaded = self._get()
        if target not in loaded.targets:
            self.is_loading = True
            try:
                model, creature = loaded.model, DIRECTIONS[target.direction][1]
                if target.appearance is not None:
                    picture = read_picture(target.appearance, self.size)
                    model = with_looks(model, loaded.engine, creature, picture)
                retargeter = Retargeter(model, target.direction, loaded.engine, "latency")
                loaded.targets[target] = retargeter, model.appearance(creature)
                if self._batches:
                    frames = [np.zeros((self.size, self.size, 3), np.uint8)] * 2
                    target.draw([keypoints for keypoints, _ in self.extract(frames)])
            finally:
                self.is_loading = False
        return loaded.targets[target]

    def familiarity(self, direction: str) -> Familiarity | None:
        """For one stream. See `jokr_rt.familiar`."""
        return familiarity(self._get().model, direction)

    @property
    def engine(self) -> str:
        """Which one, and in what precision."""
        engine = self._get().engine
        return f"{engine.name} {engine.precision}"

    def forget(self) -> None:
        """Leave behind what is loaded, with a thread that hangs in it."""
        self._loaded = None

    def close(self) -> None:
        """Free what it holds on a device."""
        if self._loaded is not None and isinstance(self._loaded.engine, DeviceEngine):
            self._loaded.engine.close()
        self._loaded = None

    def _get(self) -> _Loaded:
        if self._loaded is None:
            self.is_loading = True
            try:
                self._loaded = _Loaded(*self._load())
            finally:
                self.is_loading = False
        return self._loaded


@dataclass(frozen=True, eq=False)
class Target:
    """Whom a stream's creature becomes: one direction of a model. appearance: see `LiveModel.target`."""

    model: LiveModel
    direction: str
    appearance: str | None

    @property
    def name(self) -> str:
        """For people."""
        return self.model.name_of(self.direction)

    def load(self, items: Sequence[None]) -> Sequence[None]:
        """Have it ready before the first frame. Raises InputError, BundleError, EngineError."""
        self.model.load(self)
        return items

    def familiarity(self) -> Familiarity | None:
        """For one stream. See `jokr_rt.familiar`."""
        return self.model.familiarity(self.direction)

    def draw(self, poses: Sequence[NDArray[np.float32]]) -> Sequence[Picture]:
        """The target's creature (size, size, 3) in each of the poses (K, 2). Raises EngineError."""
        retargeter, appearance = self.model.load(self)
        if len(poses) == 1:
            return [retargeter.draw(poses[0])]
        run = retargeter.engine.run
        warped = run(f"stn-{self.direction}", {"keypoints": np.stack(poses)})["warped"]
        looks = np.repeat(appearance, len(poses), axis=0)
        return list(run("generator", {"warped": warped, "appearance": looks})["image"])
