"""A real, headless Chromium, and what can be read off the studio's page in it."""

import base64
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from playwright.sync_api import Browser, Page, sync_playwright

from jokr_rt.video import jpeg, read_jpeg

CHROMIUM = os.environ.get("JOKR_CHROMIUM", "/usr/bin/chromium")
FLAGS = ["--use-fake-ui-for-media-stream", "--use-fake-device-for-media-stream=fps=30"]
TIMEOUT = 60_000  # ms
FRAMES, SIZE = 24, 128  # of the walk
HEAD = 18  # the keypoint on the puppet's head
JPEG = 12  # levels: between a browser's decoder and FFmpeg's

Pixels = NDArray[np.uint8]


@contextmanager
def chromium() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


@contextmanager
def opened(browser: Browser, address: str, script: str = "", **context: Any) -> Iterator[Page]:
    """The page at an address, for a new visitor; at the end it has complained of nothing. script: runs before it."""
    made = browser.new_context(**context)
    made.set_default_timeout(TIMEOUT)
    page = made.new_page()
    complaints: list[str] = []
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("console", lambda message: message.type == "error" and complaints.append(message.text))
    if script:
        page.add_init_script(script)
    page.goto(address)
    yield page
    made.close()
    assert complaints == []


def pixels(page: Page, canvas: str) -> Pixels:
    """(H, W, 3) of what a canvas shows."""
    read = """canvas => {
        const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
        let text = "";
        for (let start = 0; start < data.length; start += 8192) {
            text += String.fromCharCode(...data.subarray(start, start + 8192));
        }
        return [canvas.width, canvas.height, btoa(text)];
    }"""
    width, height, data = page.eval_on_selector(f"#{canvas}", read)
    return np.frombuffer(base64.b64decode(data), np.uint8).reshape(height, width, 4)[..., :3]


def settle(page: Page) -> None:
    """Wait until the clip's output is the one of the present edits and frame."""
    page.wait_for_selector('#edit-output[data-index][aria-busy="false"]')


def drag(page: Page, canvas: str, start: tuple[float, float], end: tuple[float, float]) -> None:
    """With the mouse, from one place in [-1, 1] of a canvas to another."""
    box = page.locator(f"#{canvas}").bounding_box()
    assert box is not None
    at = [(box["x"] + (x + 1) / 2 * box["width"], box["y"] + (y + 1) / 2 * box["height"]) for x, y in (start, end)]
    page.mouse.move(*at[0])
    page.mouse.down()
    page.mouse.move(*at[1], steps=10)
    page.mouse.up()


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
