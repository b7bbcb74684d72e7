"""What is seen of training while it goes on: a bar on a terminal, lines elsewhere."""

import re

from jokr_rt.console import loss_progress
from tests.process import jokr_on_terminal

LOSSES = {"mask": 9.0, "cycle": 0.5, "reconstruction": 0.25, "adversarial": 0.75, "discriminator": 1.0}
WORDS = "reconstruction 0.250  cycle 0.500  adversarial 0.750"


def test_without_a_terminal_a_line_comes_every_half_minute_and_says_how_long_it_will_take(capsys):
    at = 0.0
    with loss_progress(now=lambda: at) as show:
        for step in range(101, 201):  # resumed after 100; seven seconds a step
            show(step, 200, LOSSES, step / 200)
            at += 7
    lines = capsys.readouterr().err.splitlines()
    shown = [int(line.split()[1]) for line in lines]
    assert shown == [101, 106, 110, *range(115, 200, 5), 200]
    assert lines[0] == f"step 101 of 200: {WORDS}"
    assert lines[2] == f"step 110 of 200, 0:10:30 left: {WORDS}"
    assert lines[-1] == f"step 200 of 200: {WORDS}"


def test_the_time_left_counts_steps_that_take_longer_for_what_they_take(capsys):
    """A hundred steps of a second, which are a quarter of the time, then a hundred of three."""
    at = 0.0
    with loss_progress(now=lambda: at) as show:
        for step in range(1, 201):
            seconds = step + 2 * max(0, step - 100)
            at = float(seconds)
            show(step, 200, LOSSES, seconds / 400)
    lines = capsys.readouterr().err.splitlines()
    left = {int(line.split()[1]): line.split(", ")[1].split()[0] for line in lines if " left" in line}
    assert len(left) > 8
    for step, words in left.items():
        seconds = 400 - (step + 2 * max(0, step - 100))
        assert words == f"0:{seconds // 60:02}:{seconds % 60:02}", step


def test_no_lines_where_steps_are_told_in_json(capsys):
    with loss_progress(lines=False) as show:
        show(1, 1, LOSSES, 1.0)
    assert capsys.readouterr().err == ""


def test_losses_of_another_stage_are_shown(capsys):
    with loss_progress() as show:
        show(1, 1, {"sharpness": 0.125}, 1.0)
    assert capsys.readouterr().err == "step 1 of 1: sharpness 0.125\n"


def test_80_columns_show_the_step_and_the_time_left():
    program = f"""
from jokr_rt.console import loss_progress
with loss_progress() as show:
    for step in (11998, 11999):
        show(step, 12000, {LOSSES}, step / 12000)
raise SystemExit
"""
    code, _, shown = jokr_on_terminal(columns=80, prelude=program)
    assert code == 0
    lines = re.split(r"[\r\n]+", re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown))
    left = r"(\d:\d\d:\d\d|-:--:--)"  # the latter where the clock did not move between the two
    assert any(re.search(f"{left} 11999/12000 reconstruction 0.250  cycle 0.500", line) for line in lines)
    assert "…" not in shown
    assert max(map(len, lines)) <= 80
