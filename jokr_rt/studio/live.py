"""A camera's frames, one by one, as they come from a visitor's browser."""

import time

import numpy as np
from numpy.typing import NDArray

from jokr_rt.errors import UsageError
from jokr_rt.keypoints import OneEuroFilter
from jokr_rt.retarget import find_direction
from jokr_rt.studio.messages import Message
from jokr_rt.studio.worker import Stopwatch, Worker
from jokr_rt.video import jpeg, read_jpeg


class LiveStream:
    """One visitor's stream: its smoothing is nobody else's."""

    def __init__(self, worker: Worker, max_pixels: int) -> None:
        self._worker = worker
        self._max_pixels = max_pixels
        self._smoothing: OneEuroFilter | None = None
        self._start = time.monotonic()

    async def answer(self, message: Message) -> Message:
        """For a frame (JPEG): the drawn one, its keypoints and confidence, and how long each stage took.

        The header's fields: "seq", repeated in the answer; "direction"; "smooth", a cutoff in Hz or null; "heatmaps",
        whether these come as a second picture. Raises UsageError, InputError, EngineError.
        """
        return await self._worker.call(self._answer, message, Stopwatch())

    def _answer(self, message: Message, watch: Stopwatch) -> Message:
        watch.begin()
        if len(message.parts) != 1:
            raise UsageError("a camera's frame is one picture")
        model = self._worker.model
        direction = find_direction(str(message.header.get("direction")), model.domains)
        retargeter = self._worker.retargeter(direction)
        with watch.measure("decode"):
            rgb = read_jpeg(message.parts[0], model.config.size, self._max_pixels)
        with watch.measure("extract"):
            keypoints, confidence = retargeter.extract(rgb)
        keypoints = self._smooth(message, keypoints)
        with watch.measure("draw"):
            image = retargeter.draw(keypoints)
        with watch.measure("encode"):
            parts = [jpeg(image)]
        if message.header.get("heatmaps") is True:
            parts.append(jpeg(self._worker.heatmaps(direction, keypoints)))
        told = {"seq": message.header.get("seq"), "ms": watch.ms}
        found = {
            "keypoints": keypoints.astype(float).round(6).tolist(),
            "confidence": confidence.astype(float).round(4).tolist(),
        }
        return Message("live", told | found, tuple(parts))

    def _smooth(self, message: Message, keypoints: NDArray[np.float32]) -> NDArray[np.float32]:
        if message.header.get("smooth") is None:
            self._smoothing = None
            return keypoints
        cutoff = message.number("smooth", 0.01, 1000)
        if self._smoothing is None or self._smoothing.min_cutoff != cutoff:
            self._smoothing = OneEuroFilter(cutoff)
        return self._smoothing(keypoints, time.monotonic() - self._start)
