"""Keypoints (K, 2) as (x, y) in [-1, 1], cell centres as `align_corners=False` has them. Pure numpy.

A track (T, K, 2) is a pose for each of T times in seconds, which increase and need not be evenly apart. What a person
does to one, as a document, is in `jokr_rt.edits`.
"""

import colorsys
import math
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from jokr_rt.errors import UsageError

Track = NDArray[np.floating[Any]]
Doubles = NDArray[np.float64]

MIN_CUTOFF, BETA, D_CUTOFF = 3.0, 4.0, 1.0
"""Of `OneEuroFilter`, chosen on the puppets: calmer keypoints and frames, and drawn no worse for the lag."""

METHODS = ("linear", "cubic", "hold")
"""Of `interpolate`."""


class OneEuroFilter:
    """Causal smoothing of one stream's keypoints: little jitter where they rest, little lag where they move.

    A call takes the pose (K, 2) at a time in seconds, later than the call before, and returns the smoothed pose, of
    the same shape and dtype and within the range of the poses so far; the first one unchanged. For each coordinate x,
    T seconds after the last, with its smoothed value s and speed v:

        v += alpha(d_cutoff) * ((x - last x) / T - v)
        s += alpha(min_cutoff + beta * |v|) * (x - s)        alpha(f) = 1 - exp(-2 pi f T)

    min_cutoff: cutoff frequency at rest, Hz; lower is smoother and lags more. beta: how fast the cutoff rises with
    speed, Hz for each half-width of the frame per second. d_cutoff: cutoff for the speed, Hz.

    Source: Casiez, Roussel, Vogel, "1 Euro Filter", CHI 2012, with the speed between raw values as in the authors'
    code. Their alpha, 1 / (1 + 1 / (2 pi f T)), approximates the one above for many frames per 1/f, which a video
    does not have; so a cutoff here means the same at any frame rate.

    Raises UsageError for parameters, times and poses that cannot be meant.
    """

    def __init__(self, min_cutoff: float = MIN_CUTOFF, beta: float = BETA, d_cutoff: float = D_CUTOFF) -> None:
        for name, cutoff in (("min_cutoff", min_cutoff), ("d_cutoff", d_cutoff)):
            if not 0 < cutoff < math.inf:
                raise UsageError(f"{name} must be a frequency above 0 Hz, not {cutoff}")
        if not 0 <= beta < math.inf:
            raise UsageError(f"beta must be 0 or more, not {beta}")
        self.min_cutoff, self.beta, self.d_cutoff = min_cutoff, beta, d_cutoff
        self._last: tuple[float, Doubles, Doubles, Doubles] | None = None

    def __call__(self, keypoints: Track, seconds: float) -> Track:
        """The smoothed pose (K, 2) at a time."""
        pose = _finite(keypoints, ndim=2)
        if self._last is None:
            _check_times([seconds])
            smoothed, speed = pose, np.zeros_like(pose)
        else:
            last_seconds, last_pose, smoothed, speed = self._last
            if pose.shape != last_pose.shape:
                raise UsageError(f"the pose at {seconds:g} s has shape {pose.shape}, the last one {last_pose.shape}")
            (elapsed,) = np.diff(_check_times([last_seconds, seconds]))
            speed = speed + _alpha(self.d_cutoff, elapsed) * ((pose - last_pose) / elapsed - speed)
            smoothed = smoothed + _alpha(self.min_cutoff + self.beta * np.abs(speed), elapsed) * (pose - smoothed)
        self._last = seconds, pose, smoothed, speed
        return smoothed.astype(keypoints.dtype)


def smooth(
    times: ArrayLike, track: Track, min_cutoff: float = MIN_CUTOFF, beta: float = BETA, d_cutoff: float = D_CUTOFF
) -> Track:
    """A whole track (T, K, 2), with its times (T,) in seconds, through a `OneEuroFilter`: same shape and dtype."""
    seconds, _ = _check_track(times, track)
    one_euro = OneEuroFilter(min_cutoff, beta, d_cutoff)
    return np.stack([one_euro(pose, second) for pose, second in zip(track, seconds, strict=True)])


def interpolate(times: ArrayLike, track: Track, at: ArrayLike, method: str = "cubic") -> Track:
    """Doubles (N, K, 2) between those of a track (T, K, 2), at other times (N,), in seconds and in any order.

    At the track's own times (T,) they are its own poses; before the first and after the last, that pose is held.

    method: "hold" keeps each pose until the next. "linear" goes straight from pose to pose. "cubic" goes through them
    without a kink, on cubic Hermite curves whose slope at a pose is that of the parabola through it and its neighbours
    (Catmull-Rom's, where times are evenly apart), so that it is exact for constant acceleration; it can swing out
    beyond the poses between two of them. One pose interpolates to itself.

    Source: Catmull, Rom, "A class of local interpolating splines", 1974.

    Raises UsageError for an unknown method, and for times and tracks that cannot be meant.
    """
    if method not in METHODS:
        raise UsageError(f"unknown interpolation {method!r}; choose {', '.join(METHODS[:-1])} or {METHODS[-1]}")
    seconds, poses = _check_track(times, track)
    wanted = _finite(at, ndim=1).clip(seconds[0], seconds[-1])
    if len(poses) == 1:
        return np.repeat(track, len(wanted), axis=0)
    last = np.searchsorted(seconds, wanted, side="right") - 1
    if method == "hold":
        return np.asarray(track[last])
    before = last.clip(0, len(seconds) - 2)
    after = before + 1
    step = (seconds[after] - seconds[before])[:, None, None]
    u = (wanted - seconds[before])[:, None, None] / step
    if method == "linear":
        found = (1 - u) * poses[before] + u * poses[after]
    else:
        slopes = np.gradient(poses, seconds, axis=0, edge_order=2 if len(poses) > 2 else 1)
        found = (
            (1 + 2 * u) * (1 - u) ** 2 * poses[before]
            + u * (1 - u) ** 2 * step * slopes[before]
            + u**2 * (3 - 2 * u) * poses[after]
            - u**2 * (1 - u) * step * slopes[after]
        )
    return np.asarray(found, track.dtype)


def exaggerate(track: Track, factor: float, mirror: bool = False) -> Doubles:
    """A track (T, K, 2) whose keypoints move `factor` times as far from where each is on average: 0 rests there.

    mirror: to the other side of it, left or right.
    """
    poses = _finite(track, ndim=3)
    mean = poses.mean(axis=0)
    return np.asarray(mean + (-factor if mirror else factor, factor) * (poses - mean))


def displace(
    times: ArrayLike, path: Track, key_times: ArrayLike, places: Track, method: str = "cubic", fade: float = 0.0
) -> Doubles:
    """The path (T, 1, 2) of a keypoint, moved so that it passes through places (N, 1, 2) at key times (N,), in seconds.

    What is interpolated between these, by a method of `interpolate`, is how far each is from the path, so that the
    movement between them lives on. Before the first and after the last that distance goes to 0 within `fade` seconds,
    without a kink; beyond them the path is left as it is, to the bit. A key time need not be one of the times (T,).

    Raises UsageError for times and tracks that cannot be meant.
    """
    seconds, found = _check_track(times, path)
    keys, wanted = _check_track(key_times, places)
    offsets = interpolate(keys, wanted - interpolate(seconds, found, keys), seconds, method)
    beyond = np.maximum(keys[0] - seconds, seconds - keys[-1]).clip(0)
    nearness = (1 - beyond / fade).clip(0) if fade > 0 else (beyond == 0).astype(np.float64)
    weight = (nearness**2 * (3 - 2 * nearness))[:, None, None]
    moved = np.where(weight > 0, found + weight * offsets, found)
    at_key = np.isin(seconds, keys)
    moved[at_key] = wanted[np.searchsorted(keys, seconds[at_key])]  # not off by a rounding
    return np.asarray(moved)


def retime(times: ArrayLike, speed: float) -> tuple[Doubles, Doubles]:
    """Which moments of a movement at times (T,) to show, and when, for it to take 1 / speed of its time: both (N,).

    In seconds. The first and the last moment stay, the first at its time. There are about as many moments a second as
    there were, evenly apart from pose to pose of the old ones: of half the speed every other one is an old one.

    Raises UsageError for times that cannot be meant.
    """
    seconds = _check_times(times)
    steps = len(seconds) - 1
    count = max(1, round(steps / speed)) if steps else 0
    moments = np.interp(np.arange(count + 1) * steps / max(1, count), np.arange(steps + 1), seconds)
    return moments, seconds[0] + (moments - seconds[0]) / speed


def _alpha(cutoff: float | Doubles, elapsed: float) -> Doubles:
    return np.asarray(-np.expm1(-2 * np.pi * elapsed * cutoff))


def _check_track(times: ArrayLike, track: Track) -> tuple[Doubles, Doubles]:
    seconds, poses = _check_times(times), _finite(track, ndim=3)
    if len(seconds) != len(poses) or not len(poses):
        raise UsageError(f"a track needs one time for each pose, and at least one; not {len(seconds)} for {len(poses)}")
    return seconds, poses


def _check_times(times: ArrayLike) -> Doubles:
    seconds = _finite(times, ndim=1)
    late = np.flatnonzero(np.diff(seconds) <= 0)
    if len(late):
        first, second = seconds[late[0] : late[0] + 2]
        raise UsageError(f"times must increase, but {second} s comes after {first} s")
    return seconds


def _finite(values: ArrayLike, ndim: int) -> Doubles:
    """As float64. The errors name what has 1, 2 and 3 axes."""
    array = np.asarray(values)
    what = {1: "times (T,)", 2: "a pose (K, 2) of floats", 3: "a track (T, K, 2) of floats"}[ndim]
    if array.ndim != ndim or (ndim > 1 and (array.shape[-1] != 2 or array.dtype.kind != "f")):
        raise UsageError(f"expected {what}, not {array.dtype} {array.shape}")
    if not np.isfinite(array).all():
        raise UsageError(f"{what} must hold finite numbers only")
    return array.astype(np.float64)


def draw_keypoints(rgb: NDArray[np.uint8], keypoints: NDArray[np.float32]) -> NDArray[np.uint8]:
    """A copy of a picture (H, W, 3) with a coloured dot, edged in black, on each keypoint (K, 2).

    The k-th colour is always the same. What lies outside the picture is cut off; smooth edges.
    """
    canvas = rgb.astype(np.float32)
    height, width = rgb.shape[:2]
    radius = max(2.0, min(height, width) / 48)
    centres = (keypoints.astype(np.float64) + 1) * (width / 2, height / 2) - 0.5
    for (x, y), colour in zip(centres, keypoint_colours(len(keypoints)), strict=True):
        for reach, ink in ((radius + max(1.0, radius / 3), np.zeros(3)), (radius, colour.astype(float))):
            _blend_disc(canvas, x, y, reach, ink)
    return np.rint(canvas).astype(np.uint8)


@cache
def keypoint_colours(count: int) -> NDArray[np.uint8]:
    """(count, 3) uint8 RGB: hues evenly apart, every other one darker."""
    shades = [colorsys.hsv_to_rgb(index / count, 0.9, (1.0, 0.75)[index % 2]) for index in range(count)]
    return np.rint(np.array(shades) * 255).astype(np.uint8)


def _blend_disc(canvas: NDArray[np.float32], x: float, y: float, radius: float, ink: NDArray[np.floating]) -> None:
    """Paint a disc whose edge fades over one pixel, in place."""
    rows, columns = (slice(max(0, int(at - radius - 1)), max(0, int(at + radius + 3))) for at in (y, x))
    window = canvas[rows, columns]
    ys, xs = np.mgrid[rows, columns][:, : window.shape[0], : window.shape[1]]
    cover = np.clip(radius + 0.5 - np.hypot(xs - x, ys - y), 0, 1)[..., None]
    window += (cover * (ink - window)).astype(np.float32)
