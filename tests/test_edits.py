"""Edits: what each does to any motion, that they compose and undo, and documents that are refused in one line."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from jokr_rt.edits import Edits, History, Key, KeyTrack, apply, format_edits, parse_edits, read_edits, write_edits
from jokr_rt.errors import InputError, OutputError, UsageError
from jokr_rt.keypoints import METHODS, interpolate, retime, smooth
from tests.tolerances import EXACT, FP32

Doubles = NDArray[np.float64]
Floats = NDArray[np.float32]
K = 3

coordinates = st.floats(-1, 1, width=32)
methods = st.sampled_from(METHODS)
fades = st.one_of(st.just(0.0), st.floats(0.01, 3))
speeds = st.floats(1 / 16, 16)


@st.composite
def motions(draw: st.DrawFn, shortest: int = 1) -> tuple[Doubles, Floats]:
    """Times (T,) in seconds, unevenly apart, and poses (T, 3, 2)."""
    count = draw(st.integers(shortest, 8))
    gaps = draw(arrays(np.float64, count, elements=st.floats(1 / 240, 2)))
    return np.cumsum(gaps) + draw(st.floats(-5, 5)), draw(arrays(np.float32, (count, K, 2), elements=coordinates))


@st.composite
def key_tracks(draw: st.DrawFn, keypoint: int) -> KeyTrack:
    times = sorted(draw(st.sets(st.integers(-5000, 20000), min_size=1, max_size=4)))
    keys = tuple(Key(time / 1000, draw(coordinates), draw(coordinates)) for time in times)
    return KeyTrack(keypoint, keys, draw(methods), draw(fades))


@st.composite
def documents(draw: st.DrawFn) -> Edits:
    moved = sorted(draw(st.sets(st.integers(0, K - 1))))
    return Edits(
        smooth=draw(st.one_of(st.just(0.0), st.floats(0.1, 100))),
        exaggerate=draw(st.floats(0, 10)),
        mirror=draw(st.booleans()),
        speed=draw(speeds),
        keypoints=tuple(draw(key_tracks(keypoint)) for keypoint in moved),
    )


def keyed(keypoint: int, *keys: tuple[float, float, float], **how: Any) -> Edits:
    return Edits(keypoints=(KeyTrack(keypoint, tuple(Key(*key) for key in keys), **how),))


@given(motions())
def test_no_edits_are_the_identity(motion: tuple[Doubles, Floats]) -> None:
    times, track = motion
    new_times, new_track = apply(Edits(), times, track)
    assert new_times.tobytes() == times.tobytes()
    assert (new_track.tobytes(), new_track.dtype) == (track.tobytes(), track.dtype)


@given(documents(), motions())
def test_any_edits_of_any_motion_stay_in_the_frame_and_change_nothing_that_they_are_given(
    edits: Edits, motion: tuple[Doubles, Floats]
) -> None:
    times, track = motion
    before = times.copy(), track.copy()
    new_times, new_track = apply(edits, times, track)
    assert new_track.dtype == np.float32
    assert len(new_times) == len(new_track)
    assert (np.abs(new_track) <= 1).all()  # false for NaN
    assert (np.diff(new_times) > 0).all()
    assert np.array_equal(times, before[0])
    assert np.array_equal(track, before[1])


@given(motions(), st.data())
def test_interpolation_passes_through_key_poses(motion: tuple[Doubles, Floats], data: st.DataObject) -> None:
    """Exactly, at frames; and whatever comes before the keys."""
    times, track = motion
    at = sorted(data.draw(st.sets(st.integers(0, len(times) - 1), min_size=1)))
    keys = [(float(times[index]), data.draw(coordinates), data.draw(coordinates)) for index in at]
    edits = keyed(1, *keys, interpolation=data.draw(methods), fade=data.draw(fades))
    edits = replace(
        edits, smooth=data.draw(st.sampled_from([0.0, 2.0])), exaggerate=1.7, mirror=data.draw(st.booleans())
    )
    _, moved = apply(edits, times, track)
    for index, (_, x, y) in zip(at, keys, strict=True):
        assert moved[index, 1].tolist() == [x, y]


@given(motions(2), st.floats(0.05, 0.95), coordinates, coordinates, methods)
def test_a_key_between_two_frames_is_passed_through_as_well(
    motion: tuple[Doubles, Floats], share: float, x: float, y: float, method: str
) -> None:
    """Seen by a motion that has a frame there, which the other is interpolated to."""
    times, track = motion
    time = float(times[0] + share * (times[1] - times[0]))
    with_frame = np.sort(np.append(times, time))
    finer = interpolate(times, track.astype(np.float64), with_frame)
    _, moved = apply(keyed(0, (time, x, y), interpolation=method, fade=100), times, track)
    _, expected = apply(keyed(0, (time, x, y), interpolation=method, fade=100), with_frame, finer)
    np.testing.assert_allclose(moved, np.delete(expected, 1, axis=0), atol=FP32)
    assert expected[1, 0].tolist() == [x, y]


@given(motions(), key_tracks(1))
def test_only_the_keypoint_moves_and_only_within_its_span(motion: tuple[Doubles, Floats], keys: KeyTrack) -> None:
    times, track = motion
    _, moved = apply(Edits(keypoints=(keys,)), times, track)
    assert np.array_equal(moved[:, [0, 2]], track[:, [0, 2]])
    beyond = (times <= keys.keys[0].time - keys.fade) | (times >= keys.keys[-1].time + keys.fade)
    beyond &= ~np.isin(times, [key.time for key in keys.keys])
    assert np.array_equal(moved[beyond], track[beyond])


def test_the_offset_is_interpolated_and_fades() -> None:
    """A keypoint that walks steadily, lifted at 2 s and at 4 s: by hand."""
    times = np.arange(0, 6.5, 0.5)
    track = np.zeros((len(times), 1, 2))
    track[:, 0, 0] = times / 10
    keys = (2.0, 0.2, 0.4), (4.0, 0.4, -0.2)

    def lifted(**how: Any) -> list[float]:
        _, moved = apply(keyed(0, *keys, **how), times, track)
        np.testing.assert_allclose(moved[..., 0], track[..., 0], atol=EXACT)  # the walk goes on
        return [round(float(y), 9) for y in moved[:, 0, 1]]

    ramp = [0.4 * 0.15625, 0.4 * 0.5, 0.4 * 0.84375]  # 3 u^2 - 2 u^3 of a quarter, half and three quarters
    fall = [round(-0.5 * step, 9) for step in reversed(ramp)]
    linear = [0, *np.round(ramp, 9), 0.4, 0.25, 0.1, -0.05, -0.2, *fall, 0]
    assert lifted(interpolation="linear", fade=2.0) == linear
    assert lifted(interpolation="hold", fade=0.0) == [0] * 4 + [0.4] * 4 + [-0.2] + [0] * 4
    assert lifted(interpolation="cubic", fade=0.0) == [0] * 4 + linear[4:9] + [0] * 4  # two keys: straight
    np.testing.assert_allclose(lifted(interpolation="linear", fade=0.75)[2:4], [0, 0.4 * 7 / 27], atol=1e-9)


@given(motions(), key_tracks(0), key_tracks(2))
def test_edits_of_different_keypoints_compose(
    motion: tuple[Doubles, Floats], first: KeyTrack, second: KeyTrack
) -> None:
    """Both at once are one after the other, in either order."""
    one, other = Edits(keypoints=(first,)), Edits(keypoints=(second,))
    _, both = apply(Edits(keypoints=(first, second)), *motion)
    assert np.array_equal(apply(one, *apply(other, *motion))[1], both)
    assert np.array_equal(apply(other, *apply(one, *motion))[1], both)


@given(motions(), documents())
def test_a_document_is_its_steps_in_their_order(motion: tuple[Doubles, Floats], edits: Edits) -> None:
    """Of motion so small that no step takes it out of the frame, where it would be cut off before the next one."""
    times, track = motion[0], motion[1].astype(np.float64) / 10
    edits = replace(edits, exaggerate=edits.exaggerate * 0.4)
    steps = (
        Edits(smooth=edits.smooth),
        Edits(exaggerate=edits.exaggerate),
        Edits(mirror=edits.mirror),
        Edits(keypoints=edits.keypoints),
        Edits(speed=edits.speed),
    )
    whole = apply(edits, times, track)
    for step in steps:
        times, track = apply(step, times, track)
    np.testing.assert_allclose(times, whole[0], atol=EXACT)
    np.testing.assert_allclose(track, whole[1], atol=EXACT)


@given(motions(), st.lists(documents(), max_size=6))
def test_edits_undo_and_redo(motion: tuple[Doubles, Floats], edits: list[Edits]) -> None:
    """Each undo gives the motion of before, to the bit, and each redo the one after."""
    steps = [edit for edit, before in zip(edits, [Edits(), *edits], strict=False) if edit != before]
    history = History()
    drawn = [apply(Edits(), *motion)[1]]
    for edit in edits:
        history = history.do(edit)
    drawn += [apply(edit, *motion)[1] for edit in steps]
    assert len(history.past) == len(steps)
    for expected in reversed(drawn):
        assert np.array_equal(apply(history.present, *motion)[1], expected)
        history = history.undo()
    assert history == history.undo()
    for expected in drawn:
        assert np.array_equal(apply(history.present, *motion)[1], expected)
        history = history.redo()
    assert history == history.redo()


def test_what_was_undone_is_forgotten_by_the_next_step() -> None:
    first, second, third = (Edits(smooth=hertz) for hertz in (1.0, 2.0, 3.0))
    history = History().do(first).do(second).undo().do(third)
    assert history == History(third, (Edits(), first))
    assert history.do(third) is history


@given(motions(), speeds)
def test_time_scaling_keeps_the_ends(motion: tuple[Doubles, Floats], speed: float) -> None:
    times, track = motion
    new_times, new_track = apply(Edits(speed=speed), times, track)
    assert np.array_equal(new_track[[0, -1]], track[[0, -1]])
    assert new_times[0] == times[0]
    assert new_times[-1] - new_times[0] == pytest.approx((times[-1] - times[0]) / speed)
    assert abs((len(times) - 1) / speed - (len(new_times) - 1)) <= (0.5 if len(new_times) > 2 else 1)


@given(motions(), st.integers(1, 6))
def test_slowing_down_puts_poses_between_those_that_were_found(
    motion: tuple[Doubles, Floats], times_slower: int
) -> None:
    times, track = motion
    new_times, new_track = apply(Edits(speed=1 / times_slower), times, track)
    assert np.array_equal(new_track[::times_slower], track)
    np.testing.assert_allclose(new_times[::times_slower] - times[0], (times - times[0]) * times_slower, atol=1e-9)
    moments, shown_at = retime(times, 1 / times_slower)
    assert np.array_equal(moments[::times_slower], times)
    assert np.array_equal(new_times, shown_at if times_slower > 1 else times)
    between = interpolate(times, track.astype(np.float64), moments).clip(-1, 1)
    np.testing.assert_allclose(new_track, between, atol=FP32)


@given(motions(), st.floats(0, 10))
def test_exaggeration_is_about_the_mean(motion: tuple[Doubles, Floats], factor: float) -> None:
    times, track = motion[0], motion[1].astype(np.float64)
    mean = track.mean(0)
    expected = (mean + factor * (track - mean)).clip(-1, 1)
    np.testing.assert_allclose(apply(Edits(exaggerate=factor), times, track)[1], expected, atol=EXACT)
    small = track / 10
    np.testing.assert_allclose(apply(Edits(exaggerate=factor / 2), times, small)[1].mean(0), mean / 10, atol=EXACT)


@given(motions())
def test_mirroring_swaps_left_and_right_of_where_each_keypoint_is_on_average(motion: tuple[Doubles, Floats]) -> None:
    times, track = motion[0], motion[1].astype(np.float64) / 3  # so that nothing leaves the frame
    _, mirrored = apply(Edits(mirror=True), times, track)
    np.testing.assert_allclose(mirrored.mean(0), track.mean(0), atol=EXACT)
    np.testing.assert_allclose(mirrored[..., 1], track[..., 1], atol=EXACT)
    away = track[..., 0] - track[..., 0].mean(0)
    np.testing.assert_allclose(mirrored[..., 0] - mirrored[..., 0].mean(0), -away, atol=EXACT)
    np.testing.assert_allclose(apply(Edits(mirror=True), times, mirrored)[1], track, atol=EXACT)


@given(motions(), st.floats(0.1, 100))
def test_smoothing_is_that_of_a_stream(motion: tuple[Doubles, Floats], hertz: float) -> None:
    """To the bit: `jokr run --smooth` draws the same."""
    times, track = motion
    assert np.array_equal(apply(Edits(smooth=hertz), times, track)[1], smooth(times, track, hertz))


@given(documents())
def test_documents_come_back_as_they_were(edits: Edits) -> None:
    text = format_edits(edits)
    assert parse_edits(text) == edits
    assert format_edits(parse_edits(text)) == text


def test_a_document_is_laid_out_for_a_diff() -> None:
    edits = Edits(smooth=3.0).with_key(2, Key(1.5, 0.1, -0.25)).with_key(2, Key(0.5, 1, 0.0))
    lines = format_edits(edits).splitlines()
    assert lines[:8] == [
        "{",
        '  "jokr_edits": 1,',
        '  "smooth": 3,',
        '  "exaggerate": 1,',
        '  "mirror": false,',
        '  "speed": 1,',
        '  "keypoints": [',
        "    {",
    ]
    moved = format_edits(edits.with_key(2, Key(1.5, 0.2, -0.25))).splitlines()
    assert [(old, new) for old, new in zip(lines, moved, strict=True) if old != new] == [
        ('          "x": 0.1,', '          "x": 0.2,')
    ]
    assert parse_edits('{"jokr_edits": 1}') == Edits()  # the rest has its defaults


def test_keys_are_set_replaced_and_taken_away() -> None:
    edits = Edits().with_key(4, Key(2, 0, 0)).with_key(1, Key(1, 0, 0)).with_key(4, Key(1, 0.5, 0))
    assert [track.keypoint for track in edits.keypoints] == [1, 4]
    assert edits.keypoints[1].keys == (Key(1, 0.5, 0), Key(2, 0, 0))
    assert edits.with_key(4, Key(2, 0.1, 0.1)).keypoints[1].keys == (Key(1, 0.5, 0), Key(2, 0.1, 0.1))
    assert edits.without_key(1, 1).without_key(4, 2).without_key(4, 1) == Edits()
    with pytest.raises(UsageError, match="keypoint 1 has no key at 3 s"):
        edits.without_key(1, 3)


def document(**values: Any) -> str:
    return json.dumps({"jokr_edits": 1} | values)


def with_keys(*keys: Any, **track: Any) -> str:
    return document(keypoints=[{"keypoint": 0, "keys": list(keys)} | track])


KEY = {"time": 0, "x": 0, "y": 0}
BAD_DOCUMENTS = {
    "empty": ("", "not JSON: Expecting value"),
    "no JSON": ("{", "not JSON: "),
    "no text": (b"\xff\xfe\x00", "not JSON: "),
    "deep": ("[" * 200_000, "not JSON: "),
    "list": ("[]", "not a document of this kind"),
    "other kind": ('{"jokr_tracks": 1}', 'not a document of this kind, which has "jokr_edits": 1'),
    "version": ('{"jokr_edits": 2}', "version 2 of jokr_edits; this program reads 1"),
    "version true": ('{"jokr_edits": true}', "version True of jokr_edits"),
    "unknown": (document(smoth=3), "the document has an unknown key 'smoth'; it may have jokr_edits, smooth"),
    "twice": ('{"jokr_edits": 1, "smooth": 1, "smooth": 2}', "'smooth' is there twice"),
    "NaN": ('{"jokr_edits": 1, "smooth": NaN}', "NaN is not a number"),
    "infinite": ('{"jokr_edits": 1, "smooth": 1e999}', "smooth must be a number from 0 to 1000, not inf"),
    "digits": ('{"jokr_edits": 1, "smooth": ' + "9" * 5000 + "}", "not JSON: "),
    "negative": (document(smooth=-1), "smooth must be a number from 0 to 1000, not -1"),
    "words": (document(exaggerate="2"), "exaggerate must be a number from 0 to 10, not '2'"),
    "truth": (document(exaggerate=True), "exaggerate must be a number from 0 to 10, not True"),
    "mirror": (document(mirror=1), "mirror must be true or false, not 1"),
    "still": (document(speed=0), "speed must be a number from 0.0625 to 16, not 0"),
    "no list": (document(keypoints={}), "keypoints must be a list, not {}"),
    "no track": (document(keypoints=[3]), "keypoints[0] must be an object, not 3"),
    "no keys": (document(keypoints=[{"keypoint": 0}]), "keypoints[0] lacks keys"),
    "empty keys": (with_keys(), "keypoints[0]: keys must be 1 to 10000, not 0"),
    "many keys": (with_keys(*[KEY] * 10_001), "keypoints[0].keys has 10001 items; 10000 is the most"),
    "key": (with_keys(KEY | {"z": 0}), "keypoints[0]: keys[0] has an unknown key 'z'; it may have time, x, y"),
    "outside": (with_keys(KEY | {"x": 1.5}), "keypoints[0]: keys[0]: x must be a number from -1 to 1, not 1.5"),
    "no time": (with_keys({"x": 0, "y": 0}), "keys[0] lacks time"),
    "far time": (with_keys(KEY | {"time": 1e7}), "time must be a number from -1e+06 to 1e+06"),
    "same time": (
        with_keys(KEY, KEY),
        "keypoints[0]: keys must be in the order of their times, but 0 s comes after 0 s",
    ),
    "method": (with_keys(KEY, interpolation="quintic"), "interpolation must be linear, cubic, hold, not 'quintic'"),
    "no method": (with_keys(KEY, interpolation=[]), "interpolation must be linear, cubic, hold, not []"),
    "fade": (with_keys(KEY, fade=-1), "keypoints[0]: fade must be a number from 0 to 3600, not -1"),
    "keypoint": (with_keys(KEY, keypoint=64), "keypoint must be a whole number from 0 to 63, not 64"),
    "half": (with_keys(KEY, keypoint=1.5), "keypoint must be a whole number from 0 to 63, not 1.5"),
    "twice there": (document(keypoints=[{"keypoint": 0, "keys": [KEY]}] * 2), "each there once, not [0, 0]"),
}


@pytest.mark.parametrize("case", BAD_DOCUMENTS)
def test_bad_documents(tmp_path: Path, case: str) -> None:
    text, words = BAD_DOCUMENTS[case]
    with pytest.raises(UsageError) as caught:
        parse_edits(text)
    assert words in str(caught.value)
    path = tmp_path / "edits.json"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(InputError) as named:
        read_edits(path)
    assert str(named.value) == f"{path}: {caught.value}"
    assert "\n" not in str(named.value)


def test_a_huge_document_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "edits.json"
    path.write_bytes(b" " * ((4 << 20) + 1))
    with pytest.raises(InputError, match=r"edits.json: larger than 4 MiB"):
        read_edits(path)


def test_files_are_written_whole_and_replaced_on_request(tmp_path: Path) -> None:
    path = tmp_path / "edits.json"
    write_edits(path, Edits(smooth=2.5))
    assert read_edits(path) == Edits(smooth=2.5)
    with pytest.raises(OutputError, match="already exists"):
        write_edits(path, Edits())
    write_edits(path, Edits(mirror=True), overwrite=True)
    assert read_edits(path) == Edits(mirror=True)
    assert list(tmp_path.iterdir()) == [path]
    with pytest.raises(InputError, match=r"none.json: cannot be read: No such file or directory"):
        read_edits(tmp_path / "none.json")
    with pytest.raises(OutputError, match="there is no folder"):
        write_edits(tmp_path / "no" / "edits.json", Edits())


BAD_USES: list[tuple[Callable[[], object], str]] = [
    (
        lambda: apply(keyed(3, (0, 0, 0)), [0.0], np.zeros((1, 3, 2))),
        "the edits move keypoint 3, and there are 3, from 0",
    ),
    (lambda: apply(Edits(), [0.0, 0.0], np.zeros((2, 3, 2))), "times must increase"),
    (lambda: apply(Edits(), [], np.zeros((0, 3, 2))), "at least one"),
    (lambda: apply(Edits(), [0.0], np.zeros((1, 3))), "expected a track"),
    (lambda: apply(Edits(), [0.0], np.full((1, 3, 2), np.nan)), "finite numbers only"),
]


@pytest.mark.parametrize(("use", "words"), BAD_USES)
def test_motion_and_edits_that_do_not_fit(use: Callable[[], object], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        use()
