"""A creature in the looks of another picture of it: from Python, by `jokr run` and `jokr render`, and live."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from jokr_rt import Retargeter, open_bundle
from jokr_rt.bundle import Bundle
from jokr_rt.engines import load_engine
from jokr_rt.evaluation import metrics
from jokr_rt.evaluation.puppets import BLUE, BROWN, Motion, Puppet, joints, render
from jokr_rt.live.model import LiveModel
from jokr_rt.looks import with_looks
from jokr_rt.stream import find_tracks, render_stream, retarget_stream
from jokr_rt.tracks import read_tracks, write_tracks
from jokr_rt.training.checkpoint import load_checkpoint
from jokr_rt.video import read_picture, write_png
from tests import clips
from tests.process import ROOT, Call
from tests.tiny import creature_frames
from tests.tolerances import FP32, LEVELS

SHIPPED = ROOT / "examples" / "puppets.jokr"
Pixels = NDArray[np.uint8]


@pytest.fixture(scope="module")
def picture(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of the tiny bundle's fox, 64 x 64, on black."""
    path = tmp_path_factory.mktemp("picture") / "fox.png"
    write_png(path, creature_frames(5, 64, 9)[2])
    return path


def dressed(bundle: Bundle, picture: Path, mode: str = "latency") -> Retargeter:
    """From a to b, which looks as in a picture."""
    engine = load_engine("openvino", bundle, "fp32")
    model = with_looks(bundle, engine, "b", read_picture(picture, bundle.config.size))
    return Retargeter(model, "a2b", engine, mode)


def test_the_frame_that_export_chose_gives_what_the_bundle_holds(
    tiny_checkpoint: Path, bundle: Bundle, tmp_path: Path
) -> None:
    """It is among the checkpoint's reference frames; the others give others."""
    engine = load_engine("openvino", bundle, "fp32")
    distances = []
    for frame in load_checkpoint(tiny_checkpoint).references["b"]:
        write_png(tmp_path / "fox.png", frame)
        made = with_looks(bundle, engine, "b", read_picture(tmp_path / "fox.png", 64))
        distances.append(np.abs(made.appearance("b") - bundle.appearance("b")).max())
        assert np.array_equal(made.appearance("a"), bundle.appearance("a"))
    assert sorted(distances)[0] < FP32
    assert sorted(distances)[1] > 0.01


def puppet_before_black(puppet: Puppet, index: int = 7, size: int = 128) -> Pixels:
    pose = joints(puppet, Motion.walk(16, seed=3))[index]
    rgb, mask = render(puppet, pose, size)
    return np.asarray(rgb * (mask >= 128)[..., None], np.uint8)


def test_looks_touch_no_pose(tmp_path: Path) -> None:
    """Other pictures of the blue puppet, even a red one, leave its silhouette; the brown one's makes it brown."""
    bundle = open_bundle(SHIPPED)
    own = Retargeter(bundle, "a2b", load_engine("openvino", bundle, "fp32"))
    poses = [own.extract(render(BROWN, pose, 128)[0])[0] for pose in joints(BROWN, Motion.walk(16, seed=5))]

    def drawn(retargeter: Retargeter) -> Pixels:
        return np.stack([retargeter.draw(pose) for pose in poses])

    def redness(frames: Pixels) -> float:
        red, _, blue = frames[metrics.silhouettes(frames)].mean(axis=0)
        return float(red - blue)

    expected = drawn(own)
    assert redness(expected) < -20
    puppets = {"blue": BLUE, "red": replace(BLUE, colour=BLUE.colour[::-1]), "brown": BROWN}
    for name, puppet in puppets.items():
        write_png(tmp_path / f"{name}.png", puppet_before_black(puppet))
        found = drawn(dressed(bundle, tmp_path / f"{name}.png"))
        assert not np.array_equal(found, expected)
        if name == "brown":
            assert redness(found) > 20
        else:
            assert metrics.iou(metrics.silhouettes(found), metrics.silhouettes(expected)).mean() > 0.95


@pytest.mark.parametrize("command", ["run", "render"])
def test_the_command_writes_what_the_library_writes(
    call: Call, tiny_bundle: Path, bundle: Bundle, picture: Path, tmp_path: Path, command: str
) -> None:
    source, retargeter = clips.video(tmp_path / "in.mp4", 6), dressed(bundle, picture, "throughput")
    if command == "render":
        write_tracks(tmp_path / "tracks.json", find_tracks(retargeter, source))
        source = tmp_path / "tracks.json"
    for name, options in (("own", []), ("other", ["--appearance", picture])):
        assert call(command, tiny_bundle, source, "-o", tmp_path / f"{name}.mp4", *options)[0] == 0
    if command == "run":
        retarget_stream(retargeter, source, tmp_path / "library.mp4")
    else:
        render_stream(retargeter, read_tracks(source), tmp_path / "library.mp4")
    library, other, own = ((tmp_path / f"{name}.mp4").read_bytes() for name in ("library", "other", "own"))
    assert other == library
    assert other != own


def test_what_is_transparent_is_black(call: Call, tiny_bundle: Path, tmp_path: Path) -> None:
    """However bright the pixels are that nobody sees."""
    on_black = creature_frames(5, 64, 9)[2]
    seen = (on_black > 0).any(axis=2)
    hidden = np.where(seen[..., None], on_black, 255).astype(np.uint8)
    clips.image(tmp_path / "black.png", on_black)
    clips.image(tmp_path / "cut-out.png", np.dstack([hidden, seen.astype(np.uint8) * 255]))
    clip = clips.video(tmp_path / "in.mp4", 3)
    for name in ("black", "cut-out"):
        options = ["--appearance", tmp_path / f"{name}.png"]
        assert call("run", tiny_bundle, clip, "-o", tmp_path / f"{name}.mp4", *options)[0] == 0
    assert (tmp_path / "black.mp4").read_bytes() == (tmp_path / "cut-out.mp4").read_bytes()


def test_a_bad_picture_is_one_line_and_no_file(call: Call, tiny_bundle: Path, tmp_path: Path) -> None:
    clip = clips.video(tmp_path / "in.mp4", 3)
    (tmp_path / "notes.png").write_text("no picture\n" * 50)
    clips.image(tmp_path / "whole.jpg", clips.noise(1)[0])
    clips.truncated(tmp_path / "whole.jpg", tmp_path / "cut.jpg", 0.6)
    for name, words in (
        ("missing.png", "there is no such file or folder"),
        ("notes.png", "damaged or cut off"),
        ("cut.jpg", "this image is cut off; replace it"),
    ):
        options = ["--appearance", tmp_path / name]
        code, out, err = call("run", tiny_bundle, clip, "-o", tmp_path / "out.mp4", *options)
        assert (code, out) == (1, "")
        assert err.splitlines()[-1].startswith(f"jokr: error: {tmp_path / name}: {words}")
        assert "Traceback" not in err
        code, _, err = call("live", tiny_bundle, "--input", clip, "--output", tmp_path / "out.mp4", *options)
        assert code == 1
        assert err.splitlines()[-1].startswith(f"jokr: error: {tmp_path / name}: {words}")
    assert not list(tmp_path.glob("out.mp4*"))


def test_a_live_target_looks_as_in_its_picture(bundle: Bundle, picture: Path) -> None:
    """Alone to the bit; streams of the same looks share a batch."""
    model = LiveModel(lambda: (bundle, load_engine("openvino", bundle, "fp32")), batches=True)
    target = model.target("cat2fox", str(picture))
    assert target is model.target("a2b", str(picture)) is not model.target("a2b")
    expected, own = dressed(bundle, picture), Retargeter(bundle, "a2b", "openvino")
    poses = [expected.extract(frame)[0] for frame in creature_frames(2, 64, 1)]
    wanted = [expected.draw(pose) for pose in poses]
    assert np.array_equal(target.draw(poses[:1])[0], wanted[0])
    assert np.array_equal(model.target("a2b").draw(poses[:1])[0], own.draw(poses[0]))
    assert not np.array_equal(wanted[0], own.draw(poses[0]))
    assert np.abs(np.stack(target.draw(poses)).astype(int) - np.stack(wanted)).max() <= LEVELS


def test_nothing_of_a_picture_is_kept_by_openvino(bundle: Bundle, picture: Path, model_cache: Path) -> None:
    dressed(bundle, picture)
    assert sorted(path.name.partition("-")[0] for path in model_cache.iterdir()) == ["extract", "place"]
    Retargeter(bundle, "a2b", load_engine("openvino", bundle, "fp32"))
    assert len(list(model_cache.glob("paint-*"))) == 1
