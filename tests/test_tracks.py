"""Motion on disk: every float comes back, and what is no motion is refused in one line."""

import json
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from jokr_rt.edits import Edits, Key
from jokr_rt.errors import InputError, UsageError
from jokr_rt.tracks import Tracks, edit_tracks, format_tracks, parse_tracks, read_tracks, write_tracks

BY_HAND = """
{
  "jokr_tracks": 1, "domain": null, "size": null, "keypoints": 2, "rate": "25", "time_base": "1/25",
  "frames": [
    {"pts": 0, "pose": [[0, -1], [0.5, 0.1]]},
    {"pts": 2, "pose": [[0, 1], [0.5, 0.2]]}
  ]
}
"""


@st.composite
def motions(draw: st.DrawFn) -> Tracks:
    count, keypoints = draw(st.integers(1, 5)), draw(st.integers(1, 4))
    pts = np.array(sorted(draw(st.sets(st.integers(-(10**12), 10**12), min_size=count, max_size=count))), np.int64)
    confidence = arrays(np.float32, (count, keypoints), elements=st.floats(0, 1, width=32))
    return Tracks(
        pts=pts,
        time_base=draw(st.fractions(Fraction(1, 10**6), 1, max_denominator=10**6)),
        rate=draw(st.sampled_from([Fraction(30000, 1001), Fraction(25)])),
        keypoints=draw(arrays(np.float32, (count, keypoints, 2), elements=st.floats(-1, 1, width=32))),
        confidence=draw(st.one_of(st.none(), confidence)),
        domain=draw(st.one_of(st.none(), st.text(min_size=1, max_size=20))),
        size=draw(st.one_of(st.none(), st.integers(16, 4096))),
    )


def assert_equal(found: Tracks, expected: Tracks) -> None:
    for name in ("pts", "keypoints", "confidence"):
        one, other = getattr(found, name), getattr(expected, name)
        assert (one is None) == (other is None)
        assert one is None or (one.tobytes(), one.dtype, one.shape) == (other.tobytes(), other.dtype, other.shape)
    for name in ("time_base", "rate", "domain", "size"):
        assert getattr(found, name) == getattr(expected, name)


@given(motions())
def test_motion_comes_back_to_the_bit(tracks: Tracks) -> None:
    text = format_tracks(tracks)
    assert_equal(parse_tracks(text), tracks)
    assert text.count("\n") == len(tracks) + 10  # a line for each frame


def test_numbers_are_short() -> None:
    pose = np.array([[[0.1, -0.25]]], np.float32)
    text = format_tracks(Tracks(np.array([7]), Fraction(1, 30), Fraction(30), pose, pose[..., 0], "cat", 64))
    assert '    {"pts": 7, "pose": [[0.1, -0.25]], "confidence": [0.1]}\n' in text
    assert '  "rate": "30",\n  "time_base": "1/30",\n' in text


def test_motion_is_written_by_hand(tmp_path: Path) -> None:
    path = tmp_path / "hand.json"
    path.write_text(BY_HAND)
    tracks = read_tracks(path)
    assert tracks.times.tolist() == [0, 0.08]
    assert tracks.keypoints[1].tolist() == [[0, 1], [0.5, float(np.float32(0.2))]]
    assert (tracks.confidence, tracks.domain, tracks.size, tracks.rate) == (None, None, None, 25)
    write_tracks(tmp_path / "again.json", tracks)
    assert_equal(read_tracks(tmp_path / "again.json"), tracks)


def test_edits_keep_times_to_the_tick_unless_they_scale_them() -> None:
    tracks = parse_tracks(BY_HAND)
    moved = edit_tracks(Edits().with_key(0, Key(0.08, 0.5, 0.5)), tracks)
    assert moved.pts is tracks.pts
    assert moved.keypoints[1, 0].tolist() == [0.5, 0.5]
    slowed = edit_tracks(Edits(speed=0.25), tracks)
    assert (slowed.pts.tolist(), slowed.time_base) == ([0, 7200, 14400, 21600, 28800], Fraction(1, 90000))
    assert slowed.keypoints[2, 0].tolist() == [0, 0]
    assert slowed.rate == 25
    assert_equal(edit_tracks(Edits(), tracks), tracks)


def test_scaled_times_stay_apart() -> None:
    """Where frames are less than a tick apart."""
    pts, poses = np.array([0, 1, 2, 100], np.int64), np.zeros((4, 1, 2), np.float32)
    fast = edit_tracks(Edits(speed=1.1), Tracks(pts, Fraction(1, 10**6), Fraction(30), poses))
    assert fast.pts.tolist() == [0, 1, 2, 8]


def changed(**values: Any) -> str:
    return json.dumps(json.loads(BY_HAND) | values)


def with_frame(frame: Any) -> str:
    return changed(frames=[*json.loads(BY_HAND)["frames"], frame])


POSE = [[0, 0], [0, 0]]
BAD_TRACKS = {
    "kind": ('{"jokr_edits": 1}', 'not a document of this kind, which has "jokr_tracks": 1'),
    "version": (changed(jokr_tracks=2), "version 2 of jokr_tracks; this program reads 1"),
    "unknown": (changed(fps=25), "the document has an unknown key 'fps'"),
    "lacking": ('{"jokr_tracks": 1}', "the document lacks domain"),
    "domain": (changed(domain=3), "domain must be a name or null, not 3"),
    "size": (changed(size=10**9), "size must be a whole number from 16 to 4096, not 1000000000"),
    "count": (changed(keypoints=65), "keypoints must be a whole number from 1 to 64, not 65"),
    "other count": (changed(keypoints=3), "frames[0].pose must be 3 pairs [x, y] of numbers from -1 to 1"),
    "no rate": (changed(rate="0"), "rate must be a fraction above 0, such as \"30000/1001\", not '0'"),
    "huge rate": (changed(rate="1e99999999"), "rate must be a fraction above 0"),
    "float rate": (changed(rate=29.97), "rate must be a fraction above 0"),
    "time base": (changed(time_base="1/9999999999"), "time_base must be a fraction above 0"),
    "no frames": (changed(frames=[]), "frames must be one at least"),
    "frame": (with_frame(3), "frames[2] must be an object, not 3"),
    "no pose": (with_frame({"pts": 3}), "frames[2] lacks pose"),
    "confidence": (with_frame({"pts": 3, "pose": POSE, "confidence": [1, 1]}), "unknown key 'confidence'"),
    "half tick": (with_frame({"pts": 3.5, "pose": POSE}), "frames[2].pts must be a whole number"),
    "far tick": (with_frame({"pts": 2**60, "pose": POSE}), "frames[2].pts must be a whole number"),
    "not later": (with_frame({"pts": 2, "pose": POSE}), "frame 2 (from 0) is not later than the one before it"),
    "outside": (with_frame({"pts": 3, "pose": [[0, 0], [0, 1.01]]}), "frames[2].pose must be 2 pairs"),
    "ragged": (with_frame({"pts": 3, "pose": [[0, 0], [0]]}), "frames[2].pose must be 2 pairs"),
    "truth": (with_frame({"pts": 3, "pose": [[0, 0], [0, True]]}), "frames[2].pose must be 2 pairs"),
    "NaN": (BY_HAND.replace("0.1", "NaN"), "NaN is not a number"),
}


@pytest.mark.parametrize("case", BAD_TRACKS)
def test_bad_tracks(tmp_path: Path, case: str) -> None:
    text, words = BAD_TRACKS[case]
    path = tmp_path / "tracks.json"
    path.write_text(text)
    with pytest.raises(InputError) as caught:
        read_tracks(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_confidence_of_one_frame_is_of_all() -> None:
    frames = [{"pts": 0, "pose": POSE, "confidence": [0, 1]}]
    assert parse_tracks(changed(frames=frames)).confidence is not None
    for bad, words in (
        ({"pts": 1, "pose": POSE}, r"frames\[1\] lacks confidence"),
        ({"pts": 1, "pose": POSE, "confidence": [0, 2]}, r"frames\[1\].confidence must be 2 numbers from 0 to 1"),
        ({"pts": 1, "pose": POSE, "confidence": [0]}, r"frames\[1\].confidence must be 2 numbers from 0 to 1"),
    ):
        with pytest.raises(UsageError, match=words):
            parse_tracks(changed(frames=[*frames, bad]))


def test_a_limit_on_size_is_of_bytes() -> None:
    with pytest.raises(UsageError, match=r"larger than 0.0001 MiB"):
        parse_tracks(BY_HAND, max_bytes=105)


def test_arrays_that_are_no_motion() -> None:
    pts, poses, tick = np.arange(2), np.zeros((2, 3, 2), np.float32), Fraction(1, 30)
    for values, words in (
        ({"keypoints": poses.astype(np.float64)}, "keypoints must be float32"),
        ({"keypoints": np.full_like(poses, np.nan)}, r"frame 0 \(from 0\) has a keypoint outside of -1 to 1"),
        ({"keypoints": np.zeros((2, 65, 2), np.float32)}, "64 a pose"),
        ({"pts": np.arange(3)}, r"pts must be int64 \(2,\), not int64 \(3,\)"),
        ({"pts": np.array([1, 1])}, "is not later"),
        ({"confidence": poses}, "confidence must be float32"),
        ({"confidence": poses[..., 0] - 1}, "confidence must be from 0 to 1"),
    ):
        with pytest.raises(UsageError, match=words):
            Tracks(**({"pts": pts, "keypoints": poses, "time_base": tick, "rate": Fraction(30)} | values))
