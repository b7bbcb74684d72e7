"""The studio's page, driven in a real browser: the camera."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from playwright.sync_api import Browser

from jokr_rt import open_bundle, read_video
from jokr_rt.engines import load_engine
from jokr_rt.evaluation.puppets import BROWN, Motion, write_video
from jokr_rt.retarget import Retargeter
from jokr_rt.video import jpeg
from tests.browsers import chromium, opened, pixels
from tests.process import ROOT
from tests.studios import Studio, studio

BUNDLE = ROOT / "examples" / "puppets.jokr"
SIZE = 128
JPEG = 12  # levels: between a browser's decoder and FFmpeg's


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("clip") / "walk.mp4"
    write_video(path, BROWN, Motion.walk(24, seed=5), SIZE)
    return path


@pytest.fixture(scope="module")
def retargeter() -> Retargeter:
    bundle = open_bundle(BUNDLE)
    return Retargeter(bundle, "a2b", load_engine("openvino", bundle, "fp32"))


@pytest.fixture(scope="module")
def running(clip: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Studio]:
    with studio(BUNDLE, tmp_path_factory.mktemp("studio") / "tmp", clip) as it:
        yield it


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as it:
        yield it


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
    browser: Browser, running: Studio, retargeter: Retargeter, clip: Path
) -> None:
    frames = [frame.rgb for frame in read_video(clip)]
    with opened(browser, running.address, CAMERA) as page:
        page.click("#tab-live")
        page.uncheck("#live-mirror")
        page.uncheck("#live-points")
        for index in (2, 14):
            page.evaluate("bytes => film(bytes)", list(jpeg(frames[index])))
            if index == 2:
                page.click("#live-start")
            page.wait_for_function("() => document.querySelector('[data-figure=\"round trip\"]')")
            other = retargeter.draw(retargeter.extract(frames[16 - index])[0])
            expected = retargeter.draw(retargeter.extract(frames[index])[0])
            for _ in range(100):  # until the picture has gone round
                page.wait_for_timeout(50)
                shown = pixels(page, "live-source")[::4, ::4].astype(int)
                if np.abs(shown - frames[index]).mean() < np.abs(shown - frames[16 - index]).mean():
                    break
            assert np.abs(shown - frames[index]).mean() < JPEG
            found = pixels(page, "live-output").astype(int)
            assert np.abs(found - expected).mean() < 3
            assert np.abs(found - expected).mean() < 0.5 * np.abs(found - other).mean()


def test_the_camera_loop_shows_moving_output_and_what_it_takes(browser: Browser, running: Studio) -> None:
    with opened(browser, running.address) as page:
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
        page.check("#live-with-heatmaps")
        page.wait_for_function("() => document.getElementById('live-heatmaps').width === 128")
        with page.expect_download() as download:
            page.click("#live-snapshot")
        assert download.value.path().read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
        page.click("#live-start")
        assert page.inner_text("#live-start") == "Start camera"


def test_a_refused_camera_is_explained(browser: Browser, running: Studio) -> None:
    refuse = "navigator.mediaDevices.getUserMedia = async () => { throw new DOMException('no', 'NotAllowedError'); };"
    with opened(browser, running.address, refuse) as page:
        page.click("#tab-live")
        page.click("#live-start")
        page.wait_for_selector("#live-error:not([hidden])")
        assert "did not allow the camera" in page.inner_text("#live-error")
