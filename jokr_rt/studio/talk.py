"""What a visitor's page and the studio say to each other over one socket."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from typing import Any

from aiohttp import WSMsgType, web

from jokr_rt.errors import JokrError, UsageError
from jokr_rt.keypoints import keypoint_colours
from jokr_rt.studio.clips import GivenClip
from jokr_rt.studio.editing import Editing
from jokr_rt.studio.limits import Limits
from jokr_rt.studio.live import LiveStream
from jokr_rt.studio.messages import Mailbox, Message, unpack
from jokr_rt.studio.visitors import Visitor
from jokr_rt.studio.worker import Worker

_log = logging.getLogger(__name__)

REPLACED = 4002
"""Why a socket is closed: the same visitor opened another one."""


class _Lane:
    """Answers one message after the other, in a task of its own; newer ones replace those that still wait."""

    def __init__(self, visitor: Visitor, answer: Callable[[Message], Awaitable[Message]]) -> None:
        self._visitor, self._answer = visitor, answer
        self._box = Mailbox()
        self._filled = asyncio.Event()

    async def put(self, message: Message) -> None:
        """A message that is replaced is answered with "dropped", so that the page knows what is still to come."""
        replaced = self._box.put(message)
        self._filled.set()
        if replaced is not None:
            await self._visitor.send(Message("dropped", {"of": replaced.kind, "seq": replaced.header.get("seq")}))

    async def run(self) -> None:
        while True:
            await self._filled.wait()
            self._filled.clear()
            while (message := self._box.take()) is not None:
                await self._visitor.send(await self._safely(message))

    async def _safely(self, message: Message) -> Message:
        told = {"about": message.kind, "seq": message.header.get("seq")}
        try:
            return await self._answer(message)
        except JokrError as error:
            return Message("error", told | {"message": str(error)})
        except Exception:  # a fault of ours: the page is told, the studio goes on
            _log.exception("a message of kind %s failed", message.kind)
            return Message("error", told | {"message": "this failed in the studio; its terminal says why"})


class Talk:
    """One socket of one visitor, until it is closed."""

    def __init__(
        self,
        visitor: Visitor,
        socket: web.WebSocketResponse,
        worker: Worker,
        limits: Limits,
        given: GivenClip | None,
    ) -> None:
        self._visitor, self._socket, self._worker, self._limits, self._given = visitor, socket, worker, limits, given
        self._stream = LiveStream(worker, visitor.looks, limits.live_pixels)
        self._lanes = {"live": _Lane(visitor, self._stream.answer), "draw": _Lane(visitor, self._draw)}

    async def run(self) -> None:
        before, self._visitor.socket = self._visitor.socket, self._socket
        self._visitor.live = self._stream
        tasks: list[asyncio.Task[Any]] = [asyncio.create_task(lane.run()) for lane in self._lanes.values()]
        tasks.append(asyncio.create_task(self._greet()))
        if before is not None:
            tasks.append(asyncio.create_task(before.close(code=REPLACED, message=b"the studio is open in another tab")))
        try:
            async for message in self._socket:
                if message.type != WSMsgType.BINARY:
                    break
                await self._take(message.data)
        finally:
            for task in tasks:
                task.cancel()
            if self._visitor.socket is self._socket:
                self._visitor.socket = self._visitor.live = None
                self._visitor.last_seen = time.monotonic()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _greet(self) -> None:
        """Say what this is, and give back what the visitor had."""
        model, visitor = self._worker.model, self._visitor
        about = {
            "visitor": visitor.id,
            "size": model.config.size,
            "domains": model.domains,
            "colours": keypoint_colours(model.config.keypoints).tolist(),
            "engine": self._worker.engine.name,
            "precision": self._worker.engine.precision,
            "limits": {
                "bytes": self._limits.upload_bytes,
                "seconds": self._limits.clip_seconds,
                "looks_bytes": self._limits.looks_bytes,
            },
            "clip": visitor.editing is not None or visitor.is_loading or self._given is not None,
        }
        await visitor.send(Message("hello", about))
        await visitor.send(visitor.looks.message())
        if visitor.editing is not None:
            await visitor.editing.tell()
        elif self._given is not None and not visitor.is_loading:
            clip = await self._given.wait(visitor.tell_loading)
            if visitor.editing is None and not visitor.is_loading:
                await visitor.open(clip)

    async def _take(self, data: bytes) -> None:
        about = ""
        try:
            message = unpack(data)
            about = message.kind
            if (lane := self._lanes.get(message.kind)) is not None:
                await lane.put(message)
            elif message.kind == "export":
                self._editing().export(message)
            elif message.kind == "cancel":
                self._editing().cancel()
            else:
                raise UsageError(f"unknown message {message.kind!r}")
        except JokrError as error:
            await self._visitor.send(Message("error", {"about": about, "message": str(error)}))

    def _editing(self) -> Editing:
        if self._visitor.editing is None:
            raise UsageError("open a clip first")
        return self._visitor.editing

    async def _draw(self, message: Message) -> Message:
        return await self._editing().draw(message)
