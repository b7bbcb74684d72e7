"""Writing the edited clip as a video, while the visitor goes on, or comes back."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from pathlib import Path

from jokr_rt.edits import Edits
from jokr_rt.engines import DeviceEngine, StagedEngine
from jokr_rt.errors import JokrError
from jokr_rt.retarget import Model, Retargeter
from jokr_rt.stream import retarget_stream
from jokr_rt.studio.clips import Clip
from jokr_rt.studio.messages import Message
from jokr_rt.studio.worker import Worker

Send = Callable[[Message], Awaitable[None]]

_log = logging.getLogger(__name__)
_TELL_SECONDS = 0.1


class _Cancelled(JokrError):
    """Whoever wanted the video does not any more."""


class Export:
    """`jokr run CLIP --edits`, in a thread of its own; begun when it is made. state: "running", "done", "failed" or
    "cancelled"; `message` says it, with how many of how many frames are done.

    On a device, and with PyTorch, it takes the model's own thread, and whoever else wants to see something waits.
    """

    def __init__(
        self, worker: Worker, model: Model, clip: Clip, edits: Edits, direction: str, folder: Path, send: Send
    ) -> None:
        """model: the worker's, or one with other looks."""
        self.state = "running"
        self.path = folder / "edited.mp4"
        self._model = model
        self._worker, self._clip, self._edits, self._direction, self._send = worker, clip, edits, direction, send
        self._done, self._total = 0, 2 * len(clip.pictures)
        self._words = ""
        self._is_cancelled = False
        self._task = asyncio.create_task(self._run())

    @property
    def is_running(self) -> bool:
        return self.state == "running"

    def message(self) -> Message:
        told = {"state": self.state, "done": self._done, "total": self._total, "message": self._words}
        return Message("export", told | {"name": f"{Path(self._clip.name).stem[:60] or 'clip'}-edited.mp4"})

    @property
    def _has_graphs_of_its_own(self) -> bool:
        """Whether it may run beside the model's thread; what is on a device, or shared, belongs to one thread."""
        engine = self._worker.engine
        return isinstance(engine, StagedEngine) and not isinstance(engine, DeviceEngine)

    def cancel(self) -> None:
        """It ends after the frame it is at."""
        self._is_cancelled = True

    async def close(self) -> None:
        """Cancel it, wait for its end, and delete the file."""
        self.cancel()
        await asyncio.wait([self._task])
        self.path.unlink(missing_ok=True)

    async def _run(self) -> None:
        teller = asyncio.create_task(self._tell())
        try:
            if self._has_graphs_of_its_own:
                await asyncio.to_thread(self._write)
            else:
                await self._worker.call(self._write)
            self.state = "done"
        except _Cancelled:
            self.state = "cancelled"
        except JokrError as error:
            # Its cause does not speak of a part file that nobody will find.
            words = str(error.__cause__ or error)
            self.state, self._words = "failed", words.replace(str(self._clip.path), self._clip.name)
        except Exception:  # a fault of ours: the page is told, the studio goes on
            _log.exception("an export failed")
            self.state, self._words = "failed", "this failed in the studio; its terminal says why"
        finally:
            teller.cancel()
            self.path.with_name(self.path.name + ".part").unlink(missing_ok=True)
        await self._send(self.message())

    async def _tell(self) -> None:
        while True:
            await self._send(self.message())
            await asyncio.sleep(_TELL_SECONDS)

    def _write(self) -> None:
        clip, edits = self._clip, self._edits
        keeps_time = edits.speed == 1
        with Retargeter(self._model, self._direction, self._worker.engine, "throughput") as retargeter:
            retarget_stream(
                retargeter,
                clip.path,
                self.path,
                masks=clip.masks,
                edits=edits,
                audio=keeps_time,
                overwrite=True,
                progress=self._count,
            )
        self._words = "without its sound, as the speed is not the clip's" if clip.has_audio and not keeps_time else ""

    def _count(self, done: int, total: int | None) -> None:
        if self._is_cancelled:
            raise _Cancelled("cancelled")
        self._done, self._total = done, max(done, total or self._total)
