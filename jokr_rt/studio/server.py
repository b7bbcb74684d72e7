"""The studio's server: the page, one socket for each visitor, clips in and out."""

import asyncio
import signal
import socket
import tempfile
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path

from aiohttp import web

from jokr_rt.engines import Engine
from jokr_rt.errors import InputError, JokrError, UsageError
from jokr_rt.retarget import Model, find_direction
from jokr_rt.studio.clips import GivenClip
from jokr_rt.studio.guard import Guard
from jokr_rt.studio.limits import Limits
from jokr_rt.studio.talk import Talk
from jokr_rt.studio.uploads import receive
from jokr_rt.studio.visitors import Visitor, Visitors
from jokr_rt.studio.worker import Worker

_TYPES = {".html": "text/html", ".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml"}


def serve(
    model: Model,
    engine: Engine,
    *,
    clip: Path | None = None,
    masks: Path | None = None,
    host: str = "127.0.0.1",
    port: int = 0,
    limits: Limits = Limits(),  # noqa: B008
    ready: Callable[[str], None] = print,
) -> None:
    """Serve the studio until Ctrl-C or SIGTERM.

    clip: what every visitor finds opened. masks: a mask for each of its frames, as for `retarget_stream`. host: where
    to listen; elsewhere than on loopback the address has a token. port: 0 takes a free one. ready: told the address of
    the page, as soon as it answers.
    Raises UsageError where the port is taken or `host` is no address of this machine, and what reading `clip` raises.
    """
    guard = Guard(host)
    listener = _listen(host, port)
    with tempfile.TemporaryDirectory(prefix="jokr-studio-") as folder:
        worker = Worker(model, engine)
        given = GivenClip(worker, clip, masks) if clip is not None else None
        made = _Studio(worker, guard, Visitors(worker, Path(folder), limits), limits, given)
        try:
            asyncio.run(made.run(listener, host, ready))
        finally:
            worker.close()


def _listen(host: str, port: int) -> socket.socket:
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        return socket.create_server(address[:2], family=family)
    except (OSError, OverflowError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UsageError(f"cannot listen on {host} port {port} ({reason}); choose another --port or --host") from None


def _address(host: str, port: int, prefix: str) -> str:
    """For a person to open, also from elsewhere where it listens on every address."""
    name = socket.gethostname() if host in ("0.0.0.0", "::") else host
    return f"http://{f'[{name}]' if ':' in name else name}:{port}{prefix}/"


def _refusal(error: JokrError) -> web.Response:
    return web.json_response({"error": str(error)}, status=413 if isinstance(error, InputError) else 409)


class _Studio:
    def __init__(
        self, worker: Worker, guard: Guard, visitors: Visitors, limits: Limits, given: GivenClip | None
    ) -> None:
        self.worker, self.guard, self.visitors, self.limits, self.given = worker, guard, visitors, limits, given
        # Read once, by names of our own: no path that a visitor sends is ever opened.
        page = files("jokr_rt.studio") / "page"
        self._page = {file.name: file.read_bytes() for file in page.iterdir() if Path(file.name).suffix in _TYPES}

    def application(self) -> web.Application:
        app = web.Application(middlewares=[self.guard.middleware], client_max_size=self.limits.message_bytes)
        app.on_response_prepare.append(self.guard.add_headers)
        prefix = self.guard.prefix
        app.add_routes(
            [
                web.get(f"{prefix}/", self._file),
                web.get(f"{prefix}/socket", self._socket),
                web.put(f"{prefix}/visitors/{{visitor}}/clip", self._upload),
                web.put(f"{prefix}/visitors/{{visitor}}/looks", self._choose_looks),
                web.delete(f"{prefix}/visitors/{{visitor}}/looks", self._drop_looks),
                web.get(f"{prefix}/visitors/{{visitor}}/export", self._download),
                web.get(f"{prefix}/{{name}}", self._file),
            ]
        )
        return app

    async def run(self, listener: socket.socket, host: str, ready: Callable[[str], None]) -> None:
        runner = web.AppRunner(self.application(), handle_signals=False, access_log=None, shutdown_timeout=1)
        await runner.setup()
        stop = asyncio.Event()
        for name in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(name, stop.set)
        await web.SockSite(runner, listener).start()
        ready(_address(host, listener.getsockname()[1], self.guard.prefix))
        tasks = [asyncio.ensure_future(work) for work in (stop.wait(), self._prepare(), self._sweep())]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await self.visitors.close()
            await runner.cleanup()

    async def _prepare(self) -> None:
        """Compile the model and read the clip; ends only with an error, which then ends the studio."""
        await self.worker.call(self.worker.warm)
        if self.given is not None:
            await self.given.read()
        await asyncio.Event().wait()

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(self.limits.absence_seconds / 4)
            await self.visitors.forget_absent(self.limits.absence_seconds)

    async def _file(self, request: web.Request) -> web.Response:
        name = request.match_info.get("name", "index.html")
        if name not in self._page:
            raise web.HTTPNotFound
        return web.Response(body=self._page[name], content_type=_TYPES[Path(name).suffix], charset="utf-8")

    def _visitor(self, request: web.Request) -> Visitor:
        visitor = self.visitors.find(request.match_info["visitor"])
        if visitor is None:
            raise web.HTTPNotFound(text="this visit has ended; load the page again")
        return visitor

    async def _socket(self, request: web.Request) -> web.WebSocketResponse:
        ws = web.WebSocketResponse(max_msg_size=self.limits.message_bytes, heartbeat=15, timeout=1.0, compress=False)
        await ws.prepare(request)
        try:
            visitor = await self.visitors.welcome(request.query.get("visitor", ""))
        except UsageError as error:
            await ws.close(code=4001, message=str(error).encode())
            return ws
        await Talk(visitor, ws, self.worker, self.limits, self.given).run()
        return ws

    async def _upload(self, request: web.Request) -> web.Response:
        visitor = self._visitor(request)
        try:
            with visitor.upload() as path:
                await receive(request, path, "clip", self.limits.upload_bytes, self.limits.silence_seconds)
        except JokrError as error:
            return _refusal(error)
        visitor.load(path, request.query.get("name") or "clip", self.limits)
        return web.json_response({})

    async def _choose_looks(self, request: web.Request) -> web.Response:
        visitor, limits = self._visitor(request), self.limits
        name = request.query.get("name") or "picture"
        told = {}
        try:
            direction = self._direction(request)
            with visitor.upload() as path:
                await receive(request, path, "picture", limits.looks_bytes, limits.silence_seconds)
                try:
                    await visitor.looks.choose(direction, path, name[:100], limits.looks_pixels)
                except InputError as error:  # the request was well, the picture is not
                    told["error"] = str(error)
                finally:
                    path.unlink(missing_ok=True)
        except JokrError as error:
            return _refusal(error)
        await visitor.send(visitor.looks.message())
        return web.json_response(told)

    async def _drop_looks(self, request: web.Request) -> web.Response:
        visitor = self._visitor(request)
        try:
            await visitor.looks.drop(self._direction(request))
        except JokrError as error:
            return _refusal(error)
        await visitor.send(visitor.looks.message())
        return web.json_response({})

    def _direction(self, request: web.Request) -> str:
        return find_direction(request.query.get("direction", ""), self.worker.model.domains)

    async def _download(self, request: web.Request) -> web.StreamResponse:
        editing = self._visitor(request).editing
        path = editing.exported if editing else None
        if path is None:
            raise web.HTTPNotFound(text="there is no finished export")
        return web.FileResponse(path, headers={"Content-Disposition": "attachment"})  # the page knows its name
