"""Motion on disk: the keypoints of each frame of a clip, or of a movement that somebody wrote by hand.

`tracks.json` has a header and a line for every frame, so that it can be read, compared and written by hand:

    {
      "jokr_tracks": 1,
      "domain": "cat",
      "size": 256,
      "keypoints": 10,
      "rate": "30",
      "time_base": "1/15360",
      "frames": [
        {"pts": 0, "pose": [[0.125, -0.5], ...], "confidence": [0.98, ...]},
        ...
      ]
    }

"domain" and "size" may be null, and "confidence" left out of all frames: a drawing needs neither.
"""

import json
import re
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from jokr_rt.documents import (
    check_keys,
    check_list,
    check_whole,
    parse_document,
    read_text,
    shown,
    write_text,
)
from jokr_rt.edits import MAX_KEYPOINTS, Edits, apply
from jokr_rt.errors import InputError, UsageError
from jokr_rt.keypoints import Doubles

KIND, VERSION = "jokr_tracks", 1
MAX_BYTES = 256 << 20
MAX_POINTS = 4_000_000
"""Poses times keypoints of one motion: hours of video, and what `MAX_BYTES` hold."""

_HEADER = (KIND, "domain", "size", "keypoints", "rate", "time_base", "frames")
_MAX_INT = 2**31 - 1  # of a fraction's terms: FFmpeg's have 32 bits
_MAX_PTS = 2**53
EDITED_TIME_BASE = Fraction(1, 90000)
"""Of motion whose time was scaled; a frame of every usual rate is a whole number of these ticks."""


@dataclass(frozen=True)
class Tracks:
    """A motion. T frames of K keypoints.

    pts: (T,) int64, presentation times in ticks of `time_base`, which increase. time_base: seconds per tick. rate:
    nominal frames per second. keypoints: (T, K, 2) float32 (x, y) in [-1, 1]. confidence: (T, K) float32 in [0, 1], or
    None for poses that were not found in frames. domain: a bundle's name of the creature that moves; size: side of the
    frames it was found in, pixels; None where there were none. The arrays must not be changed. Raises UsageError.
    """

    pts: NDArray[np.int64]
    time_base: Fraction
    rate: Fraction
    keypoints: NDArray[np.float32]
    confidence: NDArray[np.float32] | None = None
    domain: str | None = None
    size: int | None = None

    def __post_init__(self) -> None:
        count = len(self.keypoints)
        if self.keypoints.dtype != np.float32 or self.keypoints.ndim != 3 or self.keypoints.shape[2] != 2 or not count:
            raise UsageError(f"keypoints must be float32 (T, K, 2), not {_described(self.keypoints)}")
        if not 1 <= self.keypoints.shape[1] <= MAX_KEYPOINTS or self.keypoints[..., 0].size > MAX_POINTS:
            raise UsageError(f"{_described(self.keypoints)} keypoints: {MAX_KEYPOINTS} a pose, {MAX_POINTS} in all")
        if self.pts.dtype != np.int64 or self.pts.shape != (count,):
            raise UsageError(f"pts must be int64 ({count},), not {_described(self.pts)}")
        late = np.flatnonzero(np.diff(self.pts) <= 0)
        if len(late):
            raise UsageError(f"frame {late[0] + 1} (from 0) is not later than the one before it")
        if not (np.abs(self.keypoints) <= 1).all():  # false for NaN
            frame = int(np.flatnonzero(~(np.abs(self.keypoints) <= 1).all((1, 2)))[0])
            raise UsageError(f"frame {frame} (from 0) has a keypoint outside of -1 to 1")
        if self.confidence is not None:
            if self.confidence.dtype != np.float32 or self.confidence.shape != self.keypoints.shape[:2]:
                raise UsageError(f"confidence must be float32 (T, K), not {_described(self.confidence)}")
            if not ((self.confidence >= 0) & (self.confidence <= 1)).all():
                raise UsageError("confidence must be from 0 to 1")

    def __len__(self) -> int:
        return len(self.keypoints)

    @property
    def times(self) -> Doubles:
        """(T,) seconds, as `Frame.pts_seconds` has them."""
        return np.array([float(int(pts) * self.time_base) for pts in self.pts])


def edit_tracks(edits: Edits, tracks: Tracks) -> Tracks:
    """The edited motion; see `jokr_rt.edits.apply`. Its times are the same, to the tick, unless `edits` scale them.

    Its confidence is None where it has other frames. Raises UsageError.
    """
    times, keypoints = apply(edits, tracks.times, tracks.keypoints)
    if edits.speed == 1:
        return replace(tracks, keypoints=np.asarray(keypoints, np.float32))
    ticks = np.rint(times / float(EDITED_TIME_BASE)).astype(np.int64)
    order = np.arange(len(ticks))
    return replace(
        tracks,
        keypoints=np.asarray(keypoints, np.float32),
        pts=np.maximum.accumulate(ticks - order) + order,  # no two at once, however close they were
        time_base=EDITED_TIME_BASE,
        confidence=None,
    )


def parse_tracks(text: str | bytes, max_bytes: int = MAX_BYTES) -> Tracks:
    """Read what `format_tracks` wrote, or a person. Raises UsageError, in one line."""
    values = check_keys(parse_document(text, KIND, VERSION, max_bytes), "the document", _HEADER)
    domain, size = values["domain"], values["size"]
    if domain is not None and (not isinstance(domain, str) or not 1 <= len(domain) <= 200):
        raise UsageError(f"domain must be a name or null, not {shown(domain)}")
    count = check_whole(values["keypoints"], "keypoints", 1, MAX_KEYPOINTS)
    frames = check_list(values["frames"], "frames", MAX_POINTS // count)
    if not frames:
        raise UsageError("frames must be one at least")
    with_confidence = isinstance(frames[0], dict) and "confidence" in frames[0]
    for index, frame in enumerate(frames):
        _check_frame(frame, f"frames[{index}]", count, with_confidence)
    return Tracks(
        pts=np.array([frame["pts"] for frame in frames], np.int64),
        time_base=_parse_fraction(values["time_base"], "time_base"),
        rate=_parse_fraction(values["rate"], "rate"),
        keypoints=np.array([frame["pose"] for frame in frames], np.float64).astype(np.float32),
        confidence=np.array([frame["confidence"] for frame in frames], np.float32) if with_confidence else None,
        domain=domain,
        size=None if size is None else check_whole(size, "size", 16, 4096),
    )


def _check_frame(frame: object, where: str, count: int, with_confidence: bool) -> None:
    values = check_keys(frame, where, ["pts", "pose", *(["confidence"] if with_confidence else [])])
    check_whole(values["pts"], f"{where}.pts", -_MAX_PTS, _MAX_PTS)
    pose, confidence = values["pose"], values.get("confidence", [0] * count)
    is_pose = isinstance(pose, list) and len(pose) == count
    if not is_pose or not all(isinstance(pair, list) and len(pair) == 2 and _are_within(pair, -1) for pair in pose):
        raise UsageError(f"{where}.pose must be {count} pairs [x, y] of numbers from -1 to 1")
    if not isinstance(confidence, list) or len(confidence) != count or not _are_within(confidence, 0):
        raise UsageError(f"{where}.confidence must be {count} numbers from 0 to 1")


def _are_within(numbers: list[Any], low: int) -> bool:
    return all(type(number) in (int, float) and low <= number <= 1 for number in numbers)


def _parse_fraction(value: object, where: str) -> Fraction:
    """Of a string such as "30000/1001". (`Fraction` alone would spend minutes on "1e9999999".)"""
    terms = re.fullmatch(r"([0-9]{1,10})(?:/([0-9]{1,10}))?", value) if isinstance(value, str) else None
    numbers = [int(term) for term in terms.groups("1")] if terms else [0]
    if not all(1 <= number <= _MAX_INT for number in numbers):
        raise UsageError(f'{where} must be a fraction above 0, such as "30000/1001", not {shown(value)}')
    return Fraction(*numbers)


def format_tracks(tracks: Tracks) -> str:
    """JSON, a line for each frame. Numbers are as short as they can be for the same float32 to be read."""
    header = {
        KIND: VERSION,
        "domain": tracks.domain,
        "size": tracks.size,
        "keypoints": tracks.keypoints.shape[1],
        "rate": str(tracks.rate),
        "time_base": str(tracks.time_base),
    }
    poses, pts = _shortest(tracks.keypoints).tolist(), tracks.pts.tolist()
    rows = [{"pts": tick, "pose": pose} for tick, pose in zip(pts, poses, strict=True)]
    if tracks.confidence is not None:
        for row, confidence in zip(rows, _shortest(tracks.confidence).tolist(), strict=True):
            row["confidence"] = confidence
    start = json.dumps(header, indent=2).removesuffix("\n}")
    lines = ",\n".join(f"    {json.dumps(row, allow_nan=False)}" for row in rows)
    return f'{start},\n  "frames": [\n{lines}\n  ]\n}}\n'


def _shortest(values: NDArray[np.float32]) -> NDArray[np.float64]:
    """Doubles with the fewest digits from which the same floats are rounded."""
    short = values.astype(np.str_).astype(np.float64)
    return np.where(short.astype(np.float32) == values, short, values.astype(np.float64))


def read_tracks(path: str | Path) -> Tracks:
    """`parse_tracks` of a file. Raises InputError, which names it."""
    try:
        return parse_tracks(read_text(path, MAX_BYTES))
    except UsageError as error:
        raise InputError(f"{path}: {error}") from None


def write_tracks(path: str | Path, tracks: Tracks, overwrite: bool = False) -> None:
    """`format_tracks` into a file, which is there only once it is whole. Raises OutputError."""
    write_text(path, format_tracks(tracks), overwrite)


def _described(array: NDArray[Any]) -> str:
    return f"{array.dtype} {array.shape}"
