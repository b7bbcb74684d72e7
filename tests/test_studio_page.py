"""The studio's page, driven in a real browser: a clip and its edits."""

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from numpy.typing import NDArray
from playwright.sync_api import Browser, Page

from jokr_rt import open_bundle, read_video
from jokr_rt.cli import main
from jokr_rt.engines import load_engine
from jokr_rt.evaluation.puppets import BROWN, Motion, write_video
from jokr_rt.retarget import Retargeter
from jokr_rt.video import jpeg, read_jpeg
from tests import clips
from tests.browsers import Pixels, chromium, drag, opened, pixels, settle
from tests.process import ROOT
from tests.studios import Studio, studio

BUNDLE = ROOT / "examples" / "puppets.jokr"
FRAMES, SIZE = 24, 128
HEAD = 18  # the keypoint on the puppet's head
JPEG = 12  # levels: between a browser's decoder and FFmpeg's


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("clip") / "walk.mp4"
    write_video(path, BROWN, Motion.walk(FRAMES, seed=5), SIZE)
    return path


@pytest.fixture(scope="module")
def retargeter() -> Retargeter:
    bundle = open_bundle(BUNDLE)
    return Retargeter(bundle, "a2b", load_engine("openvino", bundle, "fp32"))


@pytest.fixture(scope="module")
def running(clip: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Studio]:
    with studio(BUNDLE, tmp_path_factory.mktemp("studio") / "tmp", clip, upload_bytes=1 << 20) as it:
        yield it


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as it:
        yield it


@pytest.fixture
def page(browser: Browser, running: Studio) -> Iterator[Page]:
    with opened(browser, running.address, viewport={"width": 1280, "height": 1000}) as it:
        settle(it)
        yield it


def seek(page: Page, index: int) -> None:
    page.fill("#position", str(index))
    settle(page)
    assert page.get_attribute("#edit-output", "data-index") == str(index)


def choose(page: Page, keypoint: int) -> tuple[float, float]:
    page.select_option("#keypoint", str(keypoint))
    return float(page.input_value("#x")), float(page.input_value("#y"))


def lift_head(page: Page, index: int = 12) -> tuple[float, float]:
    """Drag the head up, at a frame; returns where to."""
    seek(page, index)
    x, y = choose(page, HEAD)
    drag(page, "edit-frame", (x, y), (x, y - 0.3))
    settle(page)
    return choose(page, HEAD)


def outputs(page: Page) -> list[Pixels]:
    found = []
    for index in range(FRAMES):
        seek(page, index)
        found.append(pixels(page, "edit-output"))
    return found


def save(page: Page, path: Path) -> dict[str, object]:
    with page.expect_download() as download:
        page.click("#save")
    assert download.value.suggested_filename == "walk-edits.json"
    download.value.save_as(path)
    values: dict[str, object] = json.loads(path.read_text())
    return values


def assert_near(found: Pixels, expected: Pixels) -> None:
    """As far as JPEG lets tell."""
    difference = np.abs(found.astype(int) - read_jpeg(jpeg(expected), SIZE, SIZE * SIZE))
    assert difference.mean() < 1
    assert np.percentile(difference, 99) <= JPEG


def test_dragging_a_keypoint_changes_the_output_there_and_only_there(page: Page, retargeter: Retargeter) -> None:
    before = outputs(page)
    x, y = lift_head(page)
    document = page.evaluate("() => document.querySelector('#edit-output').dataset.index")
    assert document == "12"
    after = outputs(page)
    # In time: within the fade of 0.5 s, 5 frames, on each side; beyond it, the same to the pixel.
    changed = [index for index in range(FRAMES) if (after[index] != before[index]).any()]
    assert changed == list(range(8, 17))
    # In space: where the heatmaps of the moved keypoint are, and were.
    seek(page, 12)
    assert choose(page, HEAD) == (x, y)
    assert "key pose here" in page.inner_text("#confidence")
    difference = np.abs(after[12].astype(int) - before[12]).sum(axis=2)
    near = near_head(retargeter, page)
    assert difference[near].mean() > 20 * difference[~near].mean()
    assert difference[~near].mean() < 12  # the neck follows a little: 4 levels of each colour on average


def near_head(retargeter: Retargeter, page: Page) -> NDArray[np.bool_]:
    """(SIZE, SIZE): where the heatmap of the head is, as found and as dragged."""
    frame = np.asarray(pixels(page, "edit-output"))
    assert frame.shape == (SIZE, SIZE, 3)
    x, y = choose(page, HEAD)
    near = np.zeros((SIZE, SIZE), bool)
    for place in ((x, y), (x, y + 0.3)):
        pose = np.zeros((1, retargeter.config.keypoints, 2), np.float32)
        pose[0, HEAD] = place
        heatmap = retargeter.engine.run("stn-a2b", {"keypoints": pose})["warped"][0, HEAD]
        near |= heatmap.repeat(2, axis=0).repeat(2, axis=1) > 0.01
    return near


def test_what_is_shown_is_what_the_library_draws(
    page: Page, retargeter: Retargeter, clip: Path, tmp_path: Path
) -> None:
    x, y = lift_head(page, 6)
    keypoints, _ = retargeter.extract(list(read_video(clip, size=SIZE))[6].rgb)
    pose = keypoints.copy()
    edits = save(page, tmp_path / "edits.json")
    (key,) = edits["keypoints"][0]["keys"]  # type: ignore[index]
    assert abs(key["x"] - x) < 1e-3
    assert abs(key["y"] - y) < 1e-3
    pose[HEAD] = key["x"], key["y"]
    assert_near(pixels(page, "edit-output"), retargeter.draw(pose))


def test_undo_brings_the_exact_frame_back_and_redo_the_other(page: Page) -> None:
    seek(page, 12)
    before = pixels(page, "edit-output")
    lift_head(page)
    after = pixels(page, "edit-output")
    assert (after != before).any()
    assert page.is_enabled("#undo")
    page.keyboard.press("Control+z")
    settle(page)
    assert (pixels(page, "edit-output") == before).all()
    assert page.is_disabled("#undo")
    page.click("#redo")
    settle(page)
    assert (pixels(page, "edit-output") == after).all()


def test_edits_are_saved_kept_over_a_reload_and_loaded(page: Page, tmp_path: Path) -> None:
    lift_head(page)
    page.check("#mirror")
    page.select_option("#interpolation", "linear")
    settle(page)
    saved = save(page, tmp_path / "edits.json")
    assert (saved["mirror"], saved["keypoints"][0]["interpolation"]) == (True, "linear")  # type: ignore[index]
    shown = pixels(page, "edit-output")
    page.reload()
    settle(page)
    seek(page, 12)
    assert (pixels(page, "edit-output") == shown).all()  # the studio remembers
    page.click("#reset")
    settle(page)
    assert (pixels(page, "edit-output") != shown).any()
    page.set_input_files("#edits-file", tmp_path / "edits.json")
    page.wait_for_function("() => document.getElementById('mirror').checked")
    settle(page)
    assert (pixels(page, "edit-output") == shown).all()
    assert save(page, tmp_path / "again.json") == saved


def test_a_file_that_is_no_edits_is_refused_where_it_was_loaded(page: Page, tmp_path: Path) -> None:
    lift_head(page)
    before = save(page, tmp_path / "edits.json")
    for text, words in (("{}", "jokr_edits"), ('{"jokr_edits": 1, "speed": 99}', "speed must be"), ("x", "no JSON")):
        (tmp_path / "bad.json").write_text(text)
        page.set_input_files("#edits-file", tmp_path / "bad.json")
        page.wait_for_function(
            f"() => document.getElementById('edits-error').textContent.includes({json.dumps(words)})"
        )
        settle(page)
        assert save(page, tmp_path / "after.json") == before


def test_the_export_is_the_command_lines_file_also_after_a_reload(page: Page, clip: Path, tmp_path: Path) -> None:
    lift_head(page)
    save(page, tmp_path / "edits.json")
    page.click("#export")
    page.reload()
    settle(page)
    page.wait_for_selector("#export-state a")
    with page.expect_download() as download:
        page.click("#export-state a")
    assert download.value.suggested_filename == "walk-edited.mp4"
    download.value.save_as(tmp_path / "page.mp4")
    options = ["--edits", str(tmp_path / "edits.json"), "--engine", "openvino", "--precision", "fp32"]
    done = CliRunner().invoke(main, ["run", str(BUNDLE), str(clip), "-o", str(tmp_path / "cli.mp4"), *options])
    assert done.exit_code == 0, done.output
    assert (tmp_path / "page.mp4").read_bytes() == (tmp_path / "cli.mp4").read_bytes()


def test_a_second_visitor_is_independent(page: Page, browser: Browser, running: Studio) -> None:
    seek(page, 12)
    before = pixels(page, "edit-output")
    with opened(browser, running.address, viewport={"width": 1280, "height": 1000}) as other:
        settle(other)
        lift_head(other)
        assert (pixels(other, "edit-output") != before).any()
        seek(page, 11)
        seek(page, 12)
        assert (pixels(page, "edit-output") == before).all()
        page.select_option("#edit-direction", "b2a")
        settle(page)
        assert page.inner_text("#edit-to") == "brown"
        assert other.inner_text("#edit-to") == "blue"


def test_the_keyboard_does_it_all(page: Page, tmp_path: Path) -> None:
    page.focus("#edit-frame")
    page.keyboard.press("]")
    assert page.input_value("#keypoint") == "1"
    x, y = choose(page, 1)
    page.focus("#edit-frame")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Shift+ArrowUp")
    settle(page)
    assert np.abs(np.array(choose(page, 1)) - (x + 0.01, y - 0.1)).max() < 2e-3
    page.evaluate("() => document.activeElement.blur()")
    page.keyboard.press("ArrowRight")
    settle(page)
    assert page.get_attribute("#edit-output", "data-index") == "1"
    page.keyboard.press("ArrowLeft")
    settle(page)
    page.keyboard.press("Delete")
    settle(page)
    assert save(page, tmp_path / "edits.json")["keypoints"] == []
    page.evaluate("() => document.activeElement.blur()")
    page.keyboard.press(" ")
    page.wait_for_function("() => Number(document.getElementById('position').value) > 3")
    page.keyboard.press(" ")
    assert page.inner_text("#play") == "Play"


def test_a_clip_is_dropped_in_and_a_large_one_refused(browser: Browser, running: Studio, tmp_path: Path) -> None:
    with opened(browser, running.address) as page:
        settle(page)
        (tmp_path / "large.mp4").write_bytes(bytes((1 << 20) + 1))
        page.set_input_files("#edit-file", tmp_path / "large.mp4")
        page.wait_for_selector("#edit-error:not([hidden])")
        assert "1 are allowed" in page.inner_text("#edit-error")
        (tmp_path / "broken.mp4").write_bytes(b"no video")
        page.set_input_files("#edit-file", tmp_path / "broken.mp4")
        page.wait_for_function("() => document.getElementById('edit-error').textContent.includes('not a video')")
        assert "broken.mp4" in page.inner_text("#edit-error")
        page.set_input_files("#edit-file", clips.video(tmp_path / "mine.mp4", 7))
        page.wait_for_function("() => document.getElementById('edit-from').textContent === 'mine.mp4'")
        settle(page)
        assert "of 7" in page.inner_text("#time")


def test_without_a_clip_the_page_says_what_to_do(browser: Browser, tmp_path: Path) -> None:
    with studio(BUNDLE, tmp_path / "tmp") as running, opened(browser, running.address) as page:
        page.wait_for_selector("#live-start:not([disabled])")
        assert "Start camera" in page.inner_text("#live-empty")
        page.click("#tab-edit")
        assert "Drop a video here" in page.inner_text("#edit-empty")
        assert not page.is_visible("#edit-work")
        page.focus("#tab-edit")
        page.keyboard.press("ArrowLeft")
        assert page.is_visible("#live-empty")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_phone_has_room_for_it(browser: Browser, running: Studio, scheme: str) -> None:
    context = {"viewport": {"width": 360, "height": 740}, "color_scheme": scheme}
    with opened(browser, running.address, **context) as page:
        settle(page)
        for tab in ("live", "edit"):
            page.click(f"#tab-{tab}")
            assert page.evaluate("() => document.documentElement.scrollWidth") == 360
        background = page.evaluate("() => getComputedStyle(document.documentElement).colorScheme")
        assert background == "light dark"
        dark = page.evaluate("() => getComputedStyle(document.body).color")
        assert (dark == "rgb(255, 255, 255)") == (scheme == "dark")
