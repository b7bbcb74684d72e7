"""What is left of an output that ends early, and how much memory a long one takes."""

import os
from collections.abc import Iterator
from contextlib import suppress
from fractions import Fraction
from pathlib import Path

import pytest

from jokr_rt.errors import InputError
from jokr_rt.frame import Frame
from jokr_rt.video import read_video, write_video
from tests import clips


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_an_exception_leaves_a_complete_part_file(tmp_path: Path, suffix: str) -> None:
    source = clips.video(tmp_path / "in.mkv", 30, audio="libopus")
    out = tmp_path / f"out{suffix}"

    def frames() -> Iterator[Frame]:
        for index, frame in enumerate(read_video(source)):
            if index == 13:
                raise KeyboardInterrupt
            yield frame

    with pytest.raises(KeyboardInterrupt):
        write_video(out, frames(), audio_from=source)
    part = out.with_name(out.name + ".part")
    assert not out.exists()
    assert clips.times(part) == clips.times(source)[:13]
    ends = clips.audio_packets(part)[-1][1]
    assert Fraction(12, 10) <= ends <= Fraction(13, 10)  # sound goes as far as the pictures


WRITE_FOREVER = """
    import os, resource, signal, sys
    from fractions import Fraction
    import numpy as np
    from jokr_rt.errors import OutputError
    from jokr_rt.frame import Frame
    from jokr_rt.video import VideoWriter
    limit, name = int(sys.argv[1]), sys.argv[2]
    if limit:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # as a full disk: write() fails
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    random, tick = np.random.default_rng(0), Fraction(1, 10)
    writer = VideoWriter(name, width=64, height=48, time_base=tick, rate=1 / tick)
    try:
        with writer:
            for index in range(200):
                low, high = (0, 256) if limit else (index, index + 1)  # noise fills a disk, grey fits in any buffer
                writer.write(Frame(random.integers(low, high, (48, 64, 3), np.uint8), index, tick))
            if not limit:
                os.kill(os.getpid(), signal.SIGKILL)
    except OutputError as error:
        print(error)
    print(writer.frames)
"""


@pytest.fixture(scope="module")
def whole_size(tmp_path_factory: pytest.TempPathFactory) -> dict[str, int]:
    folder = tmp_path_factory.mktemp("whole")
    sizes = {}
    for name in ("out.mp4", "out.mkv"):
        assert clips.run_python(WRITE_FOREVER, folder, str(2**40), name).stdout == "200\n"
        sizes[name] = (folder / name).stat().st_size
    return sizes


@pytest.mark.parametrize("name", ["out.mp4", "out.mkv"])
@pytest.mark.parametrize("missing", [0.6, 0.27, 5000, 1500, 200])
def test_a_full_disk_leaves_a_part_file_that_plays(
    tmp_path: Path, whole_size: dict[str, int], name: str, missing: float
) -> None:
    whole = whole_size[name]
    limit = int(whole * (1 - missing)) if missing < 1 else int(whole - missing)
    message, frames = clips.run_python(WRITE_FOREVER, tmp_path, str(limit), name).stdout.splitlines()
    kept = f"the first {frames} frames are in {name}.part"
    assert message == f"{name}: cannot be written any further (File too large); {kept}"
    assert os.listdir(tmp_path) == [f"{name}.part"]
    found = clips.times(tmp_path / f"{name}.part")
    assert found == [Fraction(index, 10) for index in range(int(frames))]
    assert len(found) >= 200 * limit / whole - 8


@pytest.mark.parametrize("name", ["out.mp4", "out.mkv"])
def test_a_killed_process_leaves_a_part_file_that_plays(tmp_path: Path, name: str) -> None:
    assert clips.run_python(WRITE_FOREVER, tmp_path, "0", name).returncode == -9
    found = []
    with suppress(InputError):  # what is readable, then perhaps "cut off"
        for frame in read_video(tmp_path / f"{name}.part"):
            found.append(frame.pts * frame.time_base)
    assert found == [Fraction(index, 10) for index in range(len(found))]
    assert len(found) >= 100  # all but what the encoder held back


def test_memory_does_not_grow_with_length(tmp_path: Path) -> None:
    code = """
        import re, sys
        from jokr_rt.video import read_video, write_video
        write_video("out.mp4", read_video(sys.argv[1]), audio_from=sys.argv[1])
        print(re.search(r"VmHWM:\\s*(\\d+) kB", open("/proc/self/status").read())[1])
    """
    peaks = []
    for count in (100, 700):
        fast = {"preset": "ultrafast"}
        source = clips.video(tmp_path / f"in{count}.mp4", count, width=96, height=72, audio="aac", options=fast)
        peaks.append(int(clips.run_python(code, tmp_path, str(source)).stdout))
        (tmp_path / "out.mp4").unlink()
    assert peaks[1] <= peaks[0] * 1.1  # all frames at once would be 20 % more
