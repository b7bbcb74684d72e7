"""What one stream shows, and when: losses, pauses, a creature that is lost, sound, keys. On a virtual clock."""

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
from numpy.typing import NDArray

from jokr_rt.errors import EngineError, InputError, OutputError
from jokr_rt.live.loop import COVER_S
from jokr_rt.live.slate import banner, slate
from jokr_rt.video import open_video
from tests.live_doubles import SIDE, NumberModel, Script, ScriptedOutput, VirtualClock, number_of, picture
from tests.live_rig import FRAME_S, OPTIONS, Rig, Spy

LOSS = [[("frames", 10, FRAME_S)], [("refuse",)], [("refuse",)], [("frames", 1000, FRAME_S)]]
"""Gone from 0.4 s on; looked for again after 0.5, 1 and 2 s: at 0.9 and 1.9 in vain, back at 3.9."""

STEADY = [[("frames", 1000, FRAME_S)]]


def rig(connections: list[list[tuple[Any, ...]]], **more: Any) -> Rig:
    clock = VirtualClock()
    model = more.pop("model", NumberModel())
    options = replace(OPTIONS, **more.pop("options", {}))
    sound = more.pop("sound", False)
    faults: Sequence[Any] = more.pop("faults", ())
    return Rig(clock, model, [Script(connections, sound=sound)], [[ScriptedOutput(clock, faults)]], options, **more)


def covers(rig: Rig) -> list[tuple[np.ndarray, float]]:
    """(picture, time) of what was written while there was no source."""
    spy = cast(Spy, rig.streams[0].sinks[0])
    is_live = {time: live for _, live, _, time in spy.given}
    return [(image, float(time)) for image, time, _ in rig.outputs[0][0].written if not is_live[time]]


def test_a_slate_says_that_there_is_no_source() -> None:
    ran = rig(LOSS, seconds=5.0, options={"on_loss": "slate"})
    (figures,) = ran.run()
    shown = covers(ran)
    assert 0.4 < shown[0][1] < 0.4 + 2 * COVER_S
    assert 3.6 < shown[-1][1] < 3.9
    assert all(abs(second - first - COVER_S) < 1e-6 for (_, first), (_, second) in pairwise(shown))
    assert all(np.array_equal(image, slate(SIDE, SIDE, "no signal", "for 1 s", "reconnecting")) for image, at in shown if 1 < at < 1.5)  # fmt: skip # noqa: E501
    assert figures.covers == figures.duplicates == len(shown)
    assert figures.reconnects == 1
    assert ["the camera is gone" in words for words in ran.said].count(True) == 1
    assert any("the source is back" in words for words in ran.said)


def test_a_frozen_picture_says_so() -> None:
    ran = rig(LOSS, seconds=5.0, options={"on_loss": "freeze"})
    ran.run()
    assert all(np.array_equal(image, banner(picture(10), "no signal: for 1 s: reconnecting")) for image, at in covers(ran) if 1 < at < 1.5)  # fmt: skip # noqa: E501
    assert len(covers(ran)) > 30


def test_passthrough_passes_the_gap_on() -> None:
    ran = rig(LOSS, seconds=5.0, options={"on_loss": "passthrough"})
    (figures,) = ran.run()
    times = [float(time) for _, time, _ in ran.outputs[0][0].written]
    assert figures.covers == 0
    assert max(second - first for first, second in pairwise(times)) == pytest.approx(3.5, abs=0.2)


def test_stop_stops_with_the_reason_and_a_finished_file() -> None:
    ran = rig(LOSS, seconds=5.0, options={"on_loss": "stop"})
    (figures,) = ran.run()
    assert isinstance(ran.streams[0].error, InputError)
    assert str(ran.streams[0].error) == "live: no live picture: the camera is gone"
    assert ran.outputs[0][0].closed == 1
    assert figures.shown == len(ran.outputs[0][0].written) == 10


def broken_from(number: int) -> NumberModel:
    def before(stage: str, frame: int) -> None:
        if frame >= number:
            raise EngineError("the engine is broken")

    return NumberModel(before)


def test_an_engine_that_always_fails_is_a_loss_too() -> None:
    ran = rig(STEADY, seconds=3.0, model=broken_from(20))
    (figures,) = ran.run()
    shown = covers(ran)
    assert figures.shown == 19
    assert figures.failed == pytest.approx(2.2 / FRAME_S, abs=4)
    assert figures.reason == "the engine is broken"
    assert np.array_equal(shown[-1][0], slate(SIDE, SIDE, "no picture", "for 2 s"))
    assert len(shown) == pytest.approx(1.7 / COVER_S, abs=6)
    assert ran.said.count("live: the engine is broken") == 1


def test_an_engine_that_always_fails_stops_what_is_to_stop() -> None:
    ran = rig(STEADY, seconds=3.0, model=broken_from(20), options={"on_loss": "stop"})
    ran.run()
    assert str(ran.streams[0].error) == "live: no live picture: the engine is broken"


def test_retries_that_are_used_up_end_it() -> None:
    ran = rig([[("frames", 10, FRAME_S)], [("refuse",)]], seconds=60.0, options={"retries": 2})
    ran.run()
    assert "gave up after 2 retries" in str(ran.streams[0].error)


def test_nothing_is_shown_before_the_source_was_there() -> None:
    ran = rig([[("refuse",)], [("refuse",)], *STEADY], seconds=4.0)
    (figures,) = ran.run()
    assert figures.covers == 0
    assert ran.outputs[0][0].written[0][1] == 0


def test_time_goes_forward_in_the_sources_rhythm() -> None:
    ran = rig(LOSS, seconds=5.0)
    ran.run()
    spy = cast(Spy, ran.streams[0].sinks[0])
    times = [(time, live) for _, live, _, time in spy.given]
    assert all(first < second for (first, _), (second, _) in pairwise(times))
    steps = [float(second - first) for (first, was), (second, now) in pairwise(times) if was and now]
    assert steps == pytest.approx([FRAME_S] * len(steps), abs=1e-4)


def test_a_pause_holds_the_picture_and_says_so() -> None:
    ran = rig(STEADY, seconds=3.0, presses=[(1.0, "pause"), (2.0, "pause")])
    (figures,) = ran.run()
    shown = covers(ran)
    assert len(shown) == pytest.approx(1.0 / COVER_S, abs=2)
    first = number_of(shown[0][0])
    assert np.array_equal(shown[0][0], banner(picture(first), "paused"))
    assert figures.state == "ended"
    assert figures.shown == pytest.approx(2 / FRAME_S, abs=4)
    assert figures.captured == figures.shown + figures.dropped


def test_the_last_pose_is_held_while_the_creature_is_lost() -> None:
    ran = rig(STEADY, seconds=1.5, model=NumberModel(lost=range(10, 21)))
    (figures,) = ran.run()
    spy = cast(Spy, ran.streams[0].sinks[0])
    numbers = [(number, live) for number, live, _, _ in spy.given]
    assert numbers[:22] == [*((n, True) for n in range(1, 10)), *[(9, False)] * 11, (21, True), (22, True)]
    assert (figures.held, figures.duplicates, figures.covers) == (11, 11, 0)


class Doubting:
    """In place of a `Familiarity`: doubts each frame in which no creature was found."""

    doubt = ""

    def see(self, keypoints: NDArray[np.float32], confidence: NDArray[np.float32], rgb: NDArray[np.uint8]) -> None:
        self.doubt = "" if confidence.any() else "looks strange"


def test_another_creature_is_told_of_once_and_so_is_the_return_of_the_known_one() -> None:
    ran = rig(STEADY, seconds=1.5, model=NumberModel(lost=range(10, 21), familiar=Doubting()))
    ran.run()
    told = [words for words in ran.said if "strange" in words or "knows" in words]
    assert told == ["live looks strange", "live shows the creature that the model knows again"]


def test_another_target_is_no_return_of_the_creature() -> None:
    model, other = (NumberModel(lost=range(1000), familiar=Doubting()) for _ in range(2))
    ran = rig(STEADY, seconds=2.0, model=model, presses=[(1.0, "next")], more_targets=[other])
    ran.run()
    told = [words for words in ran.said if "strange" in words or "knows" in words]
    assert told == ["live looks strange"] * 2


def test_a_creature_that_was_never_there_is_not_drawn() -> None:
    ran = rig(STEADY, seconds=1.0, model=NumberModel(lost=range(1000)))
    (figures,) = ran.run()
    assert figures.held == figures.shown > 10
    assert not any(image.any() for image, _, _ in ran.outputs[0][0].written)


def test_sound_lies_where_its_picture_does() -> None:
    ran = rig(LOSS, seconds=5.0, sound=True)
    ran.run()
    output = ran.outputs[0][0]
    pictures = {number_of(image): time for image, time, _ in output.written}
    sounds = {int(packet.data): time for packet, time in output.sounds}
    assert set(sounds) >= set(range(1, 30))
    assert all(sounds[number] == pictures[number] for number in sounds if number in pictures)


def test_the_next_target_is_drawn_after_its_key() -> None:
    ran = rig(STEADY, seconds=2.0, presses=[(1.0, "next")], more_targets=[NumberModel(shift=5000)])
    ran.run()
    numbers = [number_of(image) for image, _, _ in ran.outputs[0][0].written]
    assert numbers[0] == 1
    assert numbers[-1] > 5000
    assert sum((first > 5000) != (second > 5000) for first, second in pairwise(numbers)) == 1


def test_keys_for_snapshots_recordings_and_keypoints(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    presses = [(0.5, "snapshot"), (1.0, "record"), (2.0, "record"), (2.5, "keypoints"), (2.7, "statistics")]
    ran = rig(STEADY, seconds=3.0, presses=presses)
    ran.run()
    (snapshot,) = tmp_path.glob("live-*.png")
    with open_video(snapshot) as pictures:
        number = number_of(next(pictures).rgb)
    assert number == pytest.approx(0.5 / FRAME_S, abs=3)
    ((name, recording),) = ran.recorded.items()
    assert name.startswith("live-")
    assert name.endswith(".mp4")
    assert (recording.opened, recording.closed) == (1, 1)
    assert len(recording.written) == pytest.approx(1.0 / FRAME_S, abs=3)
    dotted = [image for image, time, _ in ran.outputs[0][0].written if time > 2.6]
    assert all(len(np.unique(image.reshape(-1, 3), axis=0)) > 1 for image in dotted)
    assert any(words.startswith("live: live, in 2") for words in ran.said)


def test_a_stream_whose_every_sink_has_given_up_ends() -> None:
    ran = rig(STEADY, seconds=30.0, faults=["fail"] * 1000, options={"sink_retries": 1})
    ran.run()
    assert isinstance(ran.streams[0].error, OutputError)
    assert "the disk is full" in str(ran.streams[0].error)


def test_figures_are_of_the_second_before() -> None:
    slow = dict.fromkeys(range(50, 75), 0.03)
    clock_rig = rig(STEADY, seconds=4.0)
    clock_rig.model._before = lambda stage, number: _sleep(clock_rig, slow.get(number, 0.0) if stage == "draw" else 0.0)
    clock_rig.run()
    seconds = [figures[0] for figures in clock_rig.figures_seen]
    assert [round(each.capture_fps) for each in seconds[1:3]] == [25, 25]
    medians = [each.latency_ms["p50"] for each in seconds[:4] if each.latency_ms]
    assert medians[0] < 1
    assert medians[2] == pytest.approx(30, rel=0.05)  # the third second, in which drawing was slow
    assert medians[3] < 1


def _sleep(rig: Rig, seconds: float) -> None:
    from jokr_rt.clock import sleep

    if seconds:
        sleep(rig.clock, seconds)
