"""Who is here, and what each one has: nothing is shared but the model and the clip that the studio was started with."""

import asyncio
import secrets
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from aiohttp import web

from jokr_rt.errors import JokrError, UsageError
from jokr_rt.studio.clips import Clip, load_clip
from jokr_rt.studio.editing import Editing
from jokr_rt.studio.limits import Limits
from jokr_rt.studio.live import LiveStream
from jokr_rt.studio.looks import Looks
from jokr_rt.studio.messages import Message
from jokr_rt.studio.worker import Worker


class Visitor:
    """One page. It may lose its socket, or be loaded again, and find what it had, for a while.

    folder: for the files of this visitor. looks: of what is drawn for him. live: while there is a socket. editing:
    while there is a clip.
    """

    def __init__(self, worker: Worker, folder: Path) -> None:
        self.looks = Looks(worker)
        self._worker = worker
        self.id = secrets.token_urlsafe(18)
        self.folder = folder / self.id
        self.folder.mkdir(mode=0o700)
        self.socket: web.WebSocketResponse | None = None
        self.live: LiveStream | None = None
        self.editing: Editing | None = None
        self.loading: asyncio.Task[None] | None = None
        self.last_seen = time.monotonic()
        self._is_receiving = False

    @property
    def is_loading(self) -> bool:
        """Whether an uploaded clip is being read."""
        return self.loading is not None and not self.loading.done()

    @property
    def is_busy(self) -> bool:
        """Whether something goes on that the page, when it comes back, will want the end of."""
        return self._is_receiving or self.is_loading or (self.editing is not None and self.editing.is_exporting)

    async def send(self, message: Message) -> None:
        """Waits where the connection is slow; says nothing to a page that is not there."""
        if self.socket is not None and not self.socket.closed:
            with suppress(ConnectionError):  # the socket's reader ends as well, and sees to the rest
                await self.socket.send_bytes(message.pack())

    @contextmanager
    def upload(self) -> Iterator[Path]:
        """Where a file's bytes go; gone again where the block raises. Raises UsageError while there is another one."""
        if self._is_receiving or self.is_loading:
            raise UsageError("another file is being read; wait for it")
        path = self.folder / secrets.token_urlsafe(9)
        self._is_receiving = True
        try:
            yield path
        except BaseException:
            path.unlink(missing_ok=True)
            raise
        finally:
            self._is_receiving = False

    def load(self, path: Path, name: str, limits: Limits) -> None:
        """Begin to read an uploaded clip; then it is the one to edit. Its file goes with it."""
        self.loading = asyncio.create_task(self._load(path, name[:100], limits))

    async def _load(self, path: Path, name: str, limits: Limits) -> None:
        try:
            clip = await load_clip(self._worker, path, None, name, limits, self.tell_loading)
            await self.open(clip)
        except JokrError as error:
            words = str(error).replace(f"{path}", name)
            await self.send(Message("error", {"about": "clip", "message": words}))
        finally:
            if self.editing is None or self.editing.clip.path != path:
                path.unlink(missing_ok=True)

    async def tell_loading(self, done: int, total: int | None) -> None:
        """How much of a clip has been read; not of every frame."""
        if done % 8 == 0:
            await self.send(Message("loading", {"done": done, "total": total}))

    async def open(self, clip: Clip) -> None:
        """A clip to edit, instead of the one before."""
        before, self.editing = self.editing, Editing(self._worker, self.looks, clip, self.folder, self.send)
        if before is not None:
            await before.close()
            if before.clip.path.parent == self.folder:
                before.clip.path.unlink(missing_ok=True)
        await self.editing.tell()

    async def close(self) -> None:
        """Free everything."""
        if self.loading is not None:
            self.loading.cancel()
            await asyncio.gather(self.loading, return_exceptions=True)
        if self.editing is not None:
            await self.editing.close()
        await self.looks.close()
        if self.socket is not None:
            await self.socket.close()
        await asyncio.to_thread(shutil.rmtree, self.folder, ignore_errors=True)


class Visitors:
    """All of them; `limits.visitors` at most."""

    def __init__(self, worker: Worker, folder: Path, limits: Limits) -> None:
        self._worker = worker
        self._folder = folder
        self._limits = limits
        self._known: dict[str, Visitor] = {}

    def __len__(self) -> int:
        return len(self._known)

    def find(self, name: str) -> Visitor | None:
        """The visitor of that id, which only he and the studio know."""
        return self._known.get(name)

    async def welcome(self, name: str) -> Visitor:
        """The visitor of that id, or a new one. Raises UsageError where there are too many."""
        if (known := self.find(name)) is not None:
            return known
        await self.forget_absent(0 if len(self) >= self._limits.visitors else self._limits.absence_seconds)
        if len(self) >= self._limits.visitors:
            raise UsageError(f"all {self._limits.visitors} places are taken; try again when somebody has left")
        visitor = Visitor(self._worker, self._folder)
        self._known[visitor.id] = visitor
        return visitor

    async def forget_absent(self, seconds: float) -> None:
        """Those who have had no socket for that long and wait for nothing."""
        now = time.monotonic()
        absent = [one for one in self._known.values() if one.socket is None and not one.is_busy]
        gone = [visitor for visitor in absent if now - visitor.last_seen >= seconds]
        for visitor in gone:  # all at once: while one is being closed, somebody else may come for the rest
            del self._known[visitor.id]
        await asyncio.gather(*(visitor.close() for visitor in gone))

    async def close(self) -> None:
        """Free everything, of everybody."""
        await asyncio.gather(*(visitor.close() for visitor in self._known.values()))
        self._known.clear()
