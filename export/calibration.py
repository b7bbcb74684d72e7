"""Frames that quantisation looks at, and others, held out, that it is measured on."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from jokr_rt.bundle import DIRECTIONS, Arrays, Bundle
from jokr_rt.engines import Engine
from jokr_rt.errors import InputError, UsageError
from jokr_rt.video import open_video

Frames = NDArray[np.uint8]

FRAMES = 32  # of a clip, at most, spread over it
MIN_FRAMES = 16
HOLD_OUT_EVERY = 4


@dataclass(frozen=True)
class Calibration:
    """words: where from. seen, held_out: frames (T, size, size, 3) of "a" and "b"."""

    words: str
    seen: dict[str, Frames]
    held_out: dict[str, Frames]


def from_clips(clips: Sequence[str | Path], size: int) -> Calibration:
    """Of a clip of A and one of B, letterboxed. Raises UsageError, and InputError for one that is too short."""
    if len(clips) != 2:
        raise UsageError(f"a calibration takes two clips, one of A and one of B, not {len(clips)}")
    frames = {domain: _spread(Path(clip), size) for domain, clip in zip("ab", clips, strict=True)}
    # Names alone: a bundle is passed on, and where its clips lay is nobody's business.
    return _split(" and ".join(Path(clip).name for clip in clips), frames)


def from_references(references: dict[str, Frames]) -> Calibration:
    """Of a checkpoint's own frames; the first and last, which travel with the bundle, measure it anyway."""
    frames = {domain: stored[1:-1] if len(stored) > 2 else stored for domain, stored in references.items()}
    return _split("the checkpoint's reference frames", frames)


def feeds(engine: Engine, bundle: Bundle, seen: dict[str, Frames]) -> dict[str, list[Arrays]]:
    """What the extractor and the generator are given where these frames are retargeted both ways."""
    found: dict[str, list[Arrays]] = {"extractor": [], "generator": []}
    for direction, (source, target) in DIRECTIONS.items():
        looks = bundle.appearance(target)
        for frame in seen[source]:
            found["extractor"].append({"frame": frame[None]})
            keypoints = engine.run("extractor", {"frame": frame[None]})["keypoints"]
            warped = engine.run(f"stn-{direction}", {"keypoints": keypoints})["warped"]
            found["generator"].append({"warped": warped, "appearance": looks})
    return found


def _split(words: str, frames: dict[str, Frames]) -> Calibration:
    seen, held_out = {}, {}
    for domain, all_frames in frames.items():
        is_held_out = np.arange(len(all_frames)) % HOLD_OUT_EVERY == HOLD_OUT_EVERY // 2
        seen[domain], held_out[domain] = all_frames[~is_held_out], all_frames[is_held_out]
    return Calibration(words, seen, held_out)


def _spread(clip: Path, size: int) -> Frames:
    """Up to FRAMES frames, evenly apart, whatever the clip's length, which need not be known."""
    kept: list[Frames] = []
    step = 1
    with open_video(clip, size=size) as video:
        for index, frame in enumerate(video):
            if index % step == 0:
                kept.append(frame.rgb)
            if len(kept) > FRAMES:
                kept, step = kept[::2], 2 * step
    if len(kept) < MIN_FRAMES:
        raise InputError(f"{clip}: {len(kept)} frames; a calibration needs at least {MIN_FRAMES}")
    return np.stack(kept)
