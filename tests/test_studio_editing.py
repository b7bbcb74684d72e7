"""What the studio answers of a clip, without a browser: edits, exports, uploads."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from numpy.typing import NDArray

from jokr_rt.cli import main
from jokr_rt.edits import Edits, Key, format_edits, parse_edits
from jokr_rt.retarget import Retargeter
from jokr_rt.studio.messages import Message
from jokr_rt.video import read_video
from tests import clips
from tests.studios import Page, Studio, document, doubles, exported, fetch, page, studio

COUNT = 12


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pictures = (clips.picture(64, 64, shade) for shade in np.linspace(0, 255, COUNT).astype(int))
    return clips.video(tmp_path_factory.mktemp("clip") / "walk.mp4", COUNT, pictures=pictures, audio="aac")


@pytest.fixture(scope="module")
def running(tiny_bundle: Path, clip: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Studio]:
    with studio(tiny_bundle, tmp_path_factory.mktemp("studio") / "tmp", clip) as it:
        yield it


async def opened(visitor: Page) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Times and keypoints of the clip that the studio was started with."""
    message = await visitor.hear("clip")
    assert (message.header["name"], message.header["frames"]) == ("walk.mp4", COUNT)
    return doubles(message.parts[0], COUNT), doubles(message.parts[1], COUNT, -1, 2)


async def draw(visitor: Page, edits: Edits, index: int, **header: object) -> Message:
    wanted = {"edits": document(edits), "index": index, "direction": "a2b", "seq": 1, **header}
    answer = await visitor.ask("draw", "drawn", **wanted)
    assert answer.kind == "drawn", answer.header
    return answer


def test_a_key_pose_moves_the_keypoint_there_and_fades(running: Studio) -> None:
    async def visit() -> None:
        async with page(running.address) as visitor:
            times, found = await opened(visitor)
            before = [(await draw(visitor, Edits(), index)).parts[0] for index in range(COUNT)]
            edits = Edits().with_key(1, Key(float(times[6]), 0.9, -0.8))
            edits = parse_edits(format_edits(edits).replace('"fade": 0.5', '"fade": 0.25'))
            answers = [await draw(visitor, edits, index) for index in range(COUNT)]
        assert answers[6].header["keypoints"][1] == [0.9, -0.8]
        moved = [index for index, answer in enumerate(answers) if answer.parts[0] != before[index]]
        assert moved == [4, 5, 6, 7, 8]  # 0.25 s on each side, at 10 frames a second
        others = np.delete(np.array([answer.header["keypoints"] for answer in answers]), 1, axis=1)
        assert np.abs(others - np.delete(found, 1, axis=1)).max() < 1e-6

    asyncio.run(visit())


def test_a_slower_clip_has_more_frames_beside_the_same_source(running: Studio) -> None:
    async def visit() -> None:
        async with page(running.address) as visitor:
            times, found = await opened(visitor)
            answer = await draw(visitor, Edits(speed=0.5), 6, track=True)
        named = dict(zip(answer.header["names"], answer.parts, strict=True))
        count = 2 * (COUNT - 1) + 1
        seconds = doubles(named["seconds"], count)
        assert np.abs(seconds - (times[0] + np.arange(count) * 0.05 * 2)).max() < 1e-4
        track = doubles(named["track"], count, -1, 2)
        assert np.abs(track[::2] - found).max() < 1e-6
        assert doubles(named["sources"], count)[::2].tolist() == list(range(COUNT))
        assert answer.header["source"] == 3

    asyncio.run(visit())


def test_edits_that_cannot_be_meant_are_refused_and_change_nothing(running: Studio) -> None:
    async def visit() -> None:
        async with page(running.address) as visitor:
            await opened(visitor)
            before = await draw(visitor, Edits(exaggerate=2), 3)
            for edits, words in (
                ({"jokr_edits": 2}, "version 2"),
                ({"jokr_edits": 1, "speed": 1e9}, "speed"),
                (None, "not"),
            ):
                wanted = {"edits": edits, "index": 3, "direction": "a2b", "seq": 7}
                error = await visitor.ask("draw", "drawn", **wanted)
                assert error.kind == "error"
                assert words in error.header["message"]
            edits = Edits().with_key(60, Key(0, 0, 0))
            error = await visitor.ask("draw", "drawn", edits=document(edits), index=3, direction="a2b", seq=8)
            assert "keypoint 60" in error.header["message"]
        async with page(running.address, visitor.visitor) as again:  # the page, loaded again
            message = await again.hear("clip")
            assert parse_edits(format_edits(Edits(exaggerate=2))) == Edits(
                exaggerate=message.header["edits"]["exaggerate"]
            )
            after = await draw(again, Edits(exaggerate=2), 3)
            assert after.parts == before.parts

    asyncio.run(visit())


@pytest.mark.parametrize("speed", [1.0, 0.5])
def test_an_export_is_the_file_of_the_command_line(
    running: Studio, tiny_bundle: Path, clip: Path, tmp_path: Path, speed: float
) -> None:
    async def visit() -> tuple[Edits, bytes]:
        async with page(running.address) as visitor:
            times, _ = await opened(visitor)
            edits = Edits(exaggerate=1.5, mirror=True, speed=speed).with_key(0, Key(float(times[4]), 0.5, 0.25))
            await visitor.send("export", edits=document(edits), direction="b2a")
        async with page(running.address, visitor.visitor) as again:  # the page was loaded again meanwhile
            done = await exported(again)
            assert done.header["state"] == "done", done.header
            assert done.header["name"] == "walk-edited.mp4"
            assert done.header["message"] == ("" if speed == 1 else "without its sound, as the speed is not the clip's")
            status, data = await fetch(running, again)
            assert status == 200
            return edits, data

    edits, data = asyncio.run(visit())
    (tmp_path / "page.mp4").write_bytes(data)
    (tmp_path / "edits.json").write_text(format_edits(edits))
    options = [
        "--edits",
        str(tmp_path / "edits.json"),
        "--direction",
        "b2a",
        "--engine",
        "openvino",
        "--precision",
        "fp32",
    ]
    done = CliRunner().invoke(main, ["run", str(tiny_bundle), str(clip), "-o", str(tmp_path / "cli.mp4"), *options])
    assert done.exit_code == 0, done.output
    assert (tmp_path / "cli.mp4").read_bytes() == data
    frames = list(read_video(tmp_path / "page.mp4"))
    assert len(frames) == (COUNT if speed == 1 else 2 * COUNT - 1)


def test_an_export_can_be_cancelled_and_leaves_nothing(running: Studio) -> None:
    async def visit() -> None:
        async with page(running.address) as visitor:
            await opened(visitor)
            assert (await fetch(running, visitor))[0] == 404
            await visitor.send("export", edits=document(Edits(speed=0.0625)), direction="a2b")
            await visitor.send("export", edits=document(Edits()), direction="a2b")
            error = await visitor.hear("error")
            assert error.header == {"about": "export", "message": "an export is running already; cancel it first"}
            await visitor.send("cancel")
            assert (await exported(visitor)).header["state"] == "cancelled"
            assert (await fetch(running, visitor))[0] == 404
            assert running.files(visitor.visitor) == []
            await visitor.send("export", edits=document(Edits()), direction="a2b")  # and another one may begin
            assert (await exported(visitor)).header["state"] == "done"

    asyncio.run(visit())


def test_an_uploaded_clip_is_read_as_the_library_reads_it(
    running: Studio, retargeter: Retargeter, tmp_path: Path
) -> None:
    path = clips.video(tmp_path / "mine.mp4", 5)
    expected = [retargeter.extract(frame.rgb)[0] for frame in read_video(path, size=64)]

    async def visit() -> None:
        async with page(running.address) as visitor:
            await opened(visitor)
            target = f"{running.address}visitors/{visitor.visitor}/clip?name=mine.mp4"
            headers = {"Origin": running.address.rstrip("/")}
            async with visitor.session.put(target, data=path.read_bytes(), headers=headers) as answer:
                assert answer.status == 200
            message = await visitor.hear("clip", "error")
            assert (message.header["name"], message.header["frames"]) == ("mine.mp4", 5)
            assert doubles(message.parts[1], 5, -1, 2).tolist() == np.stack(expected).astype(float).tolist()

    asyncio.run(visit())
