"""A whole video through the pipeline: every frame at its own time, and what is left when a stage fails."""

import subprocess
import sys
import time
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from numpy.typing import NDArray

from jokr_rt import Frame, Retargeter, open_bundle, read_video
from jokr_rt.bundle import Arrays, Bundle
from jokr_rt.engines import Engine, load_engine
from jokr_rt.errors import EngineError, InputError, JokrError, OutputError, UsageError
from jokr_rt.keypoints import smooth
from jokr_rt.pipeline import DEPTH
from jokr_rt.stream import retarget_stream
from jokr_rt.video import VideoSource, VideoWriter, letterbox, open_masks
from tests import clips
from tests.process import ROOT, jokr
from tests.threads import no_thread_is_left
from tests.tolerances import FP32

TICK = Fraction(1, 90000)


@pytest.fixture
def retargeter(tiny_bundle: Path) -> Retargeter:
    return Retargeter(tiny_bundle)


class Echo:
    """An engine whose output is a flat picture as bright as the input's middle, so that frames can be told apart.

    It calls `before` with the number of each frame it is given.
    """

    name = "echo"

    def __init__(self, engine: Engine, before: Callable[[int], object] = lambda _: None) -> None:
        self.engine = engine
        self.before = before
        self.count = 0

    def run(self, graph: str, inputs: Arrays) -> Arrays:
        if graph == "extractor":
            self.before(self.count)
            self.count += 1
            self.level = inputs["frame"][0, 28:36, 28:36].mean().round().astype(np.uint8)
        outputs = self.engine.run(graph, inputs)
        if graph == "generator":
            outputs["image"] = np.full_like(outputs["image"], self.level)
        return outputs


def echoing(bundle: Path, before: Callable[[int], object] = lambda _: None) -> Retargeter:
    opened = open_bundle(bundle)
    return Retargeter(opened, engine=Echo(load_engine("onnxruntime", opened), before))


def levels(path: Path) -> list[int]:
    """Brightness of the middle of every frame."""
    return [round(float(frame.rgb[28:36, 28:36].mean())) for frame in read_video(path, size=64)]


def luma(rgb: NDArray[np.generic]) -> NDArray[np.float64]:
    """What 4:2:0 keeps at full resolution."""
    return np.asarray(rgb @ np.array([0.299, 0.587, 0.114]))


def times(path: Path) -> list[Fraction]:
    return [frame.pts * frame.time_base for frame in read_video(path)]


def audio_packets(path: Path) -> list[tuple[bytes, Fraction]]:
    with av.open(str(path)) as container:
        packets = [packet for packet in container.demux(audio=0) if packet.dts is not None]
        return [(bytes(packet), packet.pts * packet.time_base) for packet in packets]


def failure(run: Callable[[], object], kind: type[BaseException]) -> str:
    with pytest.raises(kind) as caught:
        run()
    assert no_thread_is_left()
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_times_and_sound_of_a_variable_frame_rate_are_the_inputs(retargeter: Retargeter, tmp_path: Path) -> None:
    source, output = tmp_path / "in.mp4", tmp_path / "out.mp4"
    clips.video(source, 10, times=clips.VFR_TIMES, time_base=TICK, audio="aac")
    report = retarget_stream(retargeter, source, output)
    assert report.frames == 10
    assert times(output) == times(source) == [time * TICK for time in clips.VFR_TIMES]
    assert audio_packets(output) == audio_packets(source)
    assert len(audio_packets(source)) > 20
    assert not (tmp_path / "out.mp4.part").exists()


def test_every_frame_comes_out_in_order(tiny_bundle: Path, tmp_path: Path) -> None:
    source, output = clips.video(tmp_path / "in.mp4", 40), tmp_path / "out.mp4"
    told: list[tuple[int, int | None]] = []
    report = retarget_stream(echoing(tiny_bundle), source, output, progress=lambda *update: told.append(update))
    expected = levels(source)
    assert report.frames == 40
    assert len(set(expected)) == 40
    assert np.abs(np.subtract(levels(output), expected)).max() <= 2  # as coded
    assert told == [(done, 40) for done in range(1, 41)]


def test_the_output_is_what_the_retargeter_draws(retargeter: Retargeter, tmp_path: Path) -> None:
    source, output = clips.video(tmp_path / "in.mp4", 5), tmp_path / "out.mp4"
    retarget_stream(retargeter, source, output, crf=1)
    for frame, written in zip(read_video(source, size=64), read_video(output), strict=True):
        drawn = retargeter(frame).rgb.astype(int)
        assert np.abs(luma(drawn) - luma(written.rgb)).mean() < 3
        assert np.abs(luma(drawn) - luma(frame.rgb)).mean() > 30


def test_the_report(retargeter: Retargeter, tmp_path: Path) -> None:
    report = retarget_stream(retargeter, clips.video(tmp_path / "in.mp4", 12), tmp_path / "out.mp4")
    assert report.frames == 12
    assert report.fps == pytest.approx(12 / report.seconds)
    assert list(report.stages) == ["read", "extract", "draw", "frame", "write"]
    assert all(0 < stage["p50"] <= stage["p95"] <= stage["p99"] for stage in report.stages.values())
    again = retarget_stream(retargeter, tmp_path / "in.mp4", tmp_path / "again.mp4")
    assert again.stages != report.stages  # of the second run alone


def test_side_by_side_shows_input_keypoints_and_output(retargeter: Retargeter, tmp_path: Path) -> None:
    source, output = clips.video(tmp_path / "in.mp4", 3), tmp_path / "out.mp4"
    retarget_stream(retargeter, source, output, layout="side-by-side", size=128, crf=1)
    sizes = (read_video(path, size=size) for path, size in ((source, 64), (source, 128), (output, None)))
    for small, frame, row in zip(*sizes, strict=True):
        assert row.rgb.shape == (128, 384, 3)
        left, middle, right = np.split(row.rgb.astype(int), 3, axis=1)
        assert np.abs(left - frame.rgb).mean() < 4
        assert np.abs(middle - frame.rgb // 2).mean() < 12
        assert (np.abs(middle - frame.rgb // 2).max(-1) > 60).sum() > 100  # the dots
        drawn = letterbox(retargeter(small), 128)
        assert np.abs(luma(right) - luma(drawn.rgb)).mean() < 4


def test_a_folder_of_frames(tiny_bundle: Path, tmp_path: Path) -> None:
    pictures = [clips.picture(64, 64, shade) for shade in (0, 60, 120, 180, 240)]
    folder, output = clips.folder(tmp_path / "frames", pictures), tmp_path / "out.mp4"
    for source in (folder, folder / "%05d.png"):
        retarget_stream(echoing(tiny_bundle), source, output, overwrite=True)
        assert times(output) == [Fraction(index, 10) for index in range(5)]
        assert np.abs(np.subtract(levels(output), [0, 60, 120, 180, 240])).max() <= 2


def test_masks_reach_the_extractor(tiny_bundle: Path, tmp_path: Path) -> None:
    """Where the mask is black in the middle, the extractor sees black there."""
    source = clips.video(tmp_path / "in.mp4", 4, height=64, pictures=[clips.picture(64, 64, 200)] * 4)
    shapes = [np.full((64, 64), 255, np.uint8), np.zeros((64, 64), np.uint8)] * 2
    masks, output = clips.folder(tmp_path / "masks", shapes), tmp_path / "out.mp4"
    retarget_stream(echoing(tiny_bundle), source, output, masks=masks)
    assert np.abs(np.subtract(levels(output), [200, 0, 200, 0])).max() <= 4


@pytest.mark.parametrize(("frames", "masks"), [(6, 4), (4, 6)])
def test_counts_of_frames_and_masks_that_differ(
    retargeter: Retargeter, tmp_path: Path, frames: int, masks: int
) -> None:
    source, output = clips.video(tmp_path / "in.mp4", frames), tmp_path / "out.mp4"
    folder = clips.folder(tmp_path / "masks", [np.full((48, 64), 255, np.uint8)] * masks)
    with open_masks(folder) as opened:
        assert len(list(opened)) == masks
    message = failure(lambda: retarget_stream(retargeter, source, output, masks=folder), InputError)
    assert f"{folder}: {masks} masks for the {frames} frames of {source}" in message
    assert not output.exists()


class Recorder:
    """An engine that keeps what poses it found, and what poses it was told to draw."""

    name = "recorder"

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.found: list[NDArray[np.float32]] = []
        self.drawn: list[NDArray[np.float32]] = []

    def run(self, graph: str, inputs: Arrays) -> Arrays:
        outputs = self.engine.run(graph, inputs)
        if graph == "extractor":
            self.found.append(outputs["keypoints"][0])
        elif graph.startswith("stn-"):
            self.drawn.append(inputs["keypoints"][0])
        return outputs


def test_smoothed_keypoints_are_drawn_at_the_videos_own_times(bundle: Bundle, tmp_path: Path) -> None:
    """Each run has a filter of its own, whose first pose is as found."""
    source, output = tmp_path / "in.mp4", tmp_path / "out.mp4"
    clips.video(source, 10, times=clips.VFR_TIMES, time_base=TICK)
    for _ in range(2):
        recorder = Recorder(load_engine("onnxruntime", bundle))
        retarget_stream(Retargeter(bundle, engine=recorder), source, output, smooth=0.5, overwrite=True)
        expected = smooth([float(time * TICK) for time in clips.VFR_TIMES], np.stack(recorder.found), 0.5)
        np.testing.assert_allclose(recorder.drawn, expected, atol=FP32)
        assert np.abs(np.subtract(recorder.drawn, recorder.found)).max() > 100 * FP32
    retarget_stream(Retargeter(bundle, engine=recorder), source, output, overwrite=True)
    assert np.array_equal(recorder.drawn[10:], recorder.found[10:])


def test_sound_can_be_left_out(retargeter: Retargeter, tmp_path: Path) -> None:
    source, output = clips.video(tmp_path / "in.mp4", 3, audio="aac"), tmp_path / "out.mp4"
    retarget_stream(retargeter, source, output, audio=False)
    with av.open(str(output)) as container:
        assert [stream.type for stream in container.streams] == ["video"]


def test_what_cannot_be_meant(retargeter: Retargeter, tmp_path: Path) -> None:
    source, output = clips.video(tmp_path / "in.mp4", 3), tmp_path / "out.mp4"
    before = source.read_bytes()
    for options, message in (
        ({"layout": "diagonal"}, "unknown layout 'diagonal'; choose output or side-by-side"),
        ({"size": 8}, "size must be between 16 and 4096 pixels, not 8"),
        ({"smooth": 0.0}, "smooth must be a cutoff frequency above 0 Hz, not 0.0"),
        ({"size": 5000}, "size must be between 16 and 4096 pixels, not 5000"),
    ):
        assert message in failure(
            lambda options=options: retarget_stream(retargeter, source, output, **options), UsageError
        )
    overwriting = failure(lambda: retarget_stream(retargeter, source, source, overwrite=True), UsageError)
    assert overwriting == f"{source}: is the input; choose another name for the output"
    assert source.read_bytes() == before
    assert list(tmp_path.iterdir()) == [source]


def kept(message: str, output: Path) -> list[int]:
    """Levels of the part file, after a check that the message names it and counts its frames."""
    part = output.with_name(output.name + ".part")
    found = levels(part)
    assert message.endswith(f"; the first {len(found)} frames are kept in {part}")
    assert not output.exists()
    return found


def test_a_damaged_input_ends_the_run_and_leaves_what_came_before(tiny_bundle: Path, tmp_path: Path) -> None:
    whole = clips.video(tmp_path / "whole.mkv", 60, options={"g": "5"})
    cut, output = clips.truncated(whole, tmp_path / "cut.mkv", 0.6), tmp_path / "out.mp4"
    message = failure(lambda: retarget_stream(echoing(tiny_bundle), cut, output), InputError)
    assert message.startswith(f"{cut}: ")
    found = kept(message, output)
    assert 10 < len(found) < 60
    assert np.abs(np.subtract(found, levels(whole)[: len(found)])).max() <= 2


def test_a_failing_engine_ends_the_run_with_its_own_message(tiny_bundle: Path, tmp_path: Path) -> None:
    source, output = clips.video(tmp_path / "in.mp4", 30), tmp_path / "out.mp4"

    def fail(frame: int) -> None:
        if frame == 12:
            raise EngineError("echo: graph extractor failed: out of memory")

    retargeter = echoing(tiny_bundle, fail)
    message = failure(lambda: retarget_stream(retargeter, source, output), EngineError)
    assert message.startswith("echo: graph extractor failed: out of memory; the first 12 frames")
    assert np.abs(np.subtract(kept(message, output), levels(source)[:12])).max() <= 2
    assert retargeter.engine.count == 12  # type: ignore[attr-defined]


def test_a_mistake_of_the_program_is_not_dressed_up(tiny_bundle: Path, tmp_path: Path) -> None:
    source, output = clips.video(tmp_path / "in.mp4", 30), tmp_path / "out.mp4"
    message = failure(
        lambda: retarget_stream(echoing(tiny_bundle, lambda k: 1 / (k - 7)), source, output), ZeroDivisionError
    )
    assert message == "division by zero"
    assert len(levels(tmp_path / "out.mp4.part")) == 7


def test_ctrl_c_ends_the_run_and_says_what_is_kept(tiny_bundle: Path, tmp_path: Path) -> None:
    source, output = clips.video(tmp_path / "in.mp4", 30), tmp_path / "out.mp4"

    def interrupt(frame: int) -> None:
        if frame == 9:
            raise KeyboardInterrupt

    message = failure(lambda: retarget_stream(echoing(tiny_bundle, interrupt), source, output), KeyboardInterrupt)
    assert message == f"the first 9 frames are kept in {output}.part"
    assert len(levels(tmp_path / "out.mp4.part")) == 9


def test_a_failure_on_the_first_frame_leaves_nothing(tiny_bundle: Path, tmp_path: Path) -> None:
    source, output = clips.video(tmp_path / "in.mp4", 5), tmp_path / "out.mp4"

    def fail(_: int) -> None:
        raise EngineError("echo: no")

    assert failure(lambda: retarget_stream(echoing(tiny_bundle, fail), source, output), EngineError) == "echo: no"
    assert list(tmp_path.iterdir()) == [source]


def test_a_frame_that_cannot_be_written_leaves_no_gap(
    tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The frames that wait behind it, as many as can, are not written, and no more are retargeted."""
    source, output = clips.video(tmp_path / "in.mp4", 30), tmp_path / "out.mp4"
    write, attempts = VideoWriter.write, []

    def fail_once(writer: VideoWriter, frame: Frame) -> None:
        attempts.append(frame.pts)
        if len(attempts) == 6:
            while retargeter.engine.count < 6 + DEPTH:  # type: ignore[attr-defined]
                time.sleep(0.001)
            raise OutputError("the disk hiccuped")
        write(writer, frame)

    monkeypatch.setattr(VideoWriter, "write", fail_once)
    retargeter = echoing(tiny_bundle)
    message = failure(lambda: retarget_stream(retargeter, source, output), OutputError)
    assert len(attempts) == 6
    assert np.abs(np.subtract(kept(message, output), levels(source)[:5])).max() <= 2
    assert retargeter.engine.count == 6 + DEPTH  # type: ignore[attr-defined]


def test_a_slow_engine_does_not_let_the_reader_run_ahead(
    tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, read = clips.video(tmp_path / "in.mp4", 40), []
    take = VideoSource.__next__
    monkeypatch.setattr(VideoSource, "__next__", lambda video: read.append(0) or take(video))
    ahead: list[int] = []
    retarget_stream(echoing(tiny_bundle, lambda k: ahead.append(len(read) - k)), source, tmp_path / "out.mp4")
    assert len(ahead) == 40
    assert max(ahead) <= DEPTH + 1


def test_a_full_disk_leaves_a_part_that_plays(tiny_bundle: Path, tmp_path: Path) -> None:
    """A limit on the size of files stands for the disk: noise, at a quality that soon fills 200 kB."""
    random = np.random.default_rng(0)
    noise = [random.integers(0, 256, (64, 64, 3), np.uint8) for _ in range(60)]
    source, output = clips.video(tmp_path / "in.mp4", 60, height=64, pictures=noise), tmp_path / "out.mp4"
    limit = "import resource\nresource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))"
    args = ("run", tiny_bundle, source, "-o", output, "--layout", "side-by-side", "--crf", "1")
    done = jokr(*args, prelude=limit)
    assert done.returncode == 1
    error = done.stderr.splitlines()[-1]
    assert error.startswith(f"jokr: error: {output}: ")
    assert "Traceback" not in done.stderr
    frames = list(read_video(output.with_name("out.mp4.part")))
    assert 0 < len(frames) < 60
    assert f"the first {len(frames)} frames are" in error
    assert not output.exists()


MEMORY = """
import resource, sys
from jokr_rt import Retargeter
from jokr_rt.stream import retarget_stream
bundle, source, output = sys.argv[1:]
frames = retarget_stream(Retargeter(bundle, engine="onnxruntime"), source, output, overwrite=True).frames
print(frames, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


def peak_memory(bundle: Path, source: Path) -> tuple[int, int]:
    """(frames, peak resident kilobytes) of a run in a process of its own."""
    # Linux counts in the peak what a process was before `exec`: here a small one, not this one with PyTorch in it.
    small = [sys.executable, "-c", "import subprocess, sys; subprocess.run(sys.argv[1:], check=True)"]
    args = [*small, sys.executable, "-c", MEMORY, bundle, source, source.with_suffix(".out.mp4")]
    frames, peak = subprocess.check_output(args, cwd=ROOT, text=True).split()
    return int(frames), int(peak)


def test_memory_does_not_grow_with_length(tiny_bundle: Path, tmp_path: Path) -> None:
    """What it would take to hold the longer video's frames, even in the model's size, is beyond the margin."""
    short, long = (clips.video(tmp_path / f"{count}.mp4", count, width=320, height=240) for count in (150, 1500))
    (few, small), (many, large) = peak_memory(tiny_bundle, short), peak_memory(tiny_bundle, long)
    assert (few, many) == (150, 1500)
    assert (many - few) * 64 * 64 * 3 / 1024 > 2 * 0.05 * small
    assert large < 1.05 * small


def test_every_error_of_a_run_is_one_of_ours(retargeter: Retargeter, tmp_path: Path) -> None:
    empty = tmp_path / "empty.mp4"
    empty.touch()
    assert str(empty) in failure(lambda: retarget_stream(retargeter, empty, tmp_path / "out.mp4"), JokrError)
