"""From a captured frame to the picture that is shown: one stream's own state between the shared engine's calls."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np

from jokr_rt.clock import Clock
from jokr_rt.keypoints import OneEuroFilter, draw_keypoints
from jokr_rt.live.compose import Picture, over
from jokr_rt.live.inference import Inference
from jokr_rt.live.masks import Mask, StaticBackground, masked
from jokr_rt.live.model import Target
from jokr_rt.live.options import LiveOptions, colour_of
from jokr_rt.timing import Histogram
from jokr_rt.video import letterbox_box, open_video
from jokr_rt.video.resize import Resizer, fit_box


class Pictures:
    """Draws one stream's pictures. For one thread.

    targets: whom the creature becomes; the first one until `next_target`. keypoints_shown: whether a corner shows what
    the model sees, with the keypoints found in it. stages: seconds of "prepare" (size and mask),
    "extract", "draw" and "compose", the middle two with the wait for the engine.
    """

    def __init__(
        self, options: LiveOptions, targets: Sequence[Target], inference: Inference, mask: Mask | None, clock: Clock
    ) -> None:
        self.options = options
        self.keypoints_shown = options.keypoints
        self.target = targets[0]
        self.stages = {stage: Histogram() for stage in ("prepare", "extract", "draw", "compose")}
        self._targets, self._inference, self._mask, self._clock = targets, inference, mask, clock
        side = self.target.model.size
        self.width, self.height = options.size or (side, side)
        self._sources, self._alphas, self._images, self._behinds, self._insets = (Resizer() for _ in range(5))
        self._background = _background(options, self.width, self.height)
        self._pose: Picture | None = None  # as it was last drawn (size, size, 3)
        self._smoothing = _smoothing(options)
        self._familiar = self.target.familiarity()

    @property
    def doubt(self) -> str:
        """See `Familiarity`."""
        return "" if self._familiar is None else self._familiar.doubt

    def next_target(self) -> None:
        """Go on with the next of the targets."""
        self.target = self._targets[(self._targets.index(self.target) + 1) % len(self._targets)]
        self._pose, self._smoothing = None, _smoothing(self.options)
        self._familiar = self.target.familiarity()

    def relearn(self) -> None:
        """Learn a static background again; nothing where the mask is another one."""
        if isinstance(self._mask, StaticBackground):
            self._mask.relearn()

    def draw(self, rgb: Picture, alpha: Picture | None, seconds: float) -> tuple[Picture, bool]:
        """The picture (height, width, 3) for a frame (H, W, 3), and whether the creature was found in it.

        seconds: the frame's time, later than the last one's. Raises UsageError, EngineError.
        """
        with self._lap("prepare"):
            source = self._prepare(rgb, alpha, seconds)
        with self._lap("extract"):
            keypoints, confidence = self._inference(self.target.model.extract, source)
        if self._familiar is not None:
            self._familiar.see(keypoints, confidence, source)
        found = float(confidence.mean()) >= self.options.hold
        if found:
            if self._smoothing is not None:
                keypoints = self._smoothing(keypoints, seconds)
            with self._lap("draw"):
                self._pose = self._inference(self.target.draw, keypoints)
        with self._lap("compose"):
            picture = self._compose(rgb)
            if self.keypoints_shown:
                picture = self._with_inset(picture, draw_keypoints(source, keypoints) if found else source)
            return picture, found

    @contextmanager
    def _lap(self, stage: str) -> Iterator[None]:
        """Count the time that the block takes, unless it raises."""
        start = self._clock.now()
        yield
        self.stages[stage].add(self._clock.now() - start)

    def _prepare(self, rgb: Picture, alpha: Picture | None, seconds: float) -> Picture:
        size = self.target.model.size
        source = self._sources.fit(rgb, size, size)
        if self._mask is None:
            return source
        square = None if alpha is None else self._alphas.fit(alpha, size, size)
        return masked(self._mask, source, square, seconds)

    def _compose(self, rgb: Picture) -> Picture:
        """The pose, or nobody, before what is behind."""
        behind = self._behind(rgb)
        if self._pose is None:
            return behind
        return over(self._place(self._pose, rgb), behind, self.options.feather)

    def _with_inset(self, picture: Picture, square: Picture) -> Picture:
        """A copy with a square, a third as high, in its upper left corner."""
        side = min(picture.shape[:2]) // 3
        shown = picture.copy()
        shown[:side, :side] = self._insets.resize(square, side, side)
        return shown

    def _behind(self, rgb: Picture) -> Picture:
        if not self.options.paste:
            return self._background
        learned = self._mask.background if isinstance(self._mask, StaticBackground) else None
        if learned is None:
            return self._behinds.fit(rgb, self.width, self.height)
        return self._place(learned, rgb)

    def _place(self, square: Picture, rgb: Picture) -> Picture:
        """A model's square in the output; where the source is behind it, what lay on its picture lies there again."""
        if not self.options.paste:
            return self._images.fit(square, self.width, self.height)
        rows, columns = rgb.shape[:2]
        x, y, width, height = letterbox_box(columns, rows, len(square))
        left, top, wide, high = fit_box(columns, rows, self.width, self.height)
        canvas = np.zeros((self.height, self.width, 3), np.uint8)
        within = self._images.resize(square[y : y + height, x : x + width], wide, high)
        canvas[top : top + high, left : left + wide] = within
        return canvas


def _smoothing(options: LiveOptions) -> OneEuroFilter | None:
    return OneEuroFilter(options.smooth, options.smooth_beta, options.smooth_speed) if options.smooth else None


def _background(options: LiveOptions, width: int, height: int) -> Picture:
    colour = colour_of(options.background)
    if colour is not None:
        return np.full((height, width, 3), colour, np.uint8)
    with open_video(options.background) as pictures:
        return Resizer().cover(next(pictures).rgb, width, height)
