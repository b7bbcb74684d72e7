"""The studio in a process of its own, and what its page says to it over a socket."""

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import numpy as np
from aiohttp.test_utils import TestServer
from numpy.typing import NDArray

from jokr_rt.bundle import Bundle
from jokr_rt.edits import Edits, format_edits
from jokr_rt.engines import load_engine
from jokr_rt.studio.guard import Guard
from jokr_rt.studio.limits import Limits
from jokr_rt.studio.messages import Message, unpack
from jokr_rt.studio.server import _Studio
from jokr_rt.studio.visitors import Visitors
from jokr_rt.studio.worker import Worker
from jokr_rt.video import jpeg
from tests.process import ROOT

PUPPETS = ROOT / "examples" / "puppets.jokr"

_SERVE = """
import json, sys
from pathlib import Path
from jokr_rt.bundle import open_bundle
from jokr_rt.engines import load_engine
from jokr_rt.studio.limits import Limits
from jokr_rt.studio.server import serve
wanted = json.loads(sys.argv[1])
bundle = open_bundle(wanted["bundle"])
serve(
    bundle,
    load_engine("openvino", bundle, "fp32"),
    clip=Path(wanted["clip"]) if wanted["clip"] else None,
    masks=Path(wanted["masks"]) if wanted["masks"] else None,
    host=wanted["host"],
    limits=Limits(**wanted["limits"]),
    ready=lambda address: print(address, flush=True),
)
"""


@dataclass(frozen=True)
class Studio:
    """address: of the page. folder: where the process keeps its temporary files."""

    address: str
    folder: Path
    process: "subprocess.Popen[str]"

    def files(self, visitor: str = "") -> list[str]:
        """Names of what its visitors, or one of them, have uploaded or exported."""
        return sorted(path.name for path in self.folder.rglob("*") if path.is_file() and visitor in str(path))


@contextmanager
def studio(
    bundle: Path,
    folder: Path,
    clip: Path | None = None,
    masks: Path | None = None,
    host: str = "127.0.0.1",
    **limits: float,
) -> Iterator[Studio]:
    """Serve a bundle in fp32; afterwards it has ended well, has said nothing and has left nothing."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = {name: str(path) if path else None for name, path in (("clip", clip), ("masks", masks))}
    wanted = {"bundle": str(bundle), "host": host, "limits": limits} | paths
    process = subprocess.Popen(
        [sys.executable, "-c", _SERVE, json.dumps(wanted)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"TMPDIR": str(folder)},
    )
    try:
        assert process.stdout is not None
        address = process.stdout.readline().strip()
        assert address.startswith("http://"), process.communicate(timeout=60)[1]
        yield Studio(address, folder, process)
    finally:
        process.terminate()
        _, words = process.communicate(timeout=60)
    assert (process.returncode, words) == (0, ""), words
    assert list(folder.iterdir()) == [], "files were left"


class Page:
    """What a page would say and hear. hello: the studio's first words."""

    def __init__(self, session: aiohttp.ClientSession, socket: aiohttp.ClientWebSocketResponse, hello: Message) -> None:
        self.session, self.socket, self.hello = session, socket, hello

    async def send(self, kind: str, *parts: bytes, **header: Any) -> None:
        await self.socket.send_bytes(Message(kind, header, parts).pack())

    async def hear(self, *kinds: str) -> Message:
        """The next message of these kinds; the others are skipped."""
        while True:
            data = await asyncio.wait_for(self.socket.receive_bytes(), 60)
            if (message := unpack(data)).kind in kinds:
                return message

    async def ask(self, kind: str, answer: str, *parts: bytes, **header: Any) -> Message:
        await self.send(kind, *parts, **header)
        return await self.hear(answer, "error")

    @property
    def visitor(self) -> str:
        return str(self.hello.header["visitor"])


@asynccontextmanager
async def page(address: str, visitor: str = "") -> AsyncIterator[Page]:
    """A visitor's socket."""
    origin = "/".join(address.split("/")[:3])
    target = f"{address}socket?visitor={visitor}"
    async with aiohttp.ClientSession() as session, session.ws_connect(target, origin=origin, max_msg_size=0) as socket:
        hello = unpack(await asyncio.wait_for(socket.receive_bytes(), 60))
        assert hello.kind == "hello"
        yield Page(session, socket, hello)


@asynccontextmanager
async def inside(bundle: Bundle, folder: Path, limits: Limits) -> AsyncIterator[tuple[Visitors, str]]:
    """A studio in this process, to be looked into: its visitors, and its address."""
    worker = Worker(bundle, load_engine("openvino", bundle, "fp32"))
    visitors = Visitors(worker, folder, limits)
    made = _Studio(worker, Guard("127.0.0.1"), visitors, limits, None)
    try:
        async with TestServer(made.application()) as server:
            yield visitors, str(server.make_url("/"))
            await visitors.close()
    finally:
        worker.close()


def disc(x: float, size: int = 128) -> bytes:
    """JPEG of a bright disc, at x in [-1, 1], on grey."""
    across = (np.arange(size) + 0.5) / size * 2 - 1
    inside = (across[None] - x) ** 2 + across[:, None] ** 2 < 0.1
    rgb: NDArray[np.uint8] = np.where(inside[..., None], (240, 200, 90), (90, 100, 110)).astype(np.uint8)
    return jpeg(rgb)


def document(edits: Edits) -> object:
    """As the page sends it."""
    return json.loads(format_edits(edits))


def doubles(part: bytes, *shape: int) -> NDArray[np.float64]:
    """Numbers of a message."""
    return np.frombuffer(part, "<f8").reshape(shape)


async def exported(visitor: Page) -> Message:
    """How his export ended."""
    while True:
        message = await visitor.hear("export", "error")
        assert message.kind == "export", message.header
        if message.header["state"] != "running":
            return message


async def fetch(running: Studio, visitor: Page) -> tuple[int, bytes]:
    """Status and body of the answer where his exported video is."""
    async with visitor.session.get(f"{running.address}visitors/{visitor.visitor}/export") as answer:
        return answer.status, await answer.read()
