"""`jokr keypoints`, `jokr render`, `jokr run --edits`: the same pictures by every way, or one line on why not."""

import json
import signal
import subprocess
import time
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from jokr_rt import Frame, Retargeter, read_video
from jokr_rt.edits import Edits, Key, KeyTrack, parse_edits, write_edits
from jokr_rt.evaluation.puppets import BROWN, Motion, write_video
from jokr_rt.keypoints import interpolate
from jokr_rt.tracks import Tracks, read_tracks, write_tracks
from jokr_rt.video import VideoWriter, open_video
from tests import clips
from tests.process import ROOT, Call, command, jokr_on_terminal

Written = list[tuple[bytes, Fraction]]
SHIPPED = ROOT / "examples" / "puppets.jokr"
RUNS = "direction a2b (cat2fox), engine openvino, precision fp32, mode throughput\n"


@pytest.fixture
def pictures(call: Call, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., Written]:
    """Run a command that writes a video: its pictures, before they are encoded, and their times in seconds."""
    written: Written = []
    write = VideoWriter.write

    def note(writer: VideoWriter, frame: Frame) -> None:
        written.append((frame.rgb.tobytes(), frame.pts * frame.time_base))
        write(writer, frame)

    monkeypatch.setattr(VideoWriter, "write", note)

    def run(*args: str | Path) -> Written:
        written.clear()
        output = tmp_path / "pictures.mp4"
        code, out, err = call(*args, "-o", output, "--overwrite")
        assert (code, "error" in err) == (0, False), err
        assert clips.times(output) == [time for _, time in written]
        assert out.startswith(f"{output}: {len(written)} frames in ")
        return list(written)

    return run


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    """Ten frames at uneven times, with sound."""
    return clips.video(
        tmp_path / "in.mp4", 10, times=clips.VFR_TIMES, time_base=Fraction(1, 90000), audio="aac", pictures=blobs(10)
    )


def blobs(count: int) -> list[NDArray[np.uint8]]:
    """Pictures, 64 x 48, of a square that walks over noise."""
    found = clips.noise(count, 64, 48)
    for index, picture in enumerate(found):
        picture[10:30, 4 * index : 4 * index + 16] = 255
    return found


@pytest.fixture
def tracks(call: Call, tiny_bundle: Path, clip: Path, tmp_path: Path) -> Path:
    path = tmp_path / "tracks.json"
    assert call("keypoints", tiny_bundle, clip, "-o", path)[0] == 0
    return path


def written_edits(path: Path, edits: Edits) -> Path:
    write_edits(path, edits, overwrite=True)
    return path


def key_at(time: float, x: float = 0.3, y: float = -0.4, keypoint: int = 2, **how: Any) -> tuple[KeyTrack]:
    return (KeyTrack(keypoint, (Key(time, x, y),), **how),)


def test_keypoints_are_the_extractors(call: Call, tiny_bundle: Path, clip: Path, tmp_path: Path) -> None:
    output = tmp_path / "tracks.json"
    code, out, err = call("keypoints", tiny_bundle, clip, "-o", output, "--direction", "fox2cat")
    assert (code, err) == (0, RUNS.replace("a2b (cat2fox)", "b2a (fox2cat)"))
    assert out.startswith(
        f"{output}: 10 keypoints in 10 frames of fox, openvino in fp32, mode throughput (median ms: read "
    )
    found, retargeter = read_tracks(output), Retargeter(tiny_bundle, "b2a", mode="throughput")
    expected = [retargeter.extract(frame.rgb) for frame in read_video(clip, size=64)]
    assert np.array_equal(found.keypoints, np.stack([keypoints for keypoints, _ in expected]))
    assert found.confidence is not None
    assert np.array_equal(found.confidence, np.stack([confidence for _, confidence in expected]))
    assert (found.pts.tolist(), found.time_base) == (list(clips.VFR_TIMES), Fraction(1, 90000))
    assert (found.domain, found.size) == ("fox", 64)


def test_keypoints_json_is_one_object(call: Call, tiny_bundle: Path, clip: Path, tmp_path: Path) -> None:
    code, out, _ = call("keypoints", tiny_bundle, clip, "-o", tmp_path / "tracks.json", "--json")
    told = json.loads(out)
    assert (code, told["frames"], told["keypoints"], told["domain"]) == (0, 10, 10, "cat")
    assert list(told["stages"]) == ["read", "extract"]


@pytest.mark.parametrize("options", ["", "--engine onnxruntime --direction b2a --size 96", "--mode latency"])
def test_render_draws_what_run_draws(
    pictures: Callable[..., Written], call: Call, tiny_bundle: Path, clip: Path, tmp_path: Path, options: str
) -> None:
    """To the bit and the tick; with the direction that the motion's domain says."""
    tracks = tmp_path / "tracks.json"
    shared = [word for word in options.split() if word not in ("--size", "96")]
    assert call("keypoints", tiny_bundle, clip, "-o", tracks, *shared)[0] == 0
    expected = pictures("run", tiny_bundle, clip, *options.split())
    rest = [word for word in options.split() if word not in ("--direction", "b2a")]
    assert pictures("render", tiny_bundle, tracks, *rest) == expected
    assert len(set(expected)) == 10


def test_masks_are_seen_by_keypoints_as_by_run(
    pictures: Callable[..., Written], call: Call, tiny_bundle: Path, clip: Path, tmp_path: Path
) -> None:
    masks = clips.folder(tmp_path / "masks", [np.full((48, 64, 3), 255 * (k % 2), np.uint8) for k in range(10)])
    tracks = tmp_path / "tracks.json"
    assert call("keypoints", tiny_bundle, clip, "-o", tracks, "--masks", masks)[0] == 0
    masked = pictures("run", tiny_bundle, clip, "--masks", masks)
    assert pictures("render", tiny_bundle, tracks) == masked
    assert masked[0] != pictures("run", tiny_bundle, clip)[0]
    edits = written_edits(tmp_path / "edits.json", Edits())
    sides = ("run", tiny_bundle, clip, "--masks", masks, "--layout", "side-by-side")
    assert pictures(*sides, "--edits", edits) == pictures(*sides)


DOCUMENTS = {
    "none": Edits(),
    "keys": Edits(keypoints=key_at(0.15, fade=0.2)),
    "motion": Edits(smooth=2.0, exaggerate=1.5, mirror=True),
    "slow": Edits(smooth=2.0, speed=0.4, keypoints=key_at(0.15)),
    "fast": Edits(speed=2.5),
}


@pytest.mark.parametrize("name", DOCUMENTS)
def test_edits_give_the_same_pictures_by_either_way(
    pictures: Callable[..., Written], tiny_bundle: Path, clip: Path, tracks: Path, tmp_path: Path, name: str
) -> None:
    edits = written_edits(tmp_path / "edits.json", DOCUMENTS[name])
    edited = pictures("run", tiny_bundle, clip, "--edits", edits)
    assert pictures("render", tiny_bundle, tracks, "--edits", edits) == edited
    plain = pictures("run", tiny_bundle, clip)
    assert (edited == plain) == (name == "none")
    assert len(edited) == {"slow": 23, "fast": 5}.get(name, 10)
    if name in ("slow", "fast", "none"):
        start, end = edited[0][1], edited[-1][1]
        assert float(end - start) == pytest.approx(1.1 / DOCUMENTS[name].speed, abs=1e-4)


def test_smoothing_in_edits_is_that_of_run(
    pictures: Callable[..., Written], tiny_bundle: Path, clip: Path, tmp_path: Path
) -> None:
    edits = written_edits(tmp_path / "edits.json", Edits(smooth=1.5))
    smoothed = pictures("run", tiny_bundle, clip, "--smooth", "1.5")
    assert pictures("run", tiny_bundle, clip, "--edits", edits) == smoothed
    assert smoothed != pictures("run", tiny_bundle, clip)


def test_an_edit_moves_the_creature_there_and_only_then(
    pictures: Callable[..., Written], call: Call, tmp_path: Path
) -> None:
    """The demo's model, its brown puppet's head lifted by a tenth of the frame in one frame. A tenth of the picture,
    around where the blue one's head was and is now, holds most of the change; all other frames are untouched."""
    clip, tracks = tmp_path / "walk.mp4", tmp_path / "tracks.json"
    write_video(clip, BROWN, Motion.walk(8, seed=2026), 128)
    engine = ("--engine", "onnxruntime", "--precision", "fp32")
    assert call("keypoints", SHIPPED, clip, "-o", tracks, *engine)[0] == 0
    found = read_tracks(tracks)
    head, frame = 7, 5
    x, y = map(float, found.keypoints[frame, head])
    keys = key_at(float(found.times[frame]), x, y - 0.2, head, fade=0.0)
    edits = written_edits(tmp_path / "edits.json", Edits(keypoints=keys))
    plain, edited = (pictures("render", SHIPPED, tracks, *engine, *more) for more in ((), ("--edits", edits)))
    assert [index for index, pair in enumerate(zip(plain, edited, strict=True)) if pair[0] != pair[1]] == [frame]

    retargeter = Retargeter(SHIPPED, engine="onnxruntime")
    moved = found.keypoints[frame].copy()
    moved[head] = x, y - 0.2
    assert retargeter.draw(moved).tobytes() == edited[frame][0]
    before, after = (
        np.frombuffer(each[frame][0], np.uint8).reshape(128, 128, 3).astype(int) for each in (plain, edited)
    )
    change = np.abs(after - before).sum(-1)
    ys, xs = np.mgrid[:128, :128]
    there = np.zeros((128, 128), bool)
    for pose in (found.keypoints[frame], moved):
        warped = retargeter.engine.run("stn-a2b", {"keypoints": pose[None]})["warped"][0, head]
        row, column = np.unravel_index(warped.argmax(), warped.shape)
        there |= np.hypot(xs - 2 * column, ys - 2 * row) < 20
    assert there.mean() < 0.11
    assert change[there].sum() > 0.75 * change.sum()


def test_motion_written_by_hand_is_drawn(
    pictures: Callable[..., Written], call: Call, tiny_bundle: Path, tmp_path: Path
) -> None:
    """Of no creature of the model's, unlike that of one."""
    frames = [{"pts": 3 * k, "pose": [[0.08 * j - 0.4, 0.1 * k - 0.2] for j in range(10)]} for k in range(4)]
    header = {"jokr_tracks": 1, "domain": None, "size": None, "keypoints": 10, "rate": "25", "time_base": "1/75"}
    hand = tmp_path / "hand.json"
    hand.write_text(json.dumps(header | {"frames": frames}))
    drawn = pictures("render", tiny_bundle, hand)
    retargeter = Retargeter(tiny_bundle)
    poses = np.array([frame["pose"] for frame in frames], np.float32)
    assert drawn == [(retargeter.draw(pose).tobytes(), Fraction(k, 25)) for k, pose in enumerate(poses)]
    assert pictures("render", tiny_bundle, hand, "--direction", "b2a") != drawn

    hand.write_text(json.dumps(header | {"frames": frames, "domain": "fox"}))
    code, _, err = call("render", tiny_bundle, hand, "-o", tmp_path / "fox.mp4")
    assert (code, err) == (0, RUNS.replace("a2b (cat2fox)", "b2a (fox2cat)"))
    hand.write_text(json.dumps(header | {"frames": frames, "domain": "dog"}))
    code, _, err = call("render", tiny_bundle, hand, "-o", tmp_path / "dog.mp4")
    assert code == 2
    known = "a2b (cat2fox) and b2a (fox2cat)"
    assert err == (
        f"jokr: error: the motion is of 'dog', not of one of this model's creatures; choose a --direction, {known}\n"
    )
    assert call("render", tiny_bundle, hand, "-o", tmp_path / "dog.mp4", "--direction", "a2b")[0] == 0


def test_half_speed_shows_poses_between(
    pictures: Callable[..., Written], tiny_bundle: Path, tracks: Path, tmp_path: Path
) -> None:
    edits = written_edits(tmp_path / "edits.json", Edits(speed=0.5))
    slow, plain = pictures("render", tiny_bundle, tracks, "--edits", edits), pictures("render", tiny_bundle, tracks)
    assert [picture for picture, _ in slow[::2]] == [picture for picture, _ in plain]
    assert [time for _, time in slow[::2]] == [2 * time for _, time in plain]
    found = read_tracks(tracks)
    middle = (found.times[3] + found.times[4]) / 2
    pose = interpolate(found.times, found.keypoints.astype(np.float64), [middle])[0].astype(np.float32)
    assert slow[7][0] == Retargeter(tiny_bundle).draw(pose).tobytes()


def test_sound_is_copied_unless_time_is_scaled_which_is_said(
    call: Call, tiny_bundle: Path, clip: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    output, edits = tmp_path / "out.mp4", tmp_path / "edits.json"
    run = ("run", tiny_bundle, clip, "-o", output, "--overwrite", "--edits", edits)
    written_edits(edits, Edits(exaggerate=2.0))
    assert call(*run)[0] == 0
    assert clips.audio_packets(output) == clips.audio_packets(clip)
    assert not caplog.records
    written_edits(edits, Edits(speed=0.5))
    assert call(*run)[0] == 0
    with open_video(output) as video:
        assert not video.has_audio
    said = f"{clip}: its sound is left out, for the edits scale time"
    assert [record.getMessage() for record in caplog.records] == [said]
    caplog.clear()
    assert call(*run, "--no-audio")[0] == 0
    assert not caplog.records


BAD_CALLS: dict[str, tuple[Callable[[Path, Path], tuple[str | Path, ...]], int, str]] = {
    "no tracks": (lambda b, t: ("render", b, t / "none.json"), 1, "none.json: cannot be read: No such file"),
    "no JSON": (lambda b, t: ("render", b, text(t / "a.json", "{")), 1, "a.json: not JSON: "),
    "edits for tracks": (lambda b, t: ("render", b, t / "key9.json"), 1, 'which has "jokr_tracks": 1'),
    "tracks for edits": (
        lambda b, t: ("render", b, t / "tracks.json", "--edits", t / "tracks.json"),
        1,
        'tracks.json: not a document of this kind, which has "jokr_edits": 1',
    ),
    "other model": (lambda b, t: ("render", b, t / "three.json"), 2, "is of 3 keypoints, and the model has 10"),
    "other keypoint": (
        lambda b, t: ("render", b, t / "tracks.json", "--edits", t / "key10.json"),
        2,
        "the edits move keypoint 10, and there are 10, from 0",
    ),
    "run, other keypoint": (
        lambda b, t: ("run", b, t / "in.mp4", "--edits", t / "key10.json"),
        2,
        "the edits move keypoint 10, and there are 10, from 0",
    ),
    "edits and smooth": (
        lambda b, t: ("run", b, t / "in.mp4", "--edits", t / "key9.json", "--smooth", "3"),
        2,
        "edits have a smoothing of their own; set it there, and leave smooth out",
    ),
    "slow side by side": (
        lambda b, t: ("run", b, t / "in.mp4", "--edits", t / "slow.json", "--layout", "side-by-side"),
        2,
        "side-by-side",
    ),
    "direction": (lambda b, t: ("render", b, t / "tracks.json", "--direction", "a2c"), 2, "unknown direction 'a2c'"),
    "size": (lambda b, t: ("render", b, t / "tracks.json", "--size", "8"), 2, "size must be between 16 and 4096"),
    "clip for tracks": (lambda b, t: ("render", b, t / "in.mp4"), 1, "in.mp4: not JSON: "),
    "tracks for a clip": (lambda b, t: ("keypoints", b, t / "tracks.json"), 1, "tracks.json: not a video"),
    "no bundle": (lambda b, t: ("render", t, t / "tracks.json"), 1, "no bundle here"),
}


def text(path: Path, words: str) -> Path:
    path.write_text(words)
    return path


@pytest.mark.parametrize("case", BAD_CALLS)
def test_bad_input_is_one_line(
    call: Call, tiny_bundle: Path, clip: Path, tracks: Path, tmp_path: Path, case: str
) -> None:
    written_edits(tmp_path / "slow.json", Edits(speed=0.5))
    for keypoint in (9, 10):
        written_edits(tmp_path / f"key{keypoint}.json", Edits(keypoints=key_at(0.1, keypoint=keypoint)))
    three = np.zeros((2, 3, 2), np.float32)
    write_tracks(tmp_path / "three.json", Tracks(np.arange(2), Fraction(1, 30), Fraction(30), three))
    arguments, expected_code, words = BAD_CALLS[case]
    code, out, err = call(*arguments(tiny_bundle, tmp_path), "-o", tmp_path / "out.mp4")
    assert (code, out) == (expected_code, "")
    *before, line = err.splitlines()
    assert before in ([], [RUNS.strip()])
    assert line.startswith("jokr: error: ")
    assert words in line
    assert not (tmp_path / "out.mp4").exists()
    assert not (tmp_path / "out.mp4.part").exists()


def test_tracks_are_replaced_only_on_request_and_that_is_said_at_once(
    call: Call, tiny_bundle: Path, clip: Path, tracks: Path
) -> None:
    before = tracks.read_bytes()
    code, out, err = call("keypoints", tiny_bundle, clip, "-o", tracks, "--direction", "b2a")
    assert (code, out, tracks.read_bytes()) == (1, "", before)
    assert err == f"jokr: error: {tracks}: already exists; choose another name, or replace it with --overwrite\n"
    assert call("keypoints", tiny_bundle, clip, "-o", tracks, "--direction", "b2a", "--overwrite")[0] == 0
    assert read_tracks(tracks).domain == "fox"


def test_a_damaged_clip_leaves_no_tracks(call: Call, tiny_bundle: Path, clip: Path, tmp_path: Path) -> None:
    resized = clips.resolution_change(tmp_path / "change.ts")
    code, out, err = call("keypoints", tiny_bundle, resized, "-o", tmp_path / "tracks.json")
    assert (code, out) == (1, "")
    assert "is 96 x 64 pixels, those before" in err.splitlines()[-1]
    assert sorted(tmp_path.iterdir()) == sorted([clip, resized])


def test_the_document_in_the_readme_is_one() -> None:
    readme = (ROOT / "README.md").read_text()
    start = readme.index('{"jokr_edits"')
    edits = parse_edits(readme[start : readme.index("\n\n", start)])
    assert (edits.exaggerate, edits.speed) == (1.3, 0.5)
    assert edits.keypoints == (KeyTrack(7, (Key(1.2, 0.4, -0.3),), "cubic", 0.5),)


def test_progress_counts_what_is_read_and_what_is_drawn(tiny_bundle: Path, clip: Path, tmp_path: Path) -> None:
    edits = written_edits(tmp_path / "edits.json", Edits(exaggerate=1.2))
    output = tmp_path / "out.mp4"
    code, _, shown = jokr_on_terminal("run", tiny_bundle, clip, "-o", output, "--edits", edits, columns=100)
    assert code == 0
    assert "20/20" in shown


def test_ctrl_c_leaves_a_file_that_plays(tiny_bundle: Path, tmp_path: Path) -> None:
    """A real signal, once the part file has something in it."""
    poses = np.random.default_rng(0).uniform(-1, 1, (20_000, 10, 2)).astype(np.float32)
    write_tracks(tmp_path / "long.json", Tracks(np.arange(20_000), Fraction(1, 30), Fraction(30), poses))
    output, part = tmp_path / "out.mp4", tmp_path / "out.mp4.part"
    args = command("render", tiny_bundle, tmp_path / "long.json", "-o", output, "--engine", "onnxruntime")
    with subprocess.Popen(args, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            while process.poll() is None and not (part.exists() and part.stat().st_size > 10_000):
                time.sleep(0.01)
            process.send_signal(signal.SIGINT)
            out, err = process.communicate(timeout=60)
        finally:
            process.kill()
    assert (process.returncode, out) == (130, "")
    frames = sum(1 for _ in read_video(part))
    assert 0 < frames < 20_000
    assert err.splitlines()[-1] == f"jokr: interrupted; the first {frames} frames are kept in {part}"
    assert not output.exists()
