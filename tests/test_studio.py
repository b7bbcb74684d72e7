"""What the studio answers, without a browser: messages, cameras, and what becomes of who goes away."""

import asyncio
import gc
import json
import signal
import subprocess
import urllib.request
import weakref
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from jokr_rt.bundle import Bundle
from jokr_rt.cli import main
from jokr_rt.keypoints import OneEuroFilter
from jokr_rt.retarget import Retargeter
from jokr_rt.studio.limits import Limits
from jokr_rt.studio.messages import Mailbox, Message, unpack
from jokr_rt.video import jpeg, read_jpeg
from tests.process import ROOT, assert_refused, command, jokr
from tests.studios import Page, Studio, disc, inside, page, studio


@pytest.fixture(scope="module")
def running(tiny_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Studio]:
    with studio(tiny_bundle, tmp_path_factory.mktemp("studio") / "tmp") as it:
        yield it


def test_messages_come_back_as_they_were() -> None:
    message = Message("live", {"seq": 3, "smooth": None}, (b"abc", b"", b"\x00d"))
    assert unpack(message.pack()) == message


def test_a_mailbox_keeps_the_newest_of_each_kind() -> None:
    box = Mailbox()
    assert box.put(Message("a", {"seq": 0})) is None
    assert box.put(Message("b", {"seq": 1})) is None
    assert box.put(Message("a", {"seq": 2})) == Message("a", {"seq": 0})
    assert [box.take(), box.take(), box.take()] == [Message("a", {"seq": 2}), Message("b", {"seq": 1}), None]


def test_a_cameras_frame_is_answered_with_what_the_library_draws(running: Studio, retargeter: Retargeter) -> None:
    rgb = read_jpeg(disc(0.3), 64, 128 * 128)
    keypoints, confidence = retargeter.extract(rgb)

    async def visit() -> None:
        async with page(running.address) as visitor:
            answer = await visitor.ask("live", "live", disc(0.3), seq=5, direction="a2b", heatmaps=True)
        header = answer.header
        assert header["seq"] == 5
        assert np.abs(np.array(header["keypoints"]) - keypoints).max() < 1e-5
        assert np.abs(np.array(header["confidence"]) - confidence).max() < 1e-4
        assert list(header["ms"]) == ["wait", "decode", "extract", "draw", "encode"]
        assert answer.parts[0] == jpeg(retargeter.draw(keypoints))
        assert len(answer.parts) == 2
        assert read_jpeg(answer.parts[1], 64, 64 * 64).max() > 200

    asyncio.run(visit())


def test_a_larger_picture_than_a_cameras_is_refused(running: Studio) -> None:
    async def visit() -> None:
        async with page(running.address) as visitor:
            error = await visitor.ask("live", "live", disc(0, 1056), seq=1, direction="a2b")
            assert "at most 1048576 pixels" in error.header["message"]
            error = await visitor.ask("live", "live", disc(0), seq=2, direction="c2d")
            assert "unknown direction 'c2d'" in error.header["message"]

    asyncio.run(visit())


def test_each_visitor_has_a_stream_of_his_own(running: Studio, retargeter: Retargeter) -> None:
    """One whose camera stands still is not moved by another's smoothed stream."""

    async def last(visitor: Page, places: list[float]) -> list[list[float]]:
        for seq, x in enumerate(places):
            answer = await visitor.ask("live", "live", disc(x), seq=seq, direction="a2b", smooth=0.5)
            await asyncio.sleep(0.01)
        keypoints: list[list[float]] = answer.header["keypoints"]
        return keypoints

    async def visit() -> None:
        async with page(running.address) as one, page(running.address) as other:
            still, moving = await asyncio.gather(last(one, [0.4] * 8), last(other, [-0.4, *[0.4] * 7]))
        raw, _ = retargeter.extract(read_jpeg(disc(0.4), 64, 128 * 128))
        assert np.abs(np.array(still) - raw).max() < 1e-5
        assert np.abs(np.array(moving) - raw).max() > 1e-3  # the filter still comes from where it started

    asyncio.run(visit())


def test_who_sends_faster_than_he_is_answered_builds_no_queue(running: Studio) -> None:
    async def visit() -> None:
        async with page(running.address) as visitor:
            for seq in range(60):
                await visitor.send("live", disc(0.1), seq=seq, direction="a2b")
            answers = [await visitor.hear("live", "dropped") for _ in range(60)]
        assert sorted(answer.header["seq"] for answer in answers) == list(range(60))
        drawn = [answer.header["seq"] for answer in answers if answer.kind == "live"]
        assert drawn == sorted(drawn)
        assert drawn[-1] == 59
        assert len(drawn) < 50

    asyncio.run(visit())


def test_a_killed_connection_frees_its_stream(bundle: Bundle, tmp_path: Path) -> None:
    async def visit() -> None:
        async with inside(bundle, tmp_path, Limits(absence_seconds=0)) as (visitors, address), page(address) as one:
            await one.ask("live", "live", disc(0.2), seq=0, direction="a2b", smooth=3)
            visitor = visitors.find(one.visitor)
            assert visitor is not None
            assert visitor.live is not None
            stream = weakref.ref(visitor.live)
            assert isinstance(visitor.live._smoothing, OneEuroFilter)
            await visitors.forget_absent(0)
            assert len(visitors) == 1  # who is here stays
            assert one.socket._response.connection is not None
            one.socket._response.connection.transport.abort()
            for _ in range(200):
                if visitor.live is None:
                    break
                await asyncio.sleep(0.05)
            assert visitor.live is None
            assert visitor.socket is None
            await asyncio.sleep(0.1)
            gc.collect()
            assert stream() is None
            await visitors.forget_absent(0)
            assert len(visitors) == 0
            assert list(tmp_path.iterdir()) == []

    asyncio.run(visit())


def test_two_pages_of_one_visitor_are_one(bundle: Bundle, tmp_path: Path) -> None:
    async def visit() -> None:
        folder = inside(bundle, tmp_path, Limits())
        async with folder as (visitors, address), page(address) as one, page(address, one.visitor) as other:
            await one.hear("looks")
            closed = await one.socket.receive(30)
            assert (closed.data, closed.extra) == (4002, "the studio is open in another tab")
            assert (await other.ask("live", "live", disc(0.2), seq=0, direction="a2b")).kind == "live"
            assert len(visitors) == 1

    asyncio.run(visit())


def test_the_command_says_where_the_page_is(tiny_bundle: Path) -> None:
    refused = CliRunner().invoke(main, ["studio", str(tiny_bundle), "--host", "192.0.2.7", "--port", "1"])
    assert_refused(refused, 2, "cannot listen on 192.0.2.7 port 1", "--host")
    refused = CliRunner().invoke(main, ["studio", str(tiny_bundle), "/no/clip.mp4"])
    assert_refused(refused, 1, "/no/clip.mp4", "there is no such file")
    refused = CliRunner().invoke(main, ["studio", "/no/bundle"])
    assert_refused(refused, 1, "no bundle here")


def test_the_command_answers_until_it_is_stopped(tiny_bundle: Path) -> None:
    started = command("studio", tiny_bundle, "--port", "0", "--json")
    with subprocess.Popen(started, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        told = json.loads(process.stdout.readline())
        assert sorted(told) == ["address", "engine", "precision"]
        with urllib.request.urlopen(told["address"], timeout=30) as answer:
            assert b"JOKR-RT studio" in answer.read()
        process.send_signal(signal.SIGINT)
        out, words = process.communicate(timeout=60)
    assert (process.returncode, out, words) == (0, "", "")


def test_the_studio_names_its_extra(tiny_bundle: Path) -> None:
    prelude = "import sys; sys.modules['aiohttp'] = None"
    done = jokr("studio", tiny_bundle, prelude=prelude)
    assert done.returncode == 1
    assert "jokr studio needs the extra studio" in done.stderr
    assert done.stderr.endswith("pip install 'jokr-rt[studio]'\n")
