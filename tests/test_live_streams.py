"""Several streams in one process: one engine, batches, and for each stream what it gets when it runs alone."""

import threading
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from jokr_rt import Retargeter, read_video
from jokr_rt.bundle import Bundle
from jokr_rt.clock import RealClock
from jokr_rt.engines import load_engine
from jokr_rt.errors import EngineError, InputError, UsageError
from jokr_rt.frame import Frame
from jokr_rt.live import LiveOptions, run_live
from jokr_rt.live.inference import Inference
from jokr_rt.live.model import LiveModel
from jokr_rt.live.sink import Shown, Sink
from jokr_rt.video import write_video
from tests.tiny import creature_frames


def together(model: LiveModel, frames: Sequence[NDArray[np.uint8]], directions: Sequence[str]) -> tuple[list, int]:
    """Each frame through `model` in a thread of its own, all at once; and how many batches that were."""
    inference, drawn = Inference(RealClock()), [None] * len(frames)
    held, ready = threading.Event(), threading.Event()

    def hold(items: Sequence[None]) -> Sequence[None]:
        ready.set()
        held.wait(60)
        return items

    def work(index: int) -> None:
        keypoints, confidence = inference(model.extract, frames[index])
        drawn[index] = keypoints, confidence, inference(model.target(directions[index]).draw, keypoints)

    holding = threading.Thread(target=inference, args=(hold, None))
    holding.start()
    ready.wait(60)
    workers = [threading.Thread(target=work, args=(index,)) for index in range(len(frames))]
    for worker in workers:
        worker.start()
    while len(inference._waiting) < len(frames):
        pass
    held.set()
    for worker in [holding, *workers]:
        worker.join(60)
    inference.close(60)
    return drawn, inference.batches


@pytest.mark.parametrize("engine", ["onnxruntime", "openvino"])
def test_in_a_batch_as_alone(bundle: Bundle, engine: str) -> None:
    frames, directions = creature_frames(5, 64, seed=3), ["a2b", "a2b", "b2a", "a2b", "b2a"]
    loaded = load_engine(engine, bundle, "fp32")
    drawn, batches = together(LiveModel(lambda: (bundle, loaded)), frames, directions)
    assert batches >= 1
    for frame, direction, (keypoints, confidence, image) in zip(frames, directions, drawn, strict=True):
        alone = Retargeter(bundle, direction, loaded, "latency")
        expected_keypoints, expected_confidence = alone.extract(frame)
        assert np.abs(keypoints - expected_keypoints).max() <= 1e-5
        assert np.abs(confidence - expected_confidence).max() <= 1e-5
        assert np.abs(image.astype(int) - alone.draw(expected_keypoints)).max() <= 1  # one level


def test_a_bad_item_of_a_batch_fails_alone() -> None:
    inference, outcomes = Inference(RealClock()), {}
    started, go_on = threading.Event(), threading.Event()

    def hold(items: Sequence[None]) -> Sequence[None]:
        started.set()
        go_on.wait(60)
        return items

    def invert(items: Sequence[int]) -> list[float]:
        return [1 / item for item in items]

    def work(item: int) -> None:
        try:
            outcomes[item] = inference(invert, item)
        except ZeroDivisionError as error:
            outcomes[item] = error

    threads = [threading.Thread(target=inference, args=(hold, None))]
    threads[0].start()
    started.wait(60)
    threads += [threading.Thread(target=work, args=(item,)) for item in (4, 0, 2)]
    for thread in threads[1:]:
        thread.start()
    while len(inference._waiting) < 3:
        pass
    go_on.set()
    for thread in threads:
        thread.join(60)
    inference.close(60)
    assert (outcomes[4], outcomes[2]) == (0.25, 0.5)
    assert isinstance(outcomes[0], ZeroDivisionError)
    assert inference.batches == 1
    with pytest.raises(EngineError, match="inference has ended"):
        inference(invert, 1)


def clip(path: Path, seed: int) -> Path:
    frames = creature_frames(12, 64, seed)
    write_video(path, [Frame(rgb, index, Fraction(1, 6)) for index, rgb in enumerate(frames)], crf=0)
    return path


@pytest.fixture
def handed_over(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[NDArray[np.uint8]]]:
    """What every sink is given, by its name: before a codec makes more of a level's difference."""
    given: dict[str, list[NDArray[np.uint8]]] = {}
    put = Sink.put

    def keep(sink: Sink, shown: Shown) -> None:
        given.setdefault(sink.name, []).append(shown.image)
        put(sink, shown)

    monkeypatch.setattr(Sink, "put", keep)
    return given


def recorded(path: Path) -> list[NDArray[np.uint8]]:
    return [frame.rgb for frame in read_video(path)]


def test_two_streams_record_what_each_records_alone(
    tiny_bundle: Path, tmp_path: Path, handed_over: dict[str, list[NDArray[np.uint8]]]
) -> None:
    """Files that wait to be taken, so that no frame is dropped: every picture that is recorded is compared."""
    sources = [clip(tmp_path / f"in{seed}.mp4", seed) for seed in (1, 2)]

    def options(index: int, folder: str) -> LiveOptions:
        (tmp_path / folder).mkdir(exist_ok=True)
        return LiveOptions(
            str(sources[index]), (str(tmp_path / folder / f"{index}.mp4"),), name=f"s{index}", hold=0,
            direction=("a2b", "b2a")[index], queue=100,
        )  # fmt: skip

    for index in (0, 1):
        run_live(tiny_bundle, options(index, "alone"))
    figures = run_live(tiny_bundle, [options(index, "together") for index in (0, 1)])
    assert [each.shown for each in figures] == [12, 12]
    for index in (0, 1):
        paths = [tmp_path / folder / f"{index}.mp4" for folder in ("alone", "together")]
        assert [len(recorded(path)) for path in paths] == [12, 12]
        alone, together = (np.array(handed_over[str(path)], int) for path in paths)
        assert np.abs(alone - together).max() <= 1  # one level


def test_a_file_as_fast_as_it_goes_keeps_its_own_times(tiny_bundle: Path, tmp_path: Path) -> None:
    """A minute, in less: were the times those of drawing, they would be laid anew after a second."""
    frames = [Frame(rgb, index, Fraction(5)) for index, rgb in enumerate(creature_frames(12, 64, 1))]
    write_video(tmp_path / "slow.mp4", frames)
    run_live(tiny_bundle, LiveOptions(str(tmp_path / "slow.mp4"), (str(tmp_path / "rec.mp4"),), queue=100))
    assert [frame.pts_seconds for frame in read_video(tmp_path / "rec.mp4")] == [5.0 * index for index in range(12)]


def test_one_that_fails_leaves_the_others_and_is_told_of_at_the_end(tiny_bundle: Path, tmp_path: Path) -> None:
    good = LiveOptions(str(clip(tmp_path / "in.mp4", 1)), (str(tmp_path / "good.mp4"),), name="good", queue=100)
    bad = LiveOptions("tcp://127.0.0.1:1", (str(tmp_path / "bad.mp4"),), name="bad", retries=1, backoff=(0.01, 0.01))
    with pytest.raises(InputError, match=r"1 of 2 streams failed: bad: .*gave up after 1 retries"):
        run_live(tiny_bundle, [good, bad])
    assert len(recorded(tmp_path / "good.mp4")) == 12
    assert not (tmp_path / "bad.mp4").exists()


def test_streams_that_would_write_over_each_other_are_refused(tiny_bundle: Path, tmp_path: Path) -> None:
    source, output = str(clip(tmp_path / "in.mp4", 1)), (str(tmp_path / "out.mp4"),)
    with pytest.raises(UsageError, match=r"output .*out.mp4 is there twice"):
        run_live(tiny_bundle, [LiveOptions(source, output, name=name) for name in ("one", "two")])
    with pytest.raises(UsageError, match="name same is there twice"):
        run_live(tiny_bundle, [LiveOptions(source, (f"{index}.mp4",), name="same") for index in (1, 2)])
