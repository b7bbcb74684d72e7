"""The studio's page, driven in a real browser: the camera."""

from pathlib import Path

import numpy as np
from playwright.sync_api import Browser, Page

from jokr_rt import read_video
from jokr_rt.evaluation.puppets import BROWN, Motion, joints, render
from jokr_rt.live.masks import StaticBackground, masked
from jokr_rt.retarget import Retargeter
from jokr_rt.video import jpeg
from tests.browsers import JPEG, SIZE, Pixels, opened, pixels
from tests.studios import Studio

pytest_plugins = ["tests.page_fixtures"]


CAMERA = """
const camera = document.createElement("canvas");
camera.width = camera.height = 128;
navigator.mediaDevices.getUserMedia = async () => camera.captureStream(30);
window.film = async (bytes) => {
  const picture = await createImageBitmap(new Blob([new Uint8Array(bytes)]));
  clearInterval(window.filming);
  window.filming = setInterval(() => camera.getContext("2d").drawImage(picture, 0, 0), 15);
};
"""


def test_the_cameras_creature_is_drawn_as_the_other_one(
    browser: Browser, walking: Studio, puppeteer: Retargeter, walk: Path
) -> None:
    frames = [frame.rgb for frame in read_video(walk)]
    with opened(browser, walking.address, CAMERA) as page:
        page.click("#tab-live")
        page.uncheck("#live-mirror")
        page.uncheck("#live-points")
        for index in (2, 14):
            page.evaluate("bytes => film(bytes)", list(jpeg(frames[index])))
            if index == 2:
                page.click("#live-start")
            page.wait_for_function("() => document.querySelector('[data-figure=\"round trip\"]')")
            other = puppeteer.draw(puppeteer.extract(frames[16 - index])[0])
            expected = puppeteer.draw(puppeteer.extract(frames[index])[0])
            for _ in range(100):  # until the picture has gone round
                page.wait_for_timeout(50)
                shown = pixels(page, "live-source")[::4, ::4].astype(int)
                if np.abs(shown - frames[index]).mean() < np.abs(shown - frames[16 - index]).mean():
                    break
            assert np.abs(shown - frames[index]).mean() < JPEG
            found = pixels(page, "live-output").astype(int)
            assert np.abs(found - expected).mean() < 3
            assert np.abs(found - expected).mean() < 0.5 * np.abs(found - other).mean()


def test_the_camera_loop_shows_moving_output_and_what_it_takes(browser: Browser, walking: Studio) -> None:
    with opened(browser, walking.address) as page:
        page.click("#tab-live")
        assert page.is_visible("#live-empty")
        page.click("#live-start")
        page.wait_for_function(
            "() => Number(document.querySelector('[data-figure=\"frames a second\"]')?.textContent) > 3"
        )
        assert not page.is_visible("#live-empty")
        shown = []
        for _ in range(5):
            page.wait_for_timeout(400)
            shown.append(pixels(page, "live-output"))
        assert shown[0].shape == (SIZE, SIZE, 3)
        assert len({picture.tobytes() for picture in shown}) == 5
        figures = dict(
            page.eval_on_selector_all(
                "#live-figures dd", "all => all.map(one => [one.dataset.figure, one.textContent])"
            )
        )
        stages = {"wait", "decode", "extract", "draw", "encode"}
        assert {"frames a second", "round trip", "dropped"} | stages <= set(figures)
        assert float(figures["round trip"].split()[0]) > 0
        assert "openvino fp32" in page.inner_text("#facts")
        assert figures["mask"] == "none"
        page.check("#live-with-heatmaps")
        page.wait_for_selector("#live-heatmaps:not([hidden])")
        assert pixels(page, "live-heatmaps").shape == (SIZE, SIZE, 3)
        assert pixels(page, "live-heatmaps").max() > 200
        with page.expect_download() as download:
            page.click("#live-snapshot")
        assert download.value.path().read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
        page.click("#live-start")
        assert page.inner_text("#live-start") == "Start camera"


def test_a_learnt_background_is_black_and_seen_to_be(browser: Browser, walking: Studio, puppeteer: Retargeter) -> None:
    pose = joints(BROWN, Motion.walk(8, seed=5))[7]
    wall, creature = (render(BROWN, pose + away, SIZE)[0] for away in (9, 0))
    mask = StaticBackground(learn_s=0)
    mask(wall, None, 0)
    seen = masked(mask, creature, None, 1)
    expected = puppeteer.draw(puppeteer.extract(seen)[0])
    with opened(browser, walking.address, CAMERA) as page:
        page.click("#tab-live")
        page.uncheck("#live-mirror")
        page.uncheck("#live-points")
        page.select_option("#live-background", "learnt")
        assert page.inner_text("#live-learning") == "It is learnt when the camera starts."
        page.evaluate("bytes => film(bytes)", list(jpeg(wall)))
        page.click("#live-start")
        says(page, "Step out of the picture")
        assert page.is_visible("#live-learn")
        says(page, "Learning the background")
        says(page, "The background is learnt")
        page.evaluate("bytes => film(bytes)", list(jpeg(creature)))
        assert comes(page, seen)
        assert np.abs(pixels(page, "live-output").astype(int) - expected).mean() < 3
        page.wait_for_function(f"() => {FACT} === 'learnt background'")
        page.click("#live-learn")  # he stays where he is, and becomes background
        says(page, "Step out of the picture")
        assert comes(page, seen)  # until then the one of before is good
        says(page, "Learning the background")
        says(page, "The background is learnt")
        assert comes(page, np.zeros_like(seen))
        page.select_option("#live-background", "")
        page.wait_for_function(f"() => {FACT} === 'none'")
        assert comes(page, creature)
        assert page.is_hidden("#live-learn")


FACT = "document.querySelector('#live-figures [data-figure=mask]')?.textContent"


def says(page: Page, words: str) -> None:
    page.wait_for_function(f"() => document.getElementById('live-learning').textContent.startsWith('{words}')")


def comes(page: Page, picture: Pixels) -> bool:
    """Whether the source's view shows a picture, at the latest when it has gone round."""
    for _ in range(100):
        shown = pixels(page, "live-source")[2::4, 2::4].astype(int)
        if np.abs(shown - picture).mean() < JPEG / 2:
            return True
        page.wait_for_timeout(50)
    return False


def test_a_refused_camera_is_explained(browser: Browser, walking: Studio) -> None:
    refuse = "navigator.mediaDevices.getUserMedia = async () => { throw new DOMException('no', 'NotAllowedError'); };"
    with opened(browser, walking.address, refuse) as page:
        page.click("#tab-live")
        page.click("#live-start")
        page.wait_for_selector("#live-error:not([hidden])")
        assert "did not allow the camera" in page.inner_text("#live-error")
