"""Who the studio lets in, and how much of what they send."""

import asyncio
import http.client
import os
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import aiohttp
import pytest

from tests import clips
from tests.studios import Studio, page, studio

LIMIT = 40_000


@pytest.fixture(scope="module")
def running(tiny_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Studio]:
    folder = tmp_path_factory.mktemp("studio")
    with studio(tiny_bundle, folder / "tmp", upload_bytes=LIMIT, clip_seconds=2, clip_pixels=64 * 48, visitors=4) as it:
        yield it


def ask(address: str, path: str = "", method: str = "GET", body: bytes = b"", **headers: str) -> tuple[int, str]:
    """Status and body of an answer, for headers as given and none that a library would add but the length."""
    parts = urlsplit(address)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=30)
    connection.putrequest(method, f"{parts.path}{path}", skip_host=True, skip_accept_encoding=True)
    for name, value in ({"Host": parts.netloc} | headers).items():
        connection.putheader(name.replace("_", "-"), value)
    if body and "Content_Length" not in headers:
        connection.putheader("Content-Length", str(len(body)))
    connection.endheaders(body)
    answer = connection.getresponse()
    return answer.status, answer.read().decode(errors="replace")


SOCKET = {
    "Connection": "Upgrade",
    "Upgrade": "websocket",
    "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
}


def handshake(address: str, **headers: str) -> int:
    """Status of the answer to a socket's first request."""
    parts = urlsplit(address)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=30)
    connection.putrequest("GET", f"{parts.path}socket", skip_host=True, skip_accept_encoding=True)
    for name, value in ({"Host": parts.netloc} | SOCKET | headers).items():
        connection.putheader(name, value)
    connection.endheaders()
    return connection.getresponse().status


def test_the_page_and_its_parts_are_served_with_strict_headers(running: Studio) -> None:
    status, words = ask(running.address)
    assert status == 200
    assert "<title>JOKR-RT studio</title>" in words
    assert [line for line in words.splitlines() if "http:" in line or "https:" in line or "//" in line] == []
    parts = urlsplit(running.address)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=30)
    connection.request("GET", "/main.js")
    answer = connection.getresponse()
    answer.read()
    assert answer.headers["Content-Type"] == "text/javascript; charset=utf-8"
    policy = answer.headers["Content-Security-Policy"]
    assert policy.startswith(
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; connect-src"
    )
    assert "unsafe" not in policy
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert answer.headers["Referrer-Policy"] == "no-referrer"
    assert answer.headers["Cache-Control"] == "no-store"


@pytest.mark.parametrize("host", ["evil.example", "evil.example:80", "127.0.0.1.evil.example", "192.0.2.7", "", "[::1"])
def test_another_host_is_refused(running: Studio, host: str) -> None:
    assert ask(running.address, Host=host)[0] in (400, 403)
    assert handshake(running.address, Host=host, Origin=f"http://{host}") in (400, 403)


@pytest.mark.parametrize("host", ["localhost:9000", "127.0.0.1:9000", "[::1]:9000", "localhost"])
def test_a_tunnel_may_have_another_port(running: Studio, host: str) -> None:
    assert ask(running.address, Host=host)[0] == 200
    assert handshake(running.address, Host=host, Origin=f"http://{host}") == 101


@pytest.mark.parametrize(
    "origin", [None, "null", "http://evil.example", "http://localhost:1", "file://", "http://127.0.0.1"]
)
def test_a_socket_needs_the_pages_own_origin(running: Studio, origin: str | None) -> None:
    assert handshake(running.address, **({"Origin": origin} if origin else {})) == 403
    assert handshake(running.address, Origin=running.address.rstrip("/")) == 101


def test_another_sites_requests_are_refused(running: Studio) -> None:
    own = running.address.rstrip("/")
    assert ask(running.address, Origin="http://evil.example")[0] == 403
    assert ask(running.address, Sec_Fetch_Site="cross-site")[0] == 403
    assert ask(running.address, Sec_Fetch_Site="same-origin")[0] == 200
    assert ask(running.address, Sec_Fetch_Site="cross-site", Sec_Fetch_Dest="document")[0] == 200  # a link to the page
    assert ask(running.address, Sec_Fetch_Site="cross-site", Sec_Fetch_Dest="iframe")[0] == 403
    assert ask(running.address, "visitors/x/clip", "PUT", b"x")[0] == 403
    assert ask(running.address, "visitors/x/clip", "PUT", b"x", Origin="http://evil.example")[0] == 403
    assert ask(running.address, "visitors/x/clip", "PUT", b"x", Origin=own)[0] == 404  # no such visitor


@pytest.mark.parametrize(
    "path",
    ["../server.py", "%2e%2e/server.py", "..%2fserver.py", "/etc/passwd", "page/main.js", "visitors/../main.py", "%00"],
)
def test_no_path_is_opened(running: Studio, path: str) -> None:
    status, words = ask(running.address, path)
    assert status in (400, 403, 404)
    assert "import" not in words
    assert "root:" not in words


def test_elsewhere_than_on_loopback_every_request_needs_the_token(tiny_bundle: Path, tmp_path: Path) -> None:
    with studio(tiny_bundle, tmp_path / "tmp", host="0.0.0.0") as it:
        parts = urlsplit(it.address)
        token = parts.path.strip("/")
        assert len(token) == 32
        base, host = f"http://127.0.0.1:{parts.port}", f"127.0.0.1:{parts.port}"
        wrong = token[:-1] + ("A" if token[-1] != "A" else "B")
        for name in ("", "main.js", "visitors/x/export", "socket"):
            assert ask(f"{base}/{wrong}/", name)[0] == 403
            assert ask(f"{base}/", name)[0] == 403
        assert ask(f"{base}/{token}/")[0] == ask(f"{base}/{token}/", "main.js")[0] == 200
        for prefix, status in (("", 403), (f"/{wrong}", 403), (f"/{token}", 101)):
            assert handshake(f"{base}{prefix}/", Origin=base) == status
        assert handshake(f"{base}/{token}/", Origin="http://evil.example") == 403
        assert ask(f"{base}/{token}/", Host="evil.example")[0] == 403
        assert ask(f"{base}/{token}/", Host="192.0.2.7:80")[0] == 200  # an address cannot be pointed elsewhere
        assert ask(f"{base}/{token}/", Host=parts.netloc)[0] == 200
        assert host in base


async def put(
    address: str, body: bytes | None, visitor: str, chunked: bool = False, name: str = "a.mp4"
) -> tuple[int, str]:
    origin = address.rstrip("/")

    async def pieces():  # without a length
        for start in range(0, len(body or b""), 1000):
            yield (body or b"")[start : start + 1000]

    async with aiohttp.ClientSession() as session:
        data = pieces() if chunked else body
        target = f"{address}visitors/{visitor}/clip?name={name}"
        async with session.put(target, data=data, headers={"Origin": origin}) as answer:
            return answer.status, await answer.text()


def test_an_upload_is_bounded_and_nothing_of_it_stays(running: Studio) -> None:
    async def visit() -> None:
        async with page(running.address) as visitor:
            for chunked in (False, True):
                status, words = await put(running.address, bytes(LIMIT + 1), visitor.visitor, chunked)
                assert status == 413
                assert "more than 40000 bytes" in words
            assert running.files() == []
            status, words = await put(running.address, b"", visitor.visitor)
            assert (status, "is empty" in words) == (413, True)

    asyncio.run(visit())


def refusal(running: Studio, path: Path) -> str:
    async def visit() -> str:
        async with page(running.address) as visitor:
            assert (await put(running.address, path.read_bytes(), visitor.visitor))[0] == 200
            return str((await visitor.hear("error")).header["message"])

    words = asyncio.run(visit())
    assert running.files() == []
    assert str(running.folder) not in words
    return words


def test_an_uploaded_clip_is_bounded_in_pixels_and_seconds(running: Studio, tmp_path: Path) -> None:
    large = clips.video(tmp_path / "large.mp4", 2, width=66, height=48)
    assert "a.mp4: its pictures have 66 x 48 pixels, over 3,072; make them smaller" in refusal(running, large)
    long = clips.video(tmp_path / "long.mp4", 23)
    assert refusal(running, long) == "the clip is longer than 2 s; cut it first"
    (tmp_path / "noise.mp4").write_bytes(os.urandom(3000))
    assert "a.mp4: not a video" in refusal(running, tmp_path / "noise.mp4")


def test_an_uploaded_playlist_reads_no_other_file(running: Studio, tmp_path: Path) -> None:
    secret = clips.video(tmp_path / "secret.mp4", 3)
    playlist = tmp_path / "list.m3u8"
    playlist.write_text(f"#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\n{secret}\n#EXT-X-ENDLIST\n")
    assert "not a video" in refusal(running, playlist)
    script = tmp_path / "list.ffconcat"
    script.write_text(f"ffconcat version 1.0\nfile '{secret}'\n")
    assert "not a video" in refusal(running, script)


def test_there_are_no_more_visitors_than_places(tiny_bundle: Path, tmp_path: Path) -> None:
    async def visit(address: str) -> None:
        async with page(address) as first:
            async with page(address):
                origin = address.rstrip("/")
                async with (
                    aiohttp.ClientSession() as session,
                    session.ws_connect(f"{address}socket", origin=origin) as late,
                ):
                    closed = await late.receive(30)
                assert (closed.data, closed.extra) == (4001, "all 2 places are taken; try again when somebody has left")
            async with page(address) as third:  # who has no socket makes room
                assert third.visitor != first.visitor
            async with page(address, first.visitor) as again:  # the same visitor takes no second place
                assert again.visitor == first.visitor

    with studio(tiny_bundle, tmp_path / "tmp", visitors=2) as it:
        asyncio.run(visit(it.address))


def test_a_message_that_is_none_of_ours_is_answered_with_words(running: Studio) -> None:
    async def visit() -> None:
        async with page(running.address) as visitor:
            for data in (
                b"",
                b"\xff\xff\xff\xff",
                b"\x02\x00\x00\x00[]",
                b"\x02\x00\x00\x00{}",
                b"\x0c\x00\x00\x00" + b'{"kind":"x"}',
            ):
                await visitor.socket.send_bytes(data)
                error = await visitor.hear("error")
                assert "message" in error.header["message"]
            error = await visitor.ask("draw", "drawn", index=0, edits={}, direction="a2b", seq=0)
            assert error.header == {"about": "draw", "seq": 0, "message": "open a clip first"}
            error = await visitor.ask("live", "live", b"no picture", seq=1, direction="a2b")
            assert error.header["message"] == "not a whole JPEG picture"

    asyncio.run(visit())
