"""The studio's page, driven in a real browser: pictures that creatures have their looks from."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from playwright.sync_api import Browser, Page

from jokr_rt import open_bundle, read_video
from jokr_rt.cli import main
from jokr_rt.evaluation.puppets import BROWN, Motion, joints, render
from jokr_rt.looks import with_looks
from jokr_rt.retarget import Retargeter
from jokr_rt.video import read_picture
from tests import clips
from tests.browsers import SIZE, Pixels, assert_near, lift_head, opened, pixels, save, seek, settle
from tests.studios import PUPPETS, Studio

pytest_plugins = ["tests.page_fixtures"]


@pytest.fixture(scope="module")
def picture(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The brown puppet, cut out: the demo's model then draws that one where it would have drawn the blue one."""
    rgb, mask = render(BROWN, joints(BROWN, Motion.walk(8, seed=3))[4], 2 * SIZE)
    return clips.image(tmp_path_factory.mktemp("picture") / "brown puppet.png", np.dstack([rgb, mask]))


@pytest.fixture(scope="module")
def dressed(puppeteer: Retargeter, picture: Path) -> Callable[[Pixels], Pixels]:
    """What is drawn of a frame, in the looks of the picture."""
    model = with_looks(open_bundle(PUPPETS), puppeteer.engine, "b", read_picture(picture, SIZE))
    other = Retargeter(model, "a2b", puppeteer.engine)
    return lambda rgb: other.draw(other.extract(rgb)[0])


def looks(page: Page, tab: str = "edit") -> str:
    return page.inner_text(f"#{tab}-looks [role=status]")


def wait_for(page: Page, words: str, tab: str = "edit", part: str = "status") -> None:
    page.wait_for_function(
        "([place, words]) => document.querySelector(place).textContent.includes(words)",
        arg=[f"#{tab}-looks [role={part}]", words],
    )
    if tab == "edit":
        settle(page)


def give(page: Page, picture: Path, tab: str = "edit") -> None:
    page.set_input_files(f"#{tab}-looks input", picture)
    wait_for(page, picture.name, tab)


def test_a_picture_gives_the_looks_over_a_reload_until_the_models_own_are_back(
    page: Page, browser: Browser, walking: Studio, walk: Path, picture: Path, dressed: Callable[[Pixels], Pixels]
) -> None:
    seek(page, 12)
    before = pixels(page, "edit-output")
    assert looks(page) == "blue looks as the model has it."
    assert not page.is_visible("#edit-looks img")
    give(page, picture)
    assert looks(page) == "blue looks as in brown puppet.png."
    shown = pixels(page, "edit-output")
    assert np.abs(shown.astype(int) - before).mean() > 3
    assert_near(shown, dressed(list(read_video(walk, size=SIZE))[12].rgb))
    assert page.eval_on_selector("#edit-looks img", "image => image.naturalWidth") == SIZE
    page.set_viewport_size({"width": 360, "height": 740})
    assert page.evaluate("() => document.documentElement.scrollWidth") == 360
    with opened(browser, walking.address) as other:
        settle(other)
        seek(other, 12)
        assert (pixels(other, "edit-output") == before).all()
        assert looks(other) == "blue looks as the model has it."
    page.select_option("#edit-direction", "b2a")
    settle(page)
    assert looks(page) == "brown looks as the model has it."
    page.select_option("#edit-direction", "a2b")
    page.reload()
    wait_for(page, "as in brown puppet.png.")
    seek(page, 12)
    assert (pixels(page, "edit-output") == shown).all()
    page.click("#edit-looks .own")
    wait_for(page, "as the model has it")
    assert (pixels(page, "edit-output") == before).all()
    assert not page.is_visible("#edit-looks .own")


def test_the_export_is_the_command_lines_file(page: Page, walk: Path, picture: Path, tmp_path: Path) -> None:
    lift_head(page)
    save(page, tmp_path / "edits.json")
    give(page, picture)
    page.click("#export")
    page.wait_for_selector("#export-state a")
    with page.expect_download() as download:
        page.click("#export-state a")
    download.value.save_as(tmp_path / "page.mp4")
    options = ["--edits", str(tmp_path / "edits.json"), "--engine", "openvino", "--precision", "fp32"]
    output = ["-o", str(tmp_path / "cli.mp4"), "--appearance", str(picture)]
    done = CliRunner().invoke(main, ["run", str(PUPPETS), str(walk), *output, *options])
    assert done.exit_code == 0, done.output
    assert (tmp_path / "page.mp4").read_bytes() == (tmp_path / "cli.mp4").read_bytes()


def test_what_is_no_picture_is_refused_where_it_was_chosen(page: Page, picture: Path, tmp_path: Path) -> None:
    give(page, picture)
    shown = pixels(page, "edit-output")
    (tmp_path / "large.png").write_bytes(bytes((16 << 20) + 1))
    (tmp_path / "notes.png").write_text("no picture" * 50)
    for name, words in (("large.png", "large.png has 17 MB; 16 are allowed"), ("notes.png", "notes.png: not a video")):
        page.set_input_files("#edit-looks input", tmp_path / name)
        wait_for(page, words, part="alert")
        assert page.is_hidden("#edit-error")
        assert looks(page) == "blue looks as in brown puppet.png."
        assert (pixels(page, "edit-output") == shown).all()
    give(page, picture)
    assert page.is_hidden("#edit-looks [role=alert]")


DROP = """bytes => {
    const data = new DataTransfer();
    data.items.add(new File([new Uint8Array(bytes)], "dropped.png", { type: "image/png" }));
    document.body.dispatchEvent(new DragEvent("drop", { dataTransfer: data, bubbles: true, cancelable: true }));
}"""


@pytest.mark.parametrize("tab", ["edit", "live"])
def test_a_dropped_picture_gives_the_looks_in_both_tabs(page: Page, picture: Path, tab: str) -> None:
    before = pixels(page, "edit-output")
    page.click(f"#tab-{tab}")
    page.evaluate(DROP, list(picture.read_bytes()))
    wait_for(page, "as in dropped.png", tab)
    assert page.is_visible(f"#{tab}-looks img")
    assert page.is_visible("#live-looks") == (tab == "live")
    assert looks(page, "edit") == looks(page, "live") == "blue looks as in dropped.png."
    page.click("#tab-edit")
    settle(page)
    assert page.inner_text("#edit-from") == "walk.mp4"
    assert (pixels(page, "edit-output") != before).any()
