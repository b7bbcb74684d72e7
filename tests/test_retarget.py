"""A frame through the three graphs: what goes where, and that all engines draw the same."""

from fractions import Fraction
from pathlib import Path

import numpy as np
import onnx
import pytest

import jokr_rt
from jokr_rt import Frame, Retargeter, open_bundle, read_video, write_video
from jokr_rt.engines import ENGINES, load_engine
from jokr_rt.errors import EngineError, UsageError
from jokr_rt.retarget import find_direction
from jokr_rt.training.checkpoint import load_checkpoint
from jokr_rt.training.engine import TorchEngine
from tests import clips
from tests.process import jokr
from tests.tiny import TINY, creature_frames, perturbed, replace_graph
from tests.tolerances import FP32, LEVELS

TIME = (7, Fraction(1, 90000))


@pytest.fixture(scope="module")
def reference(tiny_checkpoint: Path) -> TorchEngine:
    return TorchEngine(load_checkpoint(tiny_checkpoint))


@pytest.fixture(scope="module")
def retargeter(tiny_bundle: Path) -> Retargeter:
    return Retargeter(tiny_bundle)


def frames(count: int = 3) -> list[Frame]:
    return [Frame(rgb, index, TIME[1]) for index, rgb in enumerate(creature_frames(count, TINY.size, seed=3))]


@pytest.mark.parametrize(("direction", "target"), [("a2b", "b"), ("b2a", "a")])
@pytest.mark.parametrize("name", ENGINES)
def test_every_engine_draws_what_pytorch_draws(
    tiny_bundle: Path, reference: TorchEngine, name: str, direction: str, target: str
) -> None:
    """And that is: keypoints through this direction's transformer, with the looks of the target."""
    retargeter = Retargeter(tiny_bundle, direction, name)
    for frame in frames():
        found = reference.run("extractor", {"frame": frame.rgb[None]})
        warped = reference.run(f"stn-{direction}", {"keypoints": found["keypoints"]})["warped"]
        looks = reference.appearance(target)
        image = reference.run("generator", {"warped": warped, "appearance": looks})["image"][0]

        result = retargeter.retarget(frame)
        np.testing.assert_allclose(result.keypoints, found["keypoints"][0], rtol=0, atol=FP32)
        np.testing.assert_allclose(result.confidence, found["confidence"][0], rtol=0, atol=FP32)
        assert np.abs(result.image.rgb.astype(int) - image).max() <= LEVELS
        assert np.ptp(image) > 50  # a picture, not a flat field
        assert np.array_equal(retargeter(frame).rgb, result.image.rgb)


def test_pytorch_runs_a_checkpoint_through_the_same_door(tiny_bundle: Path, reference: TorchEngine) -> None:
    """The looks are those that export chose."""
    expected, actual = Retargeter(tiny_bundle, "b2a"), Retargeter(reference, "fox2cat", reference)
    assert actual.direction == "b2a"
    for frame in frames():
        assert np.abs(actual(frame).rgb.astype(int) - expected(frame).rgb).max() <= LEVELS
    with pytest.raises(UsageError, match="engine 'auto' runs a bundle"):
        Retargeter(reference)


def test_directions_differ(tiny_bundle: Path) -> None:
    there, back = (Retargeter(tiny_bundle, direction)(frames()[0]).rgb.astype(int) for direction in ("a2b", "b2a"))
    assert np.abs(there - back).max() > 10


def test_time_travels_through(retargeter: Retargeter) -> None:
    result = retargeter.retarget(Frame(frames()[0].rgb, *TIME))
    for frame in (result.source, result.image, retargeter(Frame(frames()[0].rgb, *TIME))):
        assert (frame.pts, frame.time_base) == TIME
        assert frame.rgb.shape == (64, 64, 3)


def test_a_frame_of_any_size_is_letterboxed_as_the_reader_does(retargeter: Retargeter, tmp_path: Path) -> None:
    path = clips.video(tmp_path / "wide.mp4", 2, width=96, height=48)
    for whole, boxed in zip(read_video(path), read_video(path, size=64), strict=True):
        assert whole.rgb.shape == (48, 96, 3)
        result = retargeter.retarget(whole)
        assert np.abs(result.source.rgb.astype(int) - boxed.rgb).mean() < LEVELS
        assert not result.source.rgb[:16].any()  # a bar, not a stretched picture


def test_the_readme_example(tiny_bundle: Path, tmp_path: Path) -> None:
    """Reader, retargeter and writer are made for each other."""
    output = tmp_path / "out.mp4"
    source = clips.video(tmp_path / "in.mp4", 10, times=clips.VFR_TIMES, time_base=TIME[1])
    assert write_video(output, map(Retargeter(tiny_bundle, "a2b"), read_video(source))) == 10
    assert [frame.pts * frame.time_base for frame in read_video(output)] == [time * TIME[1] for time in clips.VFR_TIMES]


def test_a_mask_puts_the_object_before_black(retargeter: Retargeter) -> None:
    frame = frames()[0]
    mask = np.zeros((64, 64), bool)
    mask[:, 32:] = True
    noisy = Frame(np.where(mask[..., None], frame.rgb, 200).astype(np.uint8), *TIME)
    alone = Frame((frame.rgb * mask[..., None]).astype(np.uint8), *TIME)
    result = retargeter.retarget(noisy, mask)
    assert np.array_equal(result.source.rgb, alone.rgb)
    assert np.array_equal(result.keypoints, retargeter.retarget(alone).keypoints)
    assert not np.array_equal(result.keypoints, retargeter.retarget(noisy).keypoints)
    assert noisy.rgb[0, 0, 0] == 200  # the caller's frame is left alone
    for wrong in (mask[:32], mask.astype(np.uint8) * 255):
        with pytest.raises(UsageError, match=r"a mask must be bool \(64, 64\), not "):
            retargeter.retarget(noisy, wrong)


def test_keypoints_can_be_edited_in_between(retargeter: Retargeter) -> None:
    keypoints, confidence = retargeter.extract(frames()[0].rgb)
    assert keypoints.shape == (10, 2)
    assert confidence.shape == (10,)
    drawn = retargeter.draw(keypoints).astype(int)
    assert np.array_equal(drawn, retargeter(frames()[0]).rgb)
    assert np.abs(drawn - retargeter.draw(keypoints * np.float32(-1))).max() > 10


@pytest.mark.parametrize("mode", ["latency", "throughput"])
@pytest.mark.parametrize("name", ["onnxruntime", "openvino"])
def test_keypoints_that_are_no_numbers_are_not_drawn(bundle_copy: Path, name: str, mode: str) -> None:
    """A model whose numbers overflow, as in 16 bits: whatever the engine, and in both ways to ask for frames."""
    proto = onnx.load(bundle_copy / "extractor.onnx")
    bundle = replace_graph(bundle_copy, "extractor", perturbed(proto, "keypoint_head.bias", np.nan))
    retarget = Retargeter(bundle, engine=load_engine(name, bundle), mode=mode)
    words = f"^{name}: keypoints in fp32 are NaN or infinite; try another --precision, and look with `jokr verify`$"
    with pytest.raises(EngineError, match=words):
        retarget(frames(1)[0])
    with pytest.raises(EngineError, match=words):
        list(retarget.retarget_all([(frames(1)[0], None)]))


def test_unknown_directions(tiny_bundle: Path) -> None:
    with pytest.raises(UsageError) as caught:
        Retargeter(tiny_bundle, "a2c")
    assert str(caught.value) == "unknown direction 'a2c'; this model has a2b (cat2fox) and b2a (fox2cat)"
    assert find_direction("fox2cat", {"a": "cat", "b": "fox"}) == "b2a"
    assert find_direction("my cat2r2d2", {"a": "my cat", "b": "r2d2"}) == "a2b"
    assert find_direction("a2b", {"a": "b", "b": "a"}) == "a2b"  # the letters, though "a2b" is the other's name too
    with pytest.raises(UsageError, match="unknown direction 'clip2clip'"):  # which of the two?
        find_direction("clip2clip", {"a": "clip", "b": "clip"})
    assert find_direction("b2a", {"a": "clip", "b": "clip"}) == "b2a"


def test_timings_name_each_stage(tiny_bundle: Path) -> None:
    retargeter = Retargeter(open_bundle(tiny_bundle), engine="onnxruntime")
    for frame in frames():
        retargeter(frame)
    timings = retargeter.timings.milliseconds()
    assert list(timings) == ["extract", "draw", "frame"]
    assert all(0 < stage["p50"] <= stage["p95"] <= stage["p99"] for stage in timings.values())


def test_the_public_names() -> None:
    assert len(jokr_rt.__all__) == 8
    assert all(getattr(jokr_rt, name) is not None for name in jokr_rt.__all__)
    assert set(jokr_rt.__all__) <= set(dir(jokr_rt))
    with pytest.raises(AttributeError, match="has no attribute 'Retarget'"):
        _ = jokr_rt.Retarget


def test_importing_the_package_and_asking_for_help_loads_nothing_heavy() -> None:
    prelude = (
        "import atexit, sys\n"
        "heavy = {'av', 'numpy', 'onnxruntime', 'openvino', 'torch', 'rich', 'onnx'}\n"
        "atexit.register(lambda: print('heavy', *sorted(heavy & set(sys.modules))))\n"
        "import jokr_rt"
    )
    for args in (["--help"], ["--version"], ["run", "--help"]):
        done = jokr(*args, prelude=prelude)
        assert done.returncode == 0
        assert done.stdout.splitlines()[-1] == "heavy"


def test_a_run_loads_only_what_it_needs(tiny_bundle: Path, tmp_path: Path) -> None:
    """No other engine, nothing of what measures or makes a model: what is loaded costs time before the first frame."""
    prelude = (
        "import atexit, sys\n"
        "others = {'onnxruntime', 'torch', 'onnx', 'nncf', 'jinja2', 'matplotlib', 'sklearn', 'skimage', 'export',\n"
        "          'jokr_rt.evaluation', 'jokr_rt.training', 'jokr_rt.bench', 'jokr_rt.live.session'}\n"
        "atexit.register(lambda: print('others', *sorted(others & set(sys.modules))))"
    )
    clip = clips.video(tmp_path / "in.mp4", 3)
    done = jokr("run", tiny_bundle, clip, "-o", tmp_path / "out.mp4", "--engine", "openvino", prelude=prelude)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "others"
