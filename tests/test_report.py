"""The page of an evaluation: every number is on it, every link leads somewhere, every picture shows what it says."""

import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from fractions import Fraction
from functools import partial
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import av
import numpy as np
import pytest

from jokr_rt import read_video
from jokr_rt.errors import OutputError
from jokr_rt.evaluation.report import COLUMNS, prepare_folder, write_report
from jokr_rt.evaluation.results import Evaluation
from jokr_rt.evaluation.tables import evaluation_tables
from tests.evaluations import FRAMES, KEYPOINTS, SIZE, example_evaluation, without_truth

COMMAND = "jokr evaluate 'a b' --report out"
FILES = {f"{direction}{end}" for direction in ("a2b", "b2a") for end in
         (".mp4", "-sheet.png", "-keypoints-light.svg", "-keypoints-dark.svg")} | {"index.html"}  # fmt: skip


@pytest.fixture(scope="module")
def evaluation(tiny_bundle: Path) -> Evaluation:
    return example_evaluation(tiny_bundle)


@pytest.fixture(scope="module")
def report(evaluation: Evaluation, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a report of `evaluation`. Not to be changed."""
    return write_report(evaluation, tmp_path_factory.mktemp("report") / "new" / "out", COMMAND).parent


class Page(HTMLParser):
    """tables: rows of cells' texts. links: what it refers to. text: all words shown."""

    VOID = ("meta", "img", "source", "br", "link", "input", "hr")

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tables: list[list[list[str]]] = []
        self.links: list[str] = []
        self.text = ""
        self.feed(path.read_text(encoding="utf-8"))
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.links += [value or "" for name, value in attrs if name in ("src", "href", "srcset", "poster")]
        if tag not in self.VOID:
            self.open.append(tag)
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("td", "th"):
            self.tables[-1][-1].append("")

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" in self.open:
            return
        self.text += data
        if {"td", "th"} & set(self.open):
            self.tables[-1][-1][-1] += data


def test_the_page_holds_every_table(evaluation: Evaluation, report: Path) -> None:
    page = Page(report / "index.html")
    expected = evaluation_tables(evaluation)
    assert len(page.tables) == len(expected) == 6
    for shown, table in zip(page.tables, expected, strict=True):
        assert shown[0][: len(table.header)] == list(table.header)
        assert shown[1:] == [[*row.cells, *([row.meaning] if row.meaning else [])] for row in table.rows]
        assert table.title in page.text
        assert table.about in page.text
    for words in ("models/<i>.jokr", "openvino", "bf16", "puppets", "a note & more", COMMAND):
        assert words in page.text
    assert "cat → <fox> & co" in page.text


def numbers(values: object) -> Iterator[float]:
    """Every number within what `asdict` gives."""
    if isinstance(values, dict):
        for value in values.values():
            yield from numbers(value)
    elif isinstance(values, float):
        yield values


def test_the_tables_hold_every_number(evaluation: Evaluation) -> None:
    """As a number or in percent, to as many digits as it has here."""
    shown = " ".join(cell for table in evaluation_tables(evaluation) for row in table.rows for cell in row.cells)
    found = {float(number) for number in re.findall(r"-?\d+\.?\d*", shown)}
    values = [*numbers(evaluation.to_json()["directions"]), *numbers(asdict(evaluation.applications["a2b"]))]
    values = [value for value in values if value not in (2.0, 4.0)]  # the filter's parameters stand above their table
    assert len(values) > 60
    for value in values:
        assert any(abs(value * unit - other) < 1e-6 for unit in (1, 100) for other in found), value
    (smoothing,) = (table for table in evaluation_tables(evaluation) if table.title == "Smoothing")
    assert "2 Hz, beta 4, and 1 Hz" in smoothing.about


def test_bars_say_whether_they_are_met(evaluation: Evaluation) -> None:
    bars = {row.cells[0]: row.cells[1:] for row in evaluation_tables(evaluation)[0].rows}
    assert len(bars) == len(evaluation.bars)
    assert bars["PSNR over the best baseline"] == ("1.56 dB", "at least 0 dB", "at least 3 dB", "bar met")
    assert bars["fresh domain classifier"] == ("56.7 %", "at most 70 %", "at most 55 %", "bar met")
    assert bars["joint ratio"] == ("1.65", "at most 1.5", "at most 1.2", "MISSED")
    assert bars["joints from keypoints, against the mean pose"][-1] == "aim met"


def test_every_link_leads_to_a_file_beside_the_page(report: Path) -> None:
    links = Page(report / "index.html").links
    assert {*links, "index.html"} == FILES == set(os.listdir(report))
    assert "http" not in (report / "index.html").read_text()
    assert all((report / link).stat().st_size > 500 for link in links)


@pytest.mark.parametrize("rate", [10.0, 30000 / 1001])
def test_the_video_shows_the_whole_walk_side_by_side(evaluation: Evaluation, tmp_path: Path, rate: float) -> None:
    result = evaluation.directions["a2b"]
    performance = replace(result.performance, rate=rate)
    changed = replace(evaluation, directions={"a2b": replace(result, performance=performance)})
    write_report(changed, tmp_path)
    with av.open(str(tmp_path / "a2b.mp4")) as container:
        assert container.streams.video[0].codec_context.name == "h264"
    frames = list(read_video(tmp_path / "a2b.mp4"))
    assert [frame.pts * frame.time_base for frame in frames] == [
        index / Fraction(rate).limit_denominator(1001) for index in range(FRAMES)
    ]
    assert performance.true is not None
    for index, frame in enumerate(frames):
        assert frame.rgb.shape == (SIZE, 4 * SIZE, 3)
        shown = np.split(frame.rgb.astype(int), 4, axis=1)
        for panel, expected in ((0, performance.source), (2, performance.drawn), (3, performance.true)):
            assert np.abs(shown[panel] - expected[index]).mean() < 6
        assert np.abs(shown[1] - performance.source[index] // 2).mean() < 30  # and the dots


def test_the_sheet_has_a_row_for_each_panel(evaluation: Evaluation, report: Path) -> None:
    for direction, result in evaluation.directions.items():
        (sheet,) = read_video(report / f"{direction}-sheet.png")
        assert sheet.rgb.shape == (4 * SIZE, COLUMNS * SIZE, 3)
        performance = result.performance
        assert performance.true is not None
        for row, frames in ((0, performance.source), (2, performance.drawn), (3, performance.true)):
            strip = sheet.rgb[row * SIZE : (row + 1) * SIZE]
            assert np.array_equal(strip[:, :SIZE], frames[0])
            assert np.array_equal(strip[:, -SIZE:], frames[-1])


def test_the_plot_is_the_same_for_the_same_keypoints(evaluation: Evaluation, report: Path, tmp_path: Path) -> None:
    write_report(evaluation, tmp_path)
    for name in ("a2b-keypoints-light.svg", "b2a-keypoints-dark.svg"):
        first, second = ((folder / name).read_bytes() for folder in (report, tmp_path))
        assert first == second
        # A line of FRAMES points for each coordinate of each keypoint.
        paths = [node.get("d", "") for node in ElementTree.fromstring(first).iter("{http://www.w3.org/2000/svg}path")]
        tracks = [path for path in paths if len(re.findall("[ML]", path)) == FRAMES and "z" not in path.lower()]
        assert len(tracks) == 2 * KEYPOINTS


def test_without_truth_what_needs_it_is_left_out(evaluation: Evaluation, tmp_path: Path) -> None:
    page = Page(write_report(without_truth(evaluation), tmp_path))
    (measures,) = page.tables
    names = [row[0] for row in measures[1:]]
    assert names == [
        "fresh domain classifier",
        "silhouette IoU, other appearance",
        "silhouette moved",
        "keypoint acceleration",
        "flicker",
        "cycle error",
        "cycle error, of the height",
        "keypoints on the mask",
        "retargeted frames, texture",
        "own frames",
        "own silhouette, IoU",
        "own silhouette, IoU of the lowest third",
        "own frames, PSNR on the creature",
        "own frames, texture",
        "own keypoints in the lowest third",
    ]
    assert "truth." not in page.text
    assert next(read_video(tmp_path / "a2b.mp4")).rgb.shape == (SIZE, 3 * SIZE, 3)
    assert next(read_video(tmp_path / "a2b-sheet.png")).rgb.shape == (3 * SIZE, COLUMNS * SIZE, 3)


def test_a_report_replaces_an_older_one_and_nothing_else(evaluation: Evaluation, tmp_path: Path) -> None:
    (tmp_path / "index.html").write_text("old")
    (tmp_path / "mine.txt").write_text("precious")
    write_report(evaluation, tmp_path)
    assert set(os.listdir(tmp_path)) == FILES | {"mine.txt"}
    assert (tmp_path / "mine.txt").read_text() == "precious"
    assert "openvino" in (tmp_path / "index.html").read_text()


def test_a_report_that_fails_leaves_the_older_one_whole(evaluation: Evaluation, report: Path) -> None:
    before = {path.name: path.read_bytes() for path in report.iterdir()}
    result = evaluation.directions["b2a"]
    cut = replace(result.performance, drawn=result.performance.drawn[:-1])
    broken = {**evaluation.directions, "b2a": replace(result, performance=cut)}
    with pytest.raises((ValueError, IndexError)):
        write_report(replace(evaluation, model="new", directions=broken), report)
    assert {path.name: path.read_bytes() for path in report.iterdir()} == before


@contextmanager
def nobody() -> Iterator[None]:
    """Root may write anywhere, so give that up for a moment."""
    root = os.geteuid() == 0
    if root:
        os.seteuid(65534)
    try:
        yield
    finally:
        if root:
            os.seteuid(0)


def refusal(write: Callable[[], object]) -> str:
    with pytest.raises(OutputError) as caught:
        write()
    return str(caught.value)


def test_a_folder_that_cannot_be_written_is_refused(evaluation: Evaluation, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("precious")
    for folder, reason in ((file, "File exists"), (file / "below", "Not a directory")):
        expected = f"{folder}: the report cannot be written ({reason}); choose another folder"
        assert refusal(partial(prepare_folder, folder)) == expected
        assert refusal(partial(write_report, evaluation, folder)) == expected
    assert file.read_text() == "precious"


def test_a_folder_without_permission_to_write(tmp_path: Path) -> None:
    tmp_path.chmod(0o555)
    with nobody():
        message = refusal(partial(prepare_folder, tmp_path))
    assert message == f"{tmp_path}: the report cannot be written (Permission denied); choose another folder"
    assert list(tmp_path.iterdir()) == []


def test_preparing_makes_the_folder_and_leaves_nothing_in_it(tmp_path: Path) -> None:
    prepare_folder(tmp_path / "new" / "report")
    assert list((tmp_path / "new" / "report").iterdir()) == []
