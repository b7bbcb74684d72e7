"""The studio's page, driven in a real browser: a clip and its edits."""

from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from numpy.typing import NDArray
from playwright.sync_api import Browser, Page

from jokr_rt import open_bundle, read_video
from jokr_rt.cli import main
from jokr_rt.edits import Edits, apply
from jokr_rt.keypoints import keypoint_colours
from jokr_rt.retarget import Retargeter
from jokr_rt.studio.worker import Worker
from jokr_rt.video import read_jpeg
from tests import clips
from tests.browsers import (
    FRAMES,
    HEAD,
    JPEG,
    SIZE,
    Pixels,
    assert_near,
    choose,
    lift_head,
    opened,
    pixels,
    save,
    seek,
    settle,
)
from tests.studios import PUPPETS, Studio, studio

pytest_plugins = ["tests.page_fixtures"]


def outputs(page: Page) -> list[Pixels]:
    found = []
    for index in range(FRAMES):
        seek(page, index)
        found.append(pixels(page, "edit-output"))
    return found


def test_dragging_a_keypoint_changes_the_output_there_and_only_there(page: Page, puppeteer: Retargeter) -> None:
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
    near = near_head(puppeteer, page)
    assert difference[near].mean() > 20 * difference[~near].mean()
    assert difference[~near].mean() < 12  # the neck follows a little: 4 levels of each colour on average


def near_head(puppeteer: Retargeter, page: Page) -> NDArray[np.bool_]:
    """(SIZE, SIZE): where the heatmap of the head is, as found and as dragged."""
    frame = np.asarray(pixels(page, "edit-output"))
    assert frame.shape == (SIZE, SIZE, 3)
    x, y = choose(page, HEAD)
    near = np.zeros((SIZE, SIZE), bool)
    for place in ((x, y), (x, y + 0.3)):
        pose = np.zeros((1, puppeteer.config.keypoints, 2), np.float32)
        pose[0, HEAD] = place
        heatmap = puppeteer.engine.run("stn-a2b", {"keypoints": pose})["warped"][0, HEAD]
        near |= heatmap.repeat(2, axis=0).repeat(2, axis=1) > 0.01
    return near


def test_what_is_shown_is_what_the_library_draws(page: Page, puppeteer: Retargeter, walk: Path, tmp_path: Path) -> None:
    x, y = lift_head(page, 6)
    keypoints, _ = puppeteer.extract(list(read_video(walk, size=SIZE))[6].rgb)
    pose = keypoints.copy()
    edits = save(page, tmp_path / "edits.json")
    (key,) = edits["keypoints"][0]["keys"]  # type: ignore[index]
    assert abs(key["x"] - x) < 1e-3
    assert abs(key["y"] - y) < 1e-3
    pose[HEAD] = key["x"], key["y"]
    assert_near(pixels(page, "edit-output"), puppeteer.draw(pose))


def test_the_export_is_the_command_lines_file_also_after_a_reload(page: Page, walk: Path, tmp_path: Path) -> None:
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
    done = CliRunner().invoke(main, ["run", str(PUPPETS), str(walk), "-o", str(tmp_path / "cli.mp4"), *options])
    assert done.exit_code == 0, done.output
    assert (tmp_path / "page.mp4").read_bytes() == (tmp_path / "cli.mp4").read_bytes()


def test_mirrored_motion_is_the_librarys(page: Page, puppeteer: Retargeter, walk: Path) -> None:
    frames = list(read_video(walk, size=SIZE))
    found = np.stack([puppeteer.extract(frame.rgb)[0] for frame in frames])
    times, mirrored = apply(Edits(mirror=True), [frame.pts_seconds for frame in frames], found)
    assert np.abs(mirrored - found).max() > 0.2
    page.check("#mirror")
    settle(page)
    for index in (3, 17):
        seek(page, index)
        assert_near(pixels(page, "edit-output"), puppeteer.draw(mirrored[index]))
        for keypoint, place in enumerate(mirrored[index]):
            assert np.abs(np.array(choose(page, keypoint)) - place).max() < 6e-4  # three digits
    seek(page, 0)
    choose(page, HEAD)
    assert on_curves(page, times, mirrored) == [1, 1]
    assert on_curves(page, times, found)[0] < 0.5


def on_curves(page: Page, times: NDArray[np.float64], track: NDArray[np.float32]) -> list[float]:
    """Of the head's x and of its y in a track, the share through which its curve goes; at the left is writing."""
    shown = pixels(page, "curves").astype(int)
    height, width = shown.shape[:2]
    across = ((times - times[0]) / (times[-1] - times[0]) * width).astype(int)
    low, high = track.min(axis=(0, 1)), track.max(axis=(0, 1))
    share = (track[:, HEAD] - low) / (high - low) * (-1, 1) + (1, 0)  # right is up, and down is down
    down = ((0.08 + 0.84 * share + (0, 1)) * height / 2).astype(int)
    ink = keypoint_colours(track.shape[1])[HEAD]
    hits = []
    for x, ys in list(zip(across, down, strict=True))[3:-1]:
        around = [shown[y - 1 : y + 2, x - 1 : x + 2] for y in ys]
        hits.append([np.abs(pixel - ink).max(axis=2).min() < JPEG for pixel in around])
    shares: list[float] = np.mean(hits, axis=0).tolist()
    return shares


def test_heatmaps_lie_over_the_output_which_stays_clean(
    page: Page, puppeteer: Retargeter, walk: Path, tmp_path: Path
) -> None:
    keypoints, _ = puppeteer.extract(list(read_video(walk, size=SIZE))[6].rgb)
    worker = Worker(open_bundle(PUPPETS), puppeteer.engine)
    expected = worker.heatmaps("a2b", keypoints)
    worker.close()
    seek(page, 6)
    clean = pixels(page, "edit-output")
    assert page.is_hidden("#edit-heatmaps")
    page.check("#edit-with-heatmaps")
    page.wait_for_selector("#edit-heatmaps:not([hidden])")
    settle(page)
    laid = pixels(page, "edit-heatmaps")
    assert_near(laid, expected)
    assert (pixels(page, "edit-output") == clean).all()
    output = page.locator("#edit-output")
    assert page.locator("#edit-heatmaps").bounding_box() == output.bounding_box()
    shown = read_jpeg(output.screenshot(type="jpeg", quality=95), SIZE, 1 << 22).astype(int)
    screened = 255 - (255 - clean.astype(int) // 2) * (255 - laid.astype(int)) // 255  # before the output, dimmed
    inside = slice(4, -4)  # of the round corners
    assert np.abs(shown - screened)[inside, inside].mean() < 4
    assert np.abs(shown - clean)[laid.max(axis=2) > 128].mean() > 30
    x, y = output.evaluate("canvas => Object.values(canvas.getBoundingClientRect().toJSON())")[:2]
    assert page.evaluate(f"() => document.elementFromPoint({x + 9}, {y + 9}).id") == "edit-output"
    with page.expect_download() as download:
        page.click("#edit-snapshot")
    download.value.save_as(tmp_path / "snapshot.png")
    (snapshot,) = read_video(tmp_path / "snapshot.png")
    assert (snapshot.rgb == clean).all()
    page.uncheck("#edit-with-heatmaps")
    assert page.is_hidden("#edit-heatmaps")


def test_a_second_visitor_is_independent(page: Page, browser: Browser, walking: Studio) -> None:
    seek(page, 12)
    before = pixels(page, "edit-output")
    with opened(browser, walking.address, viewport={"width": 1280, "height": 1000}) as other:
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


def test_a_clip_is_dropped_in_and_a_large_one_refused(browser: Browser, walking: Studio, tmp_path: Path) -> None:
    with opened(browser, walking.address) as page:
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
    with studio(PUPPETS, tmp_path / "tmp") as running, opened(browser, running.address) as page:
        page.wait_for_selector("#live-start:not([disabled])")
        assert "Start camera" in page.inner_text("#live-empty")
        page.click("#tab-edit")
        assert "Drop a video here" in page.inner_text("#edit-empty")
        assert not page.is_visible("#edit-work")
        page.focus("#tab-edit")
        page.keyboard.press("ArrowLeft")
        assert page.is_visible("#live-empty")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_phone_has_room_for_it(browser: Browser, walking: Studio, scheme: str) -> None:
    context = {"viewport": {"width": 360, "height": 740}, "color_scheme": scheme}
    with opened(browser, walking.address, **context) as page:
        settle(page)
        for tab in ("live", "edit"):
            page.click(f"#tab-{tab}")
            assert page.evaluate("() => document.documentElement.scrollWidth") == 360
        background = page.evaluate("() => getComputedStyle(document.documentElement).colorScheme")
        assert background == "light dark"
        dark = page.evaluate("() => getComputedStyle(document.body).color")
        assert (dark == "rgb(255, 255, 255)") == (scheme == "dark")


def test_sliders_say_their_value_with_its_unit(page: Page) -> None:
    def said() -> list[str | None]:
        return [page.get_attribute(f"#{slider}", "aria-valuetext") for slider in ("exaggerate", "smooth", "speed")]

    assert said() == ["1 times", "none", "1 times"]
    page.fill("#exaggerate", "1.3")
    page.fill("#smooth", "5")
    page.focus("#speed")
    page.keyboard.press("ArrowLeft")
    settle(page)
    assert said() == ["1.3 times", "3 hertz", "0.75 times"]
    assert (page.get_attribute("#position", "aria-valuetext") or "").endswith("s, frame 1 of 32")
    page.click("#undo")
    settle(page)
    assert said() == ["1.3 times", "3 hertz", "1 times"]


@pytest.mark.parametrize("width", [320, 1280])
def test_what_a_finger_is_to_hit_is_24_pixels_each_way(browser: Browser, walking: Studio, width: int) -> None:
    with opened(browser, walking.address, viewport={"width": width, "height": 740}) as page:
        settle(page)
        for tab in ("live", "edit"):
            page.click(f"#tab-{tab}")
            sizes = page.eval_on_selector_all(
                "button, select, input:not([type=file]), [role=application], #curves",
                "all => all.filter((it) => it.checkVisibility()).map((it) => [it.id, it.offsetWidth, it.offsetHeight])",
            )
            assert len(sizes) > 8
            assert [name for name, wide, high in sizes if min(wide, high) < 24] == []
        page.locator("#edit-frame").scroll_into_view_if_needed()
        box = page.locator("#edit-frame").bounding_box()
        assert box is not None
        places = [choose(page, keypoint) for keypoint in range(HEAD + 2)]
        at = (np.array(places) + 1) / 2 * box["width"]
        beside = at[:, None] + [(11, 0), (-11, 0), (0, 11), (0, -11)]  # pixels
        distances = np.linalg.norm(beside[:, :, None] - at, axis=-1)
        alone, side = np.unravel_index((np.sort(distances, axis=2)[..., 1] - 11).argmax(), beside.shape[:2])
        assert distances[alone, side].argmin() == alone
        choose(page, (int(alone) + 1) % len(at))
        x, y = beside[alone, side]
        page.mouse.click(box["x"] + x, box["y"] + y)
        assert page.input_value("#keypoint") == str(alone)
