"""What a person does to found motion, as a small document, and what becomes of the motion. Pure numpy.

The maths on tracks is in `jokr_rt.keypoints`. Edits are applied in this order, each to what the one before left:

1. `smooth`: a One-Euro filter on the keypoints as they were found.
2. `exaggerate`: each keypoint's distance from its mean over time is scaled.
3. `mirror`: what was to the left of that mean is to the right of it. The creature faces the way that it did: of
   keypoints mirrored about the frame's middle, or the mean of them all, a model draws rags: it never saw such a pose.
4. `keypoints`: keypoints are moved through the places that they were given at key poses.
5. `speed`: time is scaled, with interpolated poses in between.

Wherever 2 to 5 take a keypoint out of the frame, [-1, 1], it is put on its edge. A key pose is what is seen when a
keypoint is dragged there, and stays, whatever is smoothed, exaggerated or mirrored later; its time is the found
motion's, before 5. A track of no edits is left as it is, to the bit.

Whose looks are drawn is no matter of the motion, and so none of this: see `jokr_rt.looks`.
"""

import json
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from jokr_rt.documents import (
    check_keys,
    check_list,
    check_number,
    check_whole,
    parse_document,
    read_text,
    short_number,
    shown,
    write_text,
)
from jokr_rt.errors import InputError, UsageError
from jokr_rt.keypoints import METHODS, Doubles, Track, displace, exaggerate, interpolate, retime, smooth

KIND, VERSION = "jokr_edits", 1
MAX_BYTES = 4 << 20
MAX_KEYPOINTS, MAX_KEYS = 64, 10_000  # of a model; of one keypoint
MAX_SMOOTH, MAX_EXAGGERATE, MAX_FADE, MAX_SECONDS = 1000.0, 10.0, 3600.0, 1e6
SPEEDS = (1 / 16, 16.0)
_APART = 1e-6  # seconds between two keys: slopes between them stay finite


@dataclass(frozen=True)
class Key:
    """Where a keypoint is at a time. time: seconds, on the clock of the motion as found. x, y: in [-1, 1]."""

    time: float
    x: float
    y: float

    def __post_init__(self) -> None:
        check_number(self.time, "time", -MAX_SECONDS, MAX_SECONDS)
        check_number(self.x, "x", -1, 1)
        check_number(self.y, "y", -1, 1)


@dataclass(frozen=True)
class KeyTrack:
    """The keys of one keypoint, in the order of their times; at least one.

    keypoint: its index, from 0. interpolation: one of `jokr_rt.keypoints.METHODS`, of the offset from the found motion
    between keys. fade: seconds within which the offset comes before the first key, and goes after the last.
    """

    keypoint: int
    keys: tuple[Key, ...]
    interpolation: str = "cubic"
    fade: float = 0.5

    def __post_init__(self) -> None:
        check_whole(self.keypoint, "keypoint", 0, MAX_KEYPOINTS - 1)
        if self.interpolation not in METHODS:
            raise UsageError(f"interpolation must be {', '.join(METHODS)}, not {shown(self.interpolation)}")
        check_number(self.fade, "fade", 0, MAX_FADE)
        if not 1 <= len(self.keys) <= MAX_KEYS:
            raise UsageError(f"keys must be 1 to {MAX_KEYS}, not {len(self.keys)}")
        for before, key in zip(self.keys, self.keys[1:], strict=False):
            if key.time - before.time < _APART:
                raise UsageError(
                    f"keys must be in the order of their times, but {key.time} s comes after {before.time} s"
                )


@dataclass(frozen=True)
class Edits:
    """The document. `Edits()` changes nothing.

    smooth: cutoff of the One-Euro filter at rest, Hz; 0 for none. exaggerate: factor on the distance from the mean.
    mirror: to the other side of the mean. speed: 0.5 takes twice the time. keypoints: by keypoint, in their order.
    Raises UsageError.
    """

    smooth: float = 0.0
    exaggerate: float = 1.0
    mirror: bool = False
    speed: float = 1.0
    keypoints: tuple[KeyTrack, ...] = ()

    def __post_init__(self) -> None:
        check_number(self.smooth, "smooth", 0, MAX_SMOOTH)
        check_number(self.exaggerate, "exaggerate", 0, MAX_EXAGGERATE)
        check_number(self.speed, "speed", *SPEEDS)
        if not isinstance(self.mirror, bool):
            raise UsageError(f"mirror must be true or false, not {shown(self.mirror)}")
        indices = [track.keypoint for track in self.keypoints]
        if sorted(set(indices)) != indices:
            raise UsageError(f"keypoints must be in order and each there once, not {shown(indices)}")

    def with_key(self, keypoint: int, key: Key) -> "Edits":
        """The same with a keypoint at a place at a time; a key that it has at that time is replaced."""
        track = self._track(keypoint)
        others = [other for other in (track.keys if track else ()) if abs(other.time - key.time) >= _APART]
        keys = tuple(sorted([*others, key], key=lambda one: one.time))
        return self._with_track(keypoint, replace(track, keys=keys) if track else KeyTrack(keypoint, keys))

    def without_key(self, keypoint: int, time: float) -> "Edits":
        """The same without the key of a keypoint at a time. Raises UsageError where there is none."""
        track = self._track(keypoint)
        keys = tuple(key for key in (track.keys if track else ()) if abs(key.time - time) >= _APART)
        if track is None or keys == track.keys:
            raise UsageError(f"keypoint {keypoint} has no key at {time} s")
        return self._with_track(keypoint, replace(track, keys=keys) if keys else None)

    def _track(self, keypoint: int) -> KeyTrack | None:
        return next((track for track in self.keypoints if track.keypoint == keypoint), None)

    def _with_track(self, keypoint: int, track: KeyTrack | None) -> "Edits":
        tracks = [other for other in self.keypoints if other.keypoint != keypoint] + ([track] if track else [])
        return replace(self, keypoints=tuple(sorted(tracks, key=lambda one: one.keypoint)))


@dataclass(frozen=True)
class History:
    """Edits that can be undone. Each step is a new history; documents are shared, and small."""

    present: Edits = Edits()
    past: tuple[Edits, ...] = ()
    future: tuple[Edits, ...] = ()

    def do(self, edits: Edits) -> "History":
        """Go on with other edits. What was undone is forgotten; the same edits again are no step."""
        return self if edits == self.present else History(edits, (*self.past, self.present))

    def undo(self) -> "History":
        """One step back; at the first, the same history."""
        return History(self.past[-1], self.past[:-1], (self.present, *self.future)) if self.past else self

    def redo(self) -> "History":
        """One step forth again; at the last, the same history."""
        return History(self.future[0], (*self.past, self.present), self.future[1:]) if self.future else self


def check_keypoints(edits: Edits, count: int) -> None:
    """Raises UsageError where edits move a keypoint that is not among the first `count`."""
    if edits.keypoints and (last := edits.keypoints[-1].keypoint) >= count:
        raise UsageError(f"the edits move keypoint {last}, and there are {count}, from 0")


def apply(edits: Edits, times: ArrayLike, track: Track) -> tuple[Doubles, Track]:
    """Times (N,) and track (N, K, 2) of the edited motion, for the found one's times (T,) in seconds and (T, K, 2).

    In the module's order; N is T unless time is scaled; the dtype is the track's. Raises UsageError for edits of a
    keypoint that the track has not, and for times and tracks that cannot be meant.
    """
    seconds = np.asarray(times, np.float64)
    poses = interpolate(seconds, track, seconds, "hold").astype(np.float64)  # checked
    if edits == Edits():
        return seconds, track
    check_keypoints(edits, poses.shape[1])
    if edits.smooth:
        poses = np.asarray(smooth(seconds, poses, edits.smooth))
    if edits.exaggerate != 1 or edits.mirror:
        poses = exaggerate(poses, edits.exaggerate, edits.mirror)
    for keyed in edits.keypoints:
        places = np.array([[(key.x, key.y)] for key in keyed.keys], np.float64)
        path = slice(keyed.keypoint, keyed.keypoint + 1)
        key_times = [key.time for key in keyed.keys]
        poses[:, path] = displace(seconds, poses[:, path], key_times, places, keyed.interpolation, keyed.fade)
    poses = poses.clip(-1, 1)
    if edits.speed != 1:
        moments, shown_at = retime(seconds, edits.speed)
        poses, seconds = interpolate(seconds, poses, moments).clip(-1, 1), shown_at
    return seconds, poses.astype(track.dtype)


def parse_edits(text: str | bytes) -> Edits:
    """Read what `format_edits` wrote; keys that are left out have their defaults. Raises UsageError, in one line."""
    values = parse_document(text, KIND, VERSION, MAX_BYTES)
    check_keys(values, "the document", [KIND], [field.name for field in fields(Edits)])
    tracks = check_list(values.get("keypoints", []), "keypoints", MAX_KEYPOINTS)
    plain = {name: value for name, value in values.items() if name not in (KIND, "keypoints")}
    return Edits(**plain, keypoints=tuple(_parse_track(entry, index) for index, entry in enumerate(tracks)))


def _parse_track(entry: object, index: int) -> KeyTrack:
    where = f"keypoints[{index}]"
    values = check_keys(entry, where, ["keypoint", "keys"], ["interpolation", "fade"])
    keys = check_list(values["keys"], f"{where}.keys", MAX_KEYS)
    try:
        return KeyTrack(**(values | {"keys": tuple(_parse_key(key, number) for number, key in enumerate(keys))}))
    except UsageError as error:
        raise UsageError(f"{where}: {error}") from None


def _parse_key(entry: object, index: int) -> Key:
    where = f"keys[{index}]"
    values = check_keys(entry, where, [field.name for field in fields(Key)])
    try:
        return Key(**values)
    except UsageError as error:
        raise UsageError(f"{where}: {error}") from None


def format_edits(edits: Edits) -> str:
    """JSON, as JavaScript's `JSON.stringify(edits, null, 2)` lays it out, and a line's end. Every number is exact."""
    return json.dumps({KIND: VERSION} | _shortened(asdict(edits)), indent=2, allow_nan=False) + "\n"


def _shortened(values: Any) -> Any:
    if isinstance(values, dict):
        return {name: _shortened(value) for name, value in values.items()}
    if isinstance(values, (list, tuple)):
        return [_shortened(value) for value in values]
    return short_number(values) if isinstance(values, float) else values


def read_edits(path: str | Path) -> Edits:
    """`parse_edits` of a file. Raises InputError, which names it."""
    try:
        return parse_edits(read_text(path, MAX_BYTES))
    except UsageError as error:
        raise InputError(f"{path}: {error}") from None


def write_edits(path: str | Path, edits: Edits, overwrite: bool = False) -> None:
    """`format_edits` into a file, which is there only once it is whole. Raises OutputError."""
    write_text(path, format_edits(edits), overwrite)
