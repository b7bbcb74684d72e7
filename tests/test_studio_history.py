"""The studio's page, driven in a real browser: edits undone, kept and brought back."""

import json
from pathlib import Path

from playwright.sync_api import Page

from tests.browsers import Pixels, lift_head, pixels, save, seek, settle

pytest_plugins = ["tests.page_fixtures"]


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
    for text, words in (
        ("{}", "jokr_edits"),
        ('{"jokr_edits": 1, "speed": 99}', "speed must be"),
        ('{"jokr_edits": 1, "keypoints": [{"keypoint": 1, "keys": [null]}]}', "must be a list of"),
        ("x", "no JSON"),
    ):
        (tmp_path / "bad.json").write_text(text)
        page.set_input_files("#edits-file", tmp_path / "bad.json")
        page.wait_for_function(
            f"() => document.getElementById('edits-error').textContent.includes({json.dumps(words)})"
        )
        settle(page)
        assert save(page, tmp_path / "after.json") == before


def step(page: Page, button: str) -> Pixels:
    """The output after an undo or a redo."""
    page.click(f"#{button}")
    settle(page)
    return pixels(page, "edit-output")


def test_undo_and_redo_go_on_after_a_reload(page: Page) -> None:
    seek(page, 12)
    shown = [pixels(page, "edit-output")]
    lift_head(page)
    shown.append(pixels(page, "edit-output"))
    page.check("#mirror")
    settle(page)
    shown.append(pixels(page, "edit-output"))
    assert len({picture.tobytes() for picture in shown}) == 3
    page.reload()
    settle(page)
    seek(page, 12)
    assert (pixels(page, "edit-output") == shown[2]).all()
    assert (step(page, "undo") == shown[1]).all()
    assert (step(page, "undo") == shown[0]).all()
    assert page.is_disabled("#undo")
    page.reload()
    settle(page)
    seek(page, 12)
    assert page.is_disabled("#undo")
    assert (step(page, "redo") == shown[1]).all()
    assert (step(page, "redo") == shown[2]).all()
    assert page.is_disabled("#redo")


def test_a_loaded_file_of_few_words_is_known_again(page: Page, tmp_path: Path) -> None:
    """The studio tells it with every field and in its own order."""
    before = pixels(page, "edit-output")
    path = tmp_path / "short.json"
    path.write_text('{"keypoints": [{"keys": [{"y": 0.5, "x": 0, "time": 0}], "keypoint": 18}], "jokr_edits": 1}')
    page.set_input_files("#edits-file", path)
    page.wait_for_selector("#undo:not([disabled])")
    settle(page)
    page.reload()
    settle(page)
    assert (step(page, "undo") == before).all()


def test_the_history_of_other_edits_is_forgotten(page: Page) -> None:
    """As where the studio did not get the last ones."""
    lift_head(page)
    page.add_init_script("""
        const kept = JSON.parse(sessionStorage.getItem("jokr-history"));
        sessionStorage.setItem("jokr-history", JSON.stringify({ ...kept, present: { ...kept.present, smooth: 3 } }));
    """)
    page.reload()
    settle(page)
    assert page.is_disabled("#undo")
    assert page.input_value("#smooth") == "0"
    assert page.evaluate("() => sessionStorage.getItem('jokr-history')") is None


def test_a_browser_without_room_keeps_the_last_steps(page: Page) -> None:
    seek(page, 12)
    shown = []
    for _ in range(8):
        shown.append(pixels(page, "edit-output"))
        page.focus("#edit-frame")
        page.keyboard.press("Shift+ArrowUp")
        settle(page)
    page.evaluate("""() => {
        let ballast = "";
        for (let size = 1 << 22; size >= 1; size >>= 1) {
            try {
                sessionStorage.setItem("ballast", ballast + "x".repeat(size));
                ballast += "x".repeat(size);
            } catch {}
        }
        sessionStorage.setItem("ballast", ballast.slice(1500));
    }""")
    page.reload()
    settle(page)
    seek(page, 12)
    steps = 0
    while page.is_enabled("#undo"):
        steps += 1
        assert (step(page, "undo") == shown[-steps]).all()
    assert 1 <= steps < 8
