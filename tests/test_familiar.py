"""The wrong creature does not pass silently, and the right one is not doubted."""

import logging
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from jokr_rt import Retargeter, open_bundle
from jokr_rt.evaluation.data import puppet_data
from jokr_rt.evaluation.puppets import Walk
from jokr_rt.familiar import FAMILIAR, FRAMES, Familiarity
from jokr_rt.frame import Frame
from jokr_rt.stream import find_tracks
from jokr_rt.video import write_video
from tests.process import ROOT, jokr

BUNDLE = ROOT / "examples" / "puppets.jokr"
SIZE = 128


@pytest.fixture(scope="module")
def retargeters() -> dict[str, Retargeter]:
    bundle = open_bundle(BUNDLE)
    return {direction: Retargeter(bundle, direction) for direction in ("a2b", "b2a")}


@pytest.fixture(scope="module")
def clips() -> dict[str, np.ndarray]:
    """Eight frames of each, (T, S, S, 3), over a walk that training never saw."""
    walk = Walk(48, 5, 0.9)
    domains = puppet_data(SIZE, ("brown", "blue"), training=walk, test=walk, probe=walk).domains
    found = {}
    for name, other in (("a", "b"), ("b", "a")):
        test, stranger = domains[name].test, domains[other].test
        found[name] = test.frames[::6]
        found[f"{name} before black"] = test.on_black[::6]
        found[f"{name} before the other's background"] = np.where(
            test.masks[::6, ..., None] > 127, test.frames[::6], stranger.frames[::6]
        )
        found[f"{name} half hidden"] = test.on_black[::6] * (np.arange(SIZE) >= SIZE // 2)[:, None].astype(np.uint8)
        small = np.zeros_like(test.on_black[::6])
        small[:, 32:96, 32:96] = test.on_black[::6, ::2, ::2]
        found[f"{name} at half its size"] = small
    found["noise"] = np.random.default_rng(0).integers(0, 256, (FRAMES, SIZE, SIZE, 3)).astype(np.uint8)
    found["a grey wall"] = np.full((FRAMES, SIZE, SIZE, 3), 128, np.uint8)
    ramp = np.linspace(0, 255, SIZE).astype(np.uint8)
    found["a landscape"] = np.broadcast_to(ramp[:, None, None], (FRAMES, SIZE, SIZE, 3)).copy()
    return found


def doubt_of(retargeter: Retargeter, frames: np.ndarray) -> str:
    familiar = retargeter.familiarity()
    assert familiar is not None
    told = [familiar.see(*retargeter.extract(frame), frame) for frame in frames]
    assert told == [False] * (FRAMES - 1) + [bool(familiar.doubt)]
    return familiar.doubt


@pytest.mark.parametrize(
    "seen", ["", " before black", " before the other's background", " half hidden", " at half its size"]
)
def test_the_creature_that_it_knows_is_not_doubted(retargeters, clips, seen):
    assert doubt_of(retargeters["a2b"], clips[f"a{seen}"]) == ""
    assert doubt_of(retargeters["b2a"], clips[f"b{seen}"]) == ""


@pytest.mark.parametrize("stranger", ["noise", "a grey wall", "a landscape"])
def test_what_it_does_not_know_is_doubted(retargeters, clips, stranger):
    assert doubt_of(retargeters["a2b"], clips[stranger]).startswith("does not look like brown: its keypoints are found")
    assert doubt_of(retargeters["b2a"], clips[stranger]).startswith("does not look like blue: ")


@pytest.mark.parametrize("seen", ["", " before black"])
def test_the_other_creature_is_told_by_its_colours(retargeters, clips, seen):
    wanted = "is it the other --direction that you want?"
    assert doubt_of(retargeters["b2a"], clips[f"a{seen}"]) == f"looks like brown rather than blue; {wanted}"
    assert doubt_of(retargeters["a2b"], clips[f"b{seen}"]) == f"looks like blue rather than brown; {wanted}"


def test_it_judges_the_mean_of_its_last_frames_and_says_so_once_for_each_loss():
    bundle = open_bundle(BUNDLE)
    familiar = Familiarity(bundle, "a2b")
    usual = float(bundle.samples()["extractor"]["confidence"].mean())
    keypoints = np.zeros((20, 2), np.float32)

    def see(share: float) -> bool:
        return familiar.see(keypoints, np.full(20, share * usual, np.float32))

    assert [see(0) for _ in range(FRAMES)] == [False] * (FRAMES - 1) + [True]
    assert f"a confidence of 0.00, where {usual:.2f} is usual" in familiar.doubt
    assert [see(0) for _ in range(3)] == [False] * 3
    recovering = [see(1.001) or bool(familiar.doubt) for _ in range(FRAMES)]
    assert recovering == [index + 1 < FAMILIAR * FRAMES for index in range(FRAMES)]
    assert sum(see(0) for _ in range(FRAMES)) == 1


def test_a_run_warns_once_and_draws_what_it_drew_before(clips, tmp_path: Path, caplog: pytest.LogCaptureFixture):
    path = tmp_path / "noise.mp4"
    frames = np.concatenate([clips["noise"]] * 3)
    write_video(path, (Frame(rgb, index, Fraction(1, 10)) for index, rgb in enumerate(frames)))
    done = jokr("run", BUNDLE, path, "-o", tmp_path / "out.mp4")
    assert done.returncode == 0
    assert done.stderr.count(f"{path} does not look like brown") == 1
    with caplog.at_level(logging.WARNING):
        find_tracks(Retargeter(open_bundle(BUNDLE), "a2b"), path)
    assert len([message for message in caplog.messages if "does not look like brown" in message]) == 1


def test_a_checkpoint_is_not_judged(tiny_checkpoint, tmp_path):
    from jokr_rt.training.checkpoint import load_checkpoint
    from jokr_rt.training.engine import TorchEngine

    engine = TorchEngine(load_checkpoint(tiny_checkpoint))
    assert Retargeter(engine, "a2b", engine).familiarity() is None
