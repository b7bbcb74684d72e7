"""Notices that training has failed while it still goes on: from any stage's losses, and from what it shows."""

import math
import statistics
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from jokr_rt.training.sights import Sights

EXPLODED = 100.0  # times what a loss was when it was calm
CALM = 1.0  # what that counts as at least, and until it is known: losses are of coordinates and colours in [-1, 1]
WINDOW = 20  # steps whose median tells what a loss is like
EXPLODED_STEPS = 10  # so many in a row, for adversaries have their moments
WARM_UP = 50  # steps that may show anything
SHOWN_STEPS = 20  # so many in a row must show what is wrong
ONE_SPOT = 0.02  # mean distance of the keypoints from their centre, in half-widths: a pixel of a hundred
MISSING = 0.05  # share of the object, or of what is around it, that a drawn silhouette must have at least
AREAS = 0.02, 50.0  # what a map between two creatures can make of an area: 7 times smaller or larger either way
ONE_COLOUR = 0.05  # contrast of the drawn pictures, as a share of the true ones'

_SLOWER = "a lower --lr"
_EXPLODED_HINT = f"{_SLOWER}, and clips in which both creatures face the same way"
_MAP_HINT = "--mirror or --no-mirror, whichever it was not, or a lower --lr"
_SPOT_HINT = f"{_SLOWER}, masks of the creatures (--a-masks, --b-masks), or more --weight diversity=W"
_SILHOUETTE_HINT = f"{_SLOWER}, and look whether the masks are white on the creature and nowhere else"
_COLOUR_HINT = f"{_SLOWER}, and masks of the creatures (--a-masks, --b-masks)"


@dataclass(frozen=True)
class Fault:
    """what: is wrong, in words. hint: what to try. patience: steps in a row until it counts."""

    what: str
    hint: str
    patience: int


def not_numbers(what: str, value: float = math.nan) -> Fault:
    """`what` is not finite."""
    return Fault(f"{what} is {value}", _EXPLODED_HINT, 1)


class Guard:
    """Watches a run, or one stage of it, step by step. names: of the two videos, for people.

    What it says depends on what it is told alone: of several processes that are told the same, all say the same.
    """

    def __init__(self, names: tuple[str, str]) -> None:
        self._names = names
        self._recent: dict[str, deque[float]] = {}
        self._calm: dict[str, float] = {}  # the lowest median so far
        self._faults: dict[str, Fault] = {}
        self._since: dict[str, int] = {}  # steps in a row with the fault of that name

    @property
    def suspects(self) -> bool:
        """Whether the last step was faulty, so that what it led to is not to be kept."""
        return bool(self._faults)

    def watch(
        self, step: int, losses: Mapping[str, float], sights: Sights | None = None, area: float | None = None
    ) -> Fault | None:
        """Tell what `step`, counted from 1, was like. Returns a fault that has lasted for as long as it may.

        area: by how much the map between the creatures changes areas; negative where it turned inside out.
        """
        self._faults = dict(self._exploded(losses))
        if area is not None and not AREAS[0] < area < AREAS[1]:
            what = f"the map between {' and '.join(self._names)} has collapsed (it changes areas {area:.2g} times)"
            self._faults["map"] = Fault(what, _MAP_HINT, SHOWN_STEPS)
        if sights is not None and step > WARM_UP:
            self._faults |= self._seen(sights)
        self._since = {name: self._since.get(name, 0) + 1 for name in self._faults}
        return next((fault for name, fault in self._faults.items() if self._since[name] >= fault.patience), None)

    def at_the_end(self) -> Fault | None:
        """A fault of the last step, however long it has lasted."""
        return next(iter(self._faults.values()), None)

    def _exploded(self, losses: Mapping[str, float]) -> Iterator[tuple[str, Fault]]:
        for name, value in losses.items():
            if not math.isfinite(value):
                yield name, not_numbers(f"the {name} loss", value)
                continue
            calm = max(CALM, self._calm.get(name, CALM))
            if abs(value) > EXPLODED * calm:
                what = f"the {name} loss has exploded to {value:.4g}, more than {EXPLODED:g} times {calm:.2g}"
                yield name, Fault(what, _EXPLODED_HINT, EXPLODED_STEPS)
                continue
            recent = self._recent.setdefault(name, deque(maxlen=WINDOW))
            recent.append(abs(value))
            if len(recent) == WINDOW:
                self._calm[name] = min(self._calm.get(name, math.inf), statistics.median(recent))

    def _seen(self, sights: Sights) -> dict[str, Fault]:
        found: dict[str, Fault] = {}
        for side, name in enumerate(self._names):
            drawn, true = sights.silhouette[side], sights.true_silhouette[side]
            signs = (
                (sights.spread[side] < ONE_SPOT, f"all keypoints of {name} lie on one spot", _SPOT_HINT),
                (drawn < MISSING * true, f"the silhouettes drawn of {name} are empty", _SILHOUETTE_HINT),
                (1 - drawn < MISSING * (1 - true), f"the silhouettes drawn of {name} are full", _SILHOUETTE_HINT),
                (sights.contrast[side] < ONE_COLOUR, f"the pictures drawn of {name} have one colour", _COLOUR_HINT),
            )
            found |= {what: Fault(what, hint, SHOWN_STEPS) for wrong, what, hint in signs if wrong}
        return found
