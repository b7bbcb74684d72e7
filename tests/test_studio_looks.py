"""What the studio answers of pictures that creatures have their looks from, without a browser."""

import asyncio
import gc
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from jokr_rt.bundle import Bundle
from jokr_rt.cli import main
from jokr_rt.edits import Edits, Key, format_edits
from jokr_rt.engines import load_engine
from jokr_rt.looks import with_looks
from jokr_rt.retarget import Retargeter
from jokr_rt.studio.limits import Limits
from jokr_rt.studio.messages import Message
from jokr_rt.video import jpeg, read_jpeg, read_picture, read_video, write_png
from tests import clips
from tests.studios import Page, Studio, disc, document, exported, fetch, inside, page, studio
from tests.tiny import creature_frames

COUNT = 6
LIMIT = 40_000  # bytes of a picture


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return clips.video(tmp_path_factory.mktemp("clip") / "walk.mp4", COUNT, width=64, height=64)


@pytest.fixture(scope="module")
def picture(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("picture") / "fox.png"
    write_png(path, creature_frames(5, 64, 9)[2])
    return path


@pytest.fixture(scope="module")
def running(tiny_bundle: Path, clip: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Studio]:
    folder = tmp_path_factory.mktemp("studio") / "tmp"
    with studio(tiny_bundle, folder, clip, looks_bytes=LIMIT, looks_pixels=160 * 120) as it:
        yield it


@pytest.fixture(scope="module")
def dressed(bundle: Bundle, picture: Path) -> Retargeter:
    """From a to b, which looks as in the picture."""
    engine = load_engine("openvino", bundle, "fp32")
    return Retargeter(with_looks(bundle, engine, "b", read_picture(picture, 64)), "a2b", engine)


async def ask(
    address: str, visitor: Page, method: str = "DELETE", data: bytes = b"", **query: str
) -> tuple[int, dict[str, Any]]:
    """Status and body of the answer about his looks."""
    target = f"{address}visitors/{visitor.visitor}/looks"
    wanted = {"direction": "a2b", "name": "fox.png"} | query
    headers = {"Origin": address.rstrip("/")}
    async with visitor.session.request(method, target, params=wanted, data=data, headers=headers) as answer:
        return answer.status, await answer.json()


async def choose(running: Studio, visitor: Page, path: Path, **query: str) -> Message:
    """Put a picture; what the page is told of it."""
    assert await ask(running.address, visitor, "PUT", path.read_bytes(), **query) == (200, {})
    return await visitor.hear("looks")


async def draw(visitor: Page, direction: str = "a2b") -> bytes:
    wanted = {"edits": document(Edits()), "index": 3, "direction": direction, "seq": 1}
    answer = await visitor.ask("draw", "drawn", **wanted)
    assert answer.kind == "drawn", answer.header
    return answer.parts[0]


def test_a_picture_gives_the_looks_until_the_models_own_are_back(
    running: Studio, clip: Path, picture: Path, dressed: Retargeter
) -> None:
    seen = creature_frames(5, 64, 9)[2]
    pose, _ = dressed.extract(list(read_video(clip, size=64))[3].rgb)

    async def visit() -> None:
        async with page(running.address) as visitor, page(running.address) as other:
            assert (await visitor.hear("looks")).header == {"names": {}}
            for each in (visitor, other):
                await each.hear("clip")
            before, back = await draw(visitor), await draw(visitor, "b2a")
            message = await choose(running, visitor, picture)
            assert message.header == {"names": {"a2b": "fox.png"}}
            assert message.parts == (jpeg(seen),)
            drawn = await draw(visitor)
            assert drawn == jpeg(dressed.draw(pose))
            assert drawn != before
            assert running.files(visitor.visitor) == []
            assert await draw(visitor, "b2a") == back
            assert await draw(other) == before
            filmed = await visitor.ask("live", "live", disc(0.3), seq=1, direction="a2b")
            keypoints, _ = dressed.extract(read_jpeg(disc(0.3), 64, 128 * 128))
            assert filmed.parts[0] == jpeg(dressed.draw(keypoints))
            async with page(running.address, visitor.visitor) as again:  # the page, loaded again
                assert await again.hear("looks") == message
                assert await draw(again) == drawn
                assert await ask(running.address, again) == (200, {})
                assert (await again.hear("looks")).header == {"names": {}}
                assert await draw(again) == before

    asyncio.run(visit())


def test_each_direction_has_its_own(running: Studio, picture: Path, tmp_path: Path) -> None:
    cat = tmp_path / "cat.png"
    write_png(cat, creature_frames(5, 64, 4)[1])

    async def visit() -> None:
        async with page(running.address) as visitor:
            await visitor.hear("clip")
            await choose(running, visitor, picture)
            there, back = await draw(visitor), await draw(visitor, "b2a")
            message = await choose(running, visitor, cat, direction="fox2cat", name="cat.png")
            assert message.header == {"names": {"a2b": "fox.png", "b2a": "cat.png"}}
            assert len(message.parts) == 2
            assert await draw(visitor) == there
            assert await draw(visitor, "b2a") != back
            message = await choose(running, visitor, cat)  # instead of the first
            assert message.header["names"]["a2b"] == "fox.png"
            assert await draw(visitor) != there

    asyncio.run(visit())


def test_an_export_is_the_file_of_the_command_line(
    running: Studio, tiny_bundle: Path, clip: Path, picture: Path, tmp_path: Path
) -> None:
    edits = Edits(exaggerate=1.5).with_key(0, Key(0.2, 0.5, 0.25))

    async def visit() -> bytes:
        async with page(running.address) as visitor:
            await visitor.hear("clip")
            await choose(running, visitor, picture)
            await visitor.send("export", edits=document(edits), direction="a2b")
            assert await ask(running.address, visitor) == (200, {})  # what was begun keeps its looks
            assert (await exported(visitor)).header["state"] == "done"
            return (await fetch(running, visitor))[1]

    data = asyncio.run(visit())
    (tmp_path / "edits.json").write_text(format_edits(edits))
    options = ["--edits", str(tmp_path / "edits.json"), "--engine", "openvino", "--precision", "fp32"]
    for name, more in (("own", []), ("other", ["--appearance", str(picture)])):
        output = str(tmp_path / f"{name}.mp4")
        done = CliRunner().invoke(main, ["run", str(tiny_bundle), str(clip), "-o", output, *options, *more])
        assert done.exit_code == 0, done.output
    assert data == (tmp_path / "other.mp4").read_bytes()
    assert data != (tmp_path / "own.mp4").read_bytes()


def test_what_is_no_picture_is_refused_and_the_looks_stay(running: Studio, picture: Path, tmp_path: Path) -> None:
    secret = clips.image(tmp_path / "secret.png", clips.picture(64, 64))
    clips.image(tmp_path / "whole.jpg", clips.noise(1)[0])
    cut = clips.truncated(tmp_path / "whole.jpg", tmp_path / "cut.jpg", 0.6).read_bytes()
    large = clips.image(tmp_path / "large.png", clips.picture(160, 122)).read_bytes()
    script = f"ffconcat version 1.0\nfile '{secret}'\n".encode()

    async def visit() -> None:
        async with page(running.address) as visitor:
            await visitor.hear("clip")
            message = await choose(running, visitor, picture)
            before = await draw(visitor)
            for data, name, status, words in (
                (bytes(LIMIT + 1), "big.png", 413, "the picture has more than 40000 bytes; make it smaller"),
                (b"", "none.png", 413, "the picture is empty"),
                (b"no picture" * 50, "notes.png", 200, "notes.png: not a video or image that can be read"),
                (script, "list.png", 200, "list.png: not a video or image that can be read"),
                (cut, "cut.jpg", 200, "cut.jpg: this image is cut off; replace it"),
                (large, "large.png", 200, "large.png: cannot be decoded, or has more than 19,200 pixels"),
            ):
                found, told = await ask(running.address, visitor, "PUT", data, name=name)
                assert (found, list(told)) == (status, ["error"])
                assert told["error"].startswith(words)
                assert str(running.folder) not in told["error"]
            status, told = await ask(running.address, visitor, "PUT", picture.read_bytes(), direction="up")
            assert (status, "unknown direction 'up'" in told["error"]) == (409, True)
            assert await draw(visitor) == before
            assert running.files(visitor.visitor) == []
        async with page(running.address, visitor.visitor) as again:
            assert await again.hear("looks") == message

    asyncio.run(visit())


@pytest.mark.parametrize("method", ["PUT", "DELETE"])
def test_nobody_elses_looks_are_changed(running: Studio, picture: Path, method: str) -> None:
    async def visit() -> None:
        async with page(running.address) as visitor:
            target = f"{running.address}visitors/{{}}/looks?direction=a2b&name=fox.png"
            own = {"Origin": running.address.rstrip("/")}
            for name, headers, status in (
                (visitor.visitor, {"Origin": "http://evil.example"}, 403),
                (visitor.visitor, {}, 403),
                ("somebody", own, 404),
            ):
                request = visitor.session.request(method, target.format(name), data=b"x", headers=headers)
                async with request as answer:
                    assert answer.status == status

    asyncio.run(visit())


def test_looks_go_with_their_visitor(
    bundle: Bundle, picture: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    closed: list[int] = []
    monkeypatch.setattr(Retargeter, "close", lambda retargeter: closed.append(id(retargeter)))

    async def visit() -> None:
        async with inside(bundle, tmp_path, Limits()) as (visitors, address):
            async with page(address) as one:
                await ask(address, one, "PUT", picture.read_bytes())
                visitor = visitors.find(one.visitor)
                assert visitor is not None
                first = weakref.ref(visitor.looks.retargeter("a2b"))
                wanted = [id(first())]
                await ask(address, one, "PUT", picture.read_bytes())
                gc.collect()
                assert first() is None  # another one is in its place
                second = weakref.ref(visitor.looks.retargeter("a2b"))
                assert closed == wanted
                wanted.append(id(second()))
            for _ in range(200):
                if visitor.socket is None:
                    break
                await asyncio.sleep(0.05)
            await visitors.forget_absent(0)
            assert len(visitors) == 0
            assert closed == wanted
            del visitor
            gc.collect()
            assert second() is None
            assert list(tmp_path.iterdir()) == []

    asyncio.run(visit())
