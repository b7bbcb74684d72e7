"""Where the creature is in a live picture: what the method needs before busy backgrounds.

A mask is called with each frame, as the extractor will see it, and returns its opacity (size, size) from 0 to 1.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from jokr_rt.errors import UsageError
from jokr_rt.live.compose import Matte, Picture, blur

MaskInput = tuple[Picture, NDArray[np.uint8] | None, float]
"""The frame (size, size, 3), its own alpha (size, size) or None, and its time in seconds."""

NAMES = ("none", "static-background", "alpha")


class StaticBackground:
    """Where a picture differs from a background that was learned from a camera that stands still.

    For the first `learn_s` seconds it collects: the median of every pixel is the background, so that a creature may
    walk through, if it does not rest; until then nothing is taken for creature (opacity 0). Later the background
    follows slow changes of light, over `ADAPT_S`, where it is seen, and the camera's exposure at once.

    A pixel belongs to the creature where, averaged over a small square, its colour is further from the background than
    `THRESHOLD` times the camera's noise there; the opacity rises from 0 to 1 between that and twice that.
    """

    LEARN_S, ADAPT_S = 2.0, 60.0
    THRESHOLD = 4.0
    _SAMPLES = 24
    _LEAST_NOISE = 4.0  # levels: compression and flicker that the collection did not see

    def __init__(self, learn_s: float = LEARN_S) -> None:
        self.learn_s = learn_s
        self.relearn()

    def relearn(self) -> None:
        """Forget the background, and begin again with the next frame."""
        self._samples: list[Picture] = []
        self._began: float | None = None
        self._last = 0.0
        self._background: NDArray[np.float32] | None = None
        self._noise = np.zeros(0, np.float32)

    @property
    def background(self) -> Picture | None:
        """What is behind the creature (size, size, 3), once it is known."""
        return None if self._background is None else np.rint(self._background).astype(np.uint8)

    def __call__(self, rgb: Picture, alpha: NDArray[np.uint8] | None, seconds: float) -> Matte:
        if self._background is None or self._background.shape != rgb.shape:
            self._learn(rgb, seconds)
            return np.zeros(rgb.shape[:2], np.float32)
        frame = rgb.astype(np.float32)
        frame *= self._exposure(frame)
        difference = np.abs(frame - self._background).max(axis=2) / self._noise
        matte: Matte = np.clip(blur(difference, max(1, len(rgb) // 128)) / self.THRESHOLD - 1, 0, 1)
        self._adapt(frame, matte, seconds)
        return matte

    def _learn(self, rgb: Picture, seconds: float) -> None:
        if self._began is None or (self._samples and self._samples[0].shape != rgb.shape):
            self.relearn()
            self._began = seconds
        began = self._began or 0.0
        if seconds - began >= len(self._samples) * self.learn_s / self._SAMPLES:
            self._samples.append(rgb)
        if seconds - began < self.learn_s:
            return
        samples = np.stack(self._samples).astype(np.int16)
        background = _median(samples)
        deviation = _median(np.abs(samples - background))  # robust, as the median is: 1.48 times it is sigma
        self._background = background.astype(np.float32)
        self._noise = np.maximum(1.48 * deviation.max(axis=2), self._LEAST_NOISE).astype(np.float32)
        self._samples, self._last = [], seconds

    def _exposure(self, frame: NDArray[np.float32]) -> float:
        """What the frame's levels are to be multiplied with to be the background's: the median of some pixels."""
        assert self._background is not None
        step = max(1, len(frame) // 64)
        here, there = (picture[::step, ::step].sum(axis=2) for picture in (frame, self._background))
        bright = (here > 60) & (there > 60) & (here < 700)
        return float(np.clip(np.median(there[bright] / here[bright]), 0.5, 2)) if bright.mean() > 0.1 else 1.0

    def _adapt(self, frame: NDArray[np.float32], matte: Matte, seconds: float) -> None:
        assert self._background is not None
        rate = min(1.0, max(0.0, seconds - self._last) / self.ADAPT_S)
        self._background += ((1 - matte) * rate)[..., None] * (frame - self._background)
        self._last = seconds


def _median(samples: NDArray[np.int16]) -> NDArray[np.int16]:
    """Over the first axis; of an even number the upper one, in a tenth of the time that numpy's own takes."""
    middle = len(samples) // 2
    return np.partition(samples, middle, axis=0)[middle]


class SourceAlpha:
    """The source's own alpha channel."""

    def __call__(self, rgb: Picture, alpha: NDArray[np.uint8] | None, seconds: float) -> Matte:
        if alpha is None:
            raise UsageError("--mask alpha: the source has no alpha channel; choose another mask")
        return np.divide(alpha, 255, dtype=np.float32)


Mask = Callable[[Picture, NDArray[np.uint8] | None, float], Matte]


def masked(mask: Mask, rgb: Picture, alpha: NDArray[np.uint8] | None, seconds: float) -> Picture:
    """What the extractor is to see of a frame (size, size, 3): black where its mask takes nothing for creature."""
    matte = mask(rgb, alpha, seconds)
    return np.rint(rgb * matte[..., None]).astype(np.uint8)


def check_mask(name: str) -> None:
    """Raises UsageError for what is neither one of `NAMES` nor an .onnx file."""
    if name not in NAMES and not (name.endswith(".onnx") and Path(name).is_file()):
        what = "no such file" if name.endswith(".onnx") else "unknown"
        raise UsageError(f"mask {name}: {what}; choose {', '.join(NAMES)}, or a segmentation model's .onnx file")


def open_mask(name: str, learn_s: float = StaticBackground.LEARN_S) -> Mask | None:
    """A mask of one stream by its name, None for "none". Raises UsageError, BundleError, EngineError."""
    check_mask(name)
    if name == "none":
        return None
    if name == "static-background":
        return StaticBackground(learn_s)
    if name == "alpha":
        return SourceAlpha()
    from jokr_rt.live.segmentation import SegmentationModel

    return SegmentationModel(Path(name))
