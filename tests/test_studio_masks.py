"""What the studio's model sees of a creature before a background: learnt from a camera, or told for a clip."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from jokr_rt.cli import main
from jokr_rt.edits import Edits, Key, format_edits
from jokr_rt.live.masks import StaticBackground, masked
from jokr_rt.retarget import Retargeter
from jokr_rt.stream import find_tracks
from jokr_rt.studio.messages import Message
from jokr_rt.video import jpeg, open_masks, open_video, read_jpeg, with_masks
from tests import clips
from tests.process import assert_refused, jokr
from tests.studios import Page, Studio, disc, document, doubles, exported, fetch, page, studio

COUNT = 8
NOBODY = 9.0  # where a disc is out of the picture


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return clips.video(tmp_path_factory.mktemp("clip") / "walk.mp4", COUNT)


@pytest.fixture(scope="module")
def masks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """White on one half of the picture, and then on the other."""
    left = np.zeros((48, 64, 3), np.uint8)
    left[:, :32] = 255
    return clips.folder(tmp_path_factory.mktemp("masks") / "halves", [left, 255 - left] * (COUNT // 2))


@pytest.fixture(scope="module")
def running(tiny_bundle: Path, clip: Path, masks: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Studio]:
    with studio(tiny_bundle, tmp_path_factory.mktemp("studio") / "tmp", clip, masks) as it:
        yield it


async def film(visitor: Page, picture: bytes, background: float | None) -> Message:
    """A camera's frame, again and again while a background is learnt."""
    while True:
        answer = await visitor.ask("live", "live", picture, seq=1, direction="a2b", background=background)
        assert answer.kind == "live", answer.header
        if answer.header["mask"] != "learning":
            return answer
        assert (answer.header["names"], answer.parts) == ([], ())
        await asyncio.sleep(0.02)


def pictures(answer: Message) -> dict[str, bytes]:
    return dict(zip(answer.header["names"], answer.parts, strict=True))


def test_a_learnt_background_is_black_for_the_model(running: Studio, retargeter: Retargeter) -> None:
    mask = StaticBackground(learn_s=0)
    wall, creature = (read_jpeg(disc(x), 64, 128 * 128) for x in (NOBODY, 0.3))
    mask(wall, None, 0.0)
    seen = masked(mask, creature, None, 1.0)
    assert (seen[:8] == 0).all()
    assert (seen[32, 41] == creature[32, 41]).all()
    keypoints, _ = retargeter.extract(seen)
    unmasked, _ = retargeter.extract(creature)

    async def visit() -> None:
        async with page(running.address) as visitor:
            answer = await film(visitor, disc(NOBODY), 1)
            assert answer.header["mask"] == "learnt background"
            assert pictures(answer) == {"seen": jpeg(np.zeros_like(seen))}  # nobody is drawn where nobody is
            answer = await film(visitor, disc(0.3), 1)
            assert pictures(answer) == {"output": jpeg(retargeter.draw(keypoints)), "seen": jpeg(seen)}
            assert np.abs(np.array(answer.header["keypoints"]) - keypoints).max() < 1e-5
            assert list(answer.header["ms"]) == ["wait", "decode", "masking", "extract", "draw", "encode"]
            answer = await film(visitor, disc(0.3), 2)  # learnt anew: now he stands in the picture
            assert pictures(answer)["seen"] == jpeg(np.zeros_like(seen))
            answer = await film(visitor, disc(0.3), None)
            assert (answer.header["mask"], answer.header["names"]) == ("none", ["output"])
            assert np.abs(np.array(answer.header["keypoints"]) - unmasked).max() < 1e-5

    asyncio.run(visit())
    assert np.abs(unmasked - keypoints).max() > 1e-3


def test_each_visitor_learns_a_background_of_his_own(running: Studio) -> None:
    async def visit() -> None:
        async with page(running.address) as one, page(running.address) as other:
            await asyncio.gather(film(one, disc(NOBODY), 1), film(other, disc(0.3), 1))
            found = [pictures(await film(visitor, disc(0.3), 1))["seen"] for visitor in (one, other)]
        assert [int(read_jpeg(seen, 64, 64 * 64).max() > 100) for seen in found] == [1, 0]

    asyncio.run(visit())


def test_a_background_that_cannot_be_meant_is_refused(running: Studio) -> None:
    async def visit() -> None:
        async with page(running.address) as visitor:
            error = await visitor.ask("live", "live", disc(0), seq=1, direction="a2b", background="yes")
            assert error.header == {"about": "live", "seq": 1, "message": "background must be a number"}

    asyncio.run(visit())


def test_a_clip_is_seen_through_its_masks(running: Studio, retargeter: Retargeter, clip: Path, masks: Path) -> None:
    expected = find_tracks(retargeter, clip, masks=masks)
    with open_video(clip, size=64) as source, open_masks(masks, size=64) as mattes:
        seen = [jpeg(retargeter.source(*pair).rgb) for pair in with_masks(source, mattes)]

    async def visit() -> None:
        async with page(running.address) as visitor:
            message = await visitor.hear("clip")
            assert message.header["mask"] == "halves"
            assert doubles(message.parts[1], COUNT, -1, 2).tolist() == expected.keypoints.astype(float).tolist()
            for index in range(COUNT):
                wanted = {"edits": document(Edits()), "index": index, "direction": "a2b", "seq": index}
                answer = await visitor.ask("draw", "drawn", **wanted)
                assert pictures(answer)["source"] == seen[index]

    asyncio.run(visit())


def test_an_export_is_the_file_of_the_command_line_with_masks(
    running: Studio, tiny_bundle: Path, clip: Path, masks: Path, tmp_path: Path
) -> None:
    edits = Edits(exaggerate=1.5).with_key(0, Key(0.2, 0.5, 0.25))

    async def visit() -> bytes:
        async with page(running.address) as visitor:
            await visitor.hear("clip")
            await visitor.send("export", edits=document(edits), direction="a2b")
            assert (await exported(visitor)).header["state"] == "done"
            return (await fetch(running, visitor))[1]

    (tmp_path / "edits.json").write_text(format_edits(edits))
    plain = [str(tiny_bundle), str(clip), "--edits", str(tmp_path / "edits.json"), "--engine", "openvino"]
    plain += ["--precision", "fp32"]
    for name, options in (("masked", ["--masks", str(masks)]), ("plain", [])):
        done = CliRunner().invoke(main, ["run", *plain, *options, "-o", str(tmp_path / f"{name}.mp4")])
        assert done.exit_code == 0, done.output
    data = asyncio.run(visit())
    assert data == (tmp_path / "masked.mp4").read_bytes()
    assert data != (tmp_path / "plain.mp4").read_bytes()


def test_masks_without_their_clip_are_refused(tiny_bundle: Path, clip: Path, masks: Path, tmp_path: Path) -> None:
    refused = CliRunner().invoke(main, ["studio", str(tiny_bundle), "--masks", str(masks)])
    assert_refused(refused, 2, "--masks", "CLIP")
    refused = CliRunner().invoke(main, ["studio", str(tiny_bundle), str(clip), "--masks", str(tmp_path / "none")])
    assert_refused(refused, 1, "none", "there is no such file")
    fewer = clips.folder(tmp_path / "fewer", [np.zeros((48, 64, 3), np.uint8)] * 3)
    ended = jokr("studio", tiny_bundle, clip, "--masks", fewer, "--port", "0")
    assert ended.returncode == 1
    last = ended.stderr.splitlines()[-1]
    assert last == f"jokr: error: {fewer}: 3 masks for the {COUNT} frames of {clip}; each needs one"
