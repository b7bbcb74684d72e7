"""A visitor's clip and what he makes of it."""

import json
from collections.abc import Awaitable, Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from jokr_rt.edits import Edits, format_edits, parse_edits
from jokr_rt.errors import UsageError
from jokr_rt.familiar import FRAMES, familiarity
from jokr_rt.keypoints import retime
from jokr_rt.retarget import find_direction
from jokr_rt.studio.clips import Clip
from jokr_rt.studio.exports import Export
from jokr_rt.studio.looks import Looks
from jokr_rt.studio.messages import Message
from jokr_rt.studio.worker import Stopwatch, Worker
from jokr_rt.tracks import edit_tracks
from jokr_rt.video import jpeg

Send = Callable[[Message], Awaitable[None]]


class Editing:
    """clip: being edited. looks: of what is drawn. folder: for what is exported. send: to the visitor's page, if there
    is one.

    Edits come with every request, so that one picture never shows another's; the last ones are kept for a page that is
    loaded again.
    """

    def __init__(self, worker: Worker, looks: Looks, clip: Clip, folder: Path, send: Send) -> None:
        self.clip = clip
        self._worker = worker
        self._looks = looks
        self._folder = folder
        self._send = send
        self._edits, self._direction = Edits(), "a2b"
        self._edited = clip.tracks
        self._source = np.arange(len(clip.pictures))  # which of the clip's frames is shown beside each
        self._export: Export | None = None

    async def tell(self) -> None:
        """All that the page must know of the clip, and what was done to it."""
        clip = self.clip
        about = {
            "name": clip.name,
            "frames": len(clip.pictures),
            "mask": clip.masks.name if clip.masks else "none",
            "edits": json.loads(format_edits(self._edits)),
            "direction": self._direction,
        }
        found = clip.tracks
        assert found.confidence is not None
        familiar = familiarity(self._worker.model, self._direction)
        if familiar is not None:
            for _ in range(FRAMES):  # each time the mean of all frames, which is judged so
                familiar.see(found.keypoints[0], found.confidence.mean(axis=0))
            about["doubt"] = familiar.doubt
        arrays = tuple(_doubles(array) for array in (found.times, found.keypoints, found.confidence))
        await self._send(Message("clip", about, arrays))
        if self._export is not None:
            await self._send(self._export.message())

    async def draw(self, message: Message) -> Message:
        """A frame of the edited clip.

        The header's fields: "seq" and "index", repeated in the answer; "edits", the document; "direction"; "track",
        whether the whole edited track is wanted too; "heatmaps", likewise. Raises UsageError, EngineError.
        """
        return await self._worker.call(self._draw, message, Stopwatch())

    def _draw(self, message: Message, watch: Stopwatch) -> Message:
        watch.begin()
        with watch.measure("edit"):
            self._take(message)
        index = int(message.number("index", 0, 1e9))
        index = min(index, len(self._edited) - 1)
        pose = self._edited.keypoints[index]
        with watch.measure("draw"):
            image = self._looks.retargeter(self._direction).draw(pose)
        with watch.measure("encode"):
            parts = [jpeg(image), self.clip.pictures[self._source[index]]]
        names = ["output", "source"]
        if message.header.get("heatmaps") is True:
            names.append("heatmaps")
            parts.append(jpeg(self._worker.heatmaps(self._direction, pose)))
        if message.header.get("track") is True:
            names += ["seconds", "track", "sources"]
            parts += [_doubles(array) for array in (self._edited.times, self._edited.keypoints, self._source)]
        told = {"seq": message.header.get("seq"), "index": index, "names": names, "ms": watch.ms}
        told |= {"source": int(self._source[index]), "keypoints": pose.astype(float).round(6).tolist()}
        return Message("drawn", told, tuple(parts))

    def _take(self, message: Message) -> None:
        """The edits of a request. Where they cannot be meant, the ones of before stay."""
        edits, direction = self._asked(message)
        if edits != self._edits:
            found = self.clip.tracks
            edited = edit_tracks(edits, found)
            self._source = _nearest(found.times, retime(found.times, edits.speed)[0])
            self._edits, self._edited = edits, edited
        self._direction = direction

    def _asked(self, message: Message) -> tuple[Edits, str]:
        """Of a request, checked. Raises UsageError."""
        direction = find_direction(str(message.header.get("direction")), self._worker.model.domains)
        return parse_edits(json.dumps(message.header.get("edits"))), direction

    @property
    def is_exporting(self) -> bool:
        return self._export is not None and self._export.is_running

    @property
    def exported(self) -> Path | None:
        """The finished file."""
        return self._export.path if self._export is not None and self._export.state == "done" else None

    def export(self, message: Message) -> None:
        """Begin to write the whole clip; "edits" and "direction" as for `draw`. Raises UsageError."""
        if self.is_exporting:
            raise UsageError("an export is running already; cancel it first")
        edits, direction = self._asked(message)
        self._export = Export(
            self._worker, self._looks.model(direction), self.clip, edits, direction, self._folder, self._send
        )

    def cancel(self) -> None:
        if self._export is not None:
            self._export.cancel()

    async def close(self) -> None:
        """End what runs, and wait for that."""
        if self._export is not None:
            await self._export.close()


def _doubles(array: NDArray) -> bytes:
    return np.asarray(array, "<f8").tobytes()


def _nearest(times: NDArray[np.float64], wanted: NDArray[np.float64]) -> NDArray[np.intp]:
    """Of each wanted time, the index of the nearest of `times`, which increase."""
    after = np.searchsorted(times, wanted).clip(1, max(1, len(times) - 1))
    before = after - 1
    after = after.clip(max=len(times) - 1)
    return np.where(wanted - times[before] <= times[after] - wanted, before, after)
