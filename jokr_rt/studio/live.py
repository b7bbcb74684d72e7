"""A camera's frames, one by one, as they come from a visitor's browser."""

import time
from typing import Any

import numpy as np
from numpy.typing import NDArray

from jokr_rt.errors import UsageError
from jokr_rt.familiar import Familiarity, familiarity
from jokr_rt.keypoints import OneEuroFilter
from jokr_rt.live.masks import StaticBackground, masked
from jokr_rt.retarget import find_direction
from jokr_rt.studio.looks import Looks
from jokr_rt.studio.messages import Message
from jokr_rt.studio.worker import Stopwatch, Worker
from jokr_rt.video import jpeg, read_jpeg


class LiveStream:
    """One visitor's stream: its smoothing and its background are nobody else's."""

    def __init__(self, worker: Worker, looks: Looks, max_pixels: int) -> None:
        self._worker = worker
        self._looks = looks
        self._max_pixels = max_pixels
        self._smoothing: OneEuroFilter | None = None
        self._mask: StaticBackground | None = None
        self._familiar: tuple[str, Familiarity | None] = "", None  # of a direction
        self._learning = 0.0  # the header's "background" that the mask is for
        self._start = time.monotonic()

    async def answer(self, message: Message) -> Message:
        """For a frame (JPEG): the drawn one, its keypoints and confidence, and how long each stage took.

        The header's fields: "seq", repeated in the answer; "direction"; "smooth", a cutoff in Hz or null; "background",
        null, or a number while a static background is masked: with another number than before it is learnt anew;
        "heatmaps", whether these are wanted. The answer's "names" are those of its pictures: "output"; "seen", what the
        extractor was shown, where there is a mask; "heatmaps". "doubt" is that of `jokr_rt.familiar`. "mask" says in
        words which there is; while it is "learning", there are no pictures, and where nobody is before it, there is no
        output.
        Raises UsageError, InputError, EngineError.
        """
        return await self._worker.call(self._answer, message, Stopwatch())

    def _answer(self, message: Message, watch: Stopwatch) -> Message:
        watch.begin()
        if len(message.parts) != 1:
            raise UsageError("a camera's frame is one picture")
        model = self._worker.model
        direction = find_direction(str(message.header.get("direction")), model.domains)
        retargeter = self._looks.retargeter(direction)
        seconds = time.monotonic() - self._start
        with watch.measure("decode"):
            rgb = read_jpeg(message.parts[0], model.config.size, self._max_pixels)
        told: dict[str, Any] = {"seq": message.header.get("seq"), "ms": watch.ms, "mask": "none", "names": []}
        if (mask := self._choose_mask(message)) is not None:
            is_learning = mask.background is None
            with watch.measure("masking"):
                rgb = masked(mask, rgb, None, seconds)
            if is_learning:
                return Message("live", told | {"mask": "learning"})
            told["mask"] = "learnt background"
            if not rgb.any():  # nobody: in black, too, the model would find keypoints, and draw them
                return Message("live", told | {"names": ["seen"]}, (jpeg(rgb),))
        with watch.measure("extract"):
            keypoints, confidence = retargeter.extract(rgb)
        if self._familiar[0] != direction:
            self._familiar = direction, familiarity(self._worker.model, direction)
        if (familiar := self._familiar[1]) is not None:
            familiar.see(keypoints, confidence, rgb)
            told["doubt"] = familiar.doubt
        keypoints = self._smooth(message, keypoints, seconds)
        with watch.measure("draw"):
            pictures = {"output": retargeter.draw(keypoints)}
        if mask is not None:
            pictures["seen"] = rgb
        if message.header.get("heatmaps") is True:
            pictures["heatmaps"] = self._worker.heatmaps(direction, keypoints)
        with watch.measure("encode"):
            parts = tuple(jpeg(picture) for picture in pictures.values())
        found = {
            "names": list(pictures),
            "keypoints": keypoints.astype(float).round(6).tolist(),
            "confidence": confidence.astype(float).round(4).tolist(),
        }
        return Message("live", told | found, parts)

    def _choose_mask(self, message: Message) -> StaticBackground | None:
        if message.header.get("background") is None:
            self._mask = None
            return None
        wanted = message.number("background", 0, 1e9)
        if self._mask is None or wanted != self._learning:
            self._mask, self._learning = StaticBackground(), wanted
        return self._mask

    def _smooth(self, message: Message, keypoints: NDArray[np.float32], seconds: float) -> NDArray[np.float32]:
        if message.header.get("smooth") is None:
            self._smoothing = None
            return keypoints
        cutoff = message.number("smooth", 0.01, 1000)
        if self._smoothing is None or self._smoothing.min_cutoff != cutoff:
            self._smoothing = OneEuroFilter(cutoff)
        return self._smoothing(keypoints, seconds)
