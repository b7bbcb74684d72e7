"""`-` for standard input and output: real pipes between real processes."""

import io
import json
import os
import pty
import subprocess
from fractions import Fraction
from pathlib import Path

import av
import pytest

from jokr_rt import read_video
from jokr_rt.edits import Edits, format_edits
from tests import clips
from tests.process import ROOT, Call, command

KINDS = {
    "mkv": ["-c", "copy", "-f", "matroska"],
    "ts": ["-c", "copy", "-f", "mpegts"],
    "fragmented mp4": ["-c", "copy", "-f", "mp4", "-movflags", "frag_keyframe+empty_moov"],
    "mp4 with its index behind": ["-c", "copy", "-f", "mp4"],
    "y4m": ["-f", "yuv4mpegpipe", "-an"],
}


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    return clips.video(tmp_path / "in.mp4", 12, audio="aac")


def piped(given: bytes, *args: str | Path, cwd: Path = ROOT) -> "subprocess.CompletedProcess[bytes]":
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(command(*args), cwd=cwd, env=environment, input=given, capture_output=True, timeout=300)


def remade(clip: Path, path: Path, kind: str) -> bytes:
    subprocess.run(["ffmpeg", "-v", "error", "-y", "-i", clip, *KINDS[kind], path], check=True)
    return path.read_bytes()


def pixels(path: Path) -> list[bytes]:
    return [frame.rgb.tobytes() for frame in read_video(path)]


@pytest.mark.parametrize("kind", KINDS)
def test_a_container_on_stdin_is_run_as_the_file_is(
    call: Call, tiny_bundle: Path, clip: Path, tmp_path: Path, kind: str
) -> None:
    data = remade(clip, tmp_path / "clip", kind)
    done = piped(data, "run", tiny_bundle, "-", "-o", tmp_path / "piped.mkv")
    assert done.returncode == 0, done.stderr
    assert call("run", tiny_bundle, tmp_path / "clip", "-o", tmp_path / "file.mkv")[0] == 0
    assert len(pixels(tmp_path / "piped.mkv")) == 12
    assert pixels(tmp_path / "piped.mkv") == pixels(tmp_path / "file.mkv")
    if kind != "y4m":
        sound = clips.audio_packets(tmp_path / "piped.mkv")
        assert sound
        assert sound == clips.audio_packets(tmp_path / "file.mkv")
    kept = Path(done.stderr.decode().split(" kept in ")[1].split()[0])
    assert not kept.exists()
    assert f"stdin: {len(data) / 1e6:.2f} MB" in done.stderr.decode()


def test_what_is_read_twice_may_be_piped(call: Call, tiny_bundle: Path, clip: Path, tmp_path: Path) -> None:
    edits = tmp_path / "edits.json"
    edits.write_text(format_edits(Edits(exaggerate=1.2)))
    options = ("--edits", edits, "--layout", "side-by-side")
    done = piped(clip.read_bytes(), "run", tiny_bundle, "-", "-o", tmp_path / "piped.mkv", *options)
    assert done.returncode == 0, done.stderr
    assert call("run", tiny_bundle, clip, "-o", tmp_path / "file.mkv", *options)[0] == 0
    assert pixels(tmp_path / "piped.mkv") == pixels(tmp_path / "file.mkv")


def test_stdout_gets_matroska_and_nothing_else(call: Call, tiny_bundle: Path, clip: Path, tmp_path: Path) -> None:
    done = piped(clip.read_bytes(), "run", tiny_bundle, "-", "-o", "-")
    assert done.returncode == 0, done.stderr
    assert "-: 12 frames in " in done.stderr.decode()
    (tmp_path / "piped.mkv").write_bytes(done.stdout)
    assert call("run", tiny_bundle, clip, "-o", tmp_path / "file.mkv")[0] == 0
    assert pixels(tmp_path / "piped.mkv") == pixels(tmp_path / "file.mkv")
    assert clips.times(tmp_path / "piped.mkv") == [Fraction(index, 10) for index in range(12)]
    assert clips.audio_packets(tmp_path / "piped.mkv") == clips.audio_packets(tmp_path / "file.mkv")
    with av.open(io.BytesIO(done.stdout)) as container:
        assert container.format.name == "matroska,webm"


def test_motion_passes_through_pipes(call: Call, tiny_bundle: Path, clip: Path, tmp_path: Path) -> None:
    found = piped(clip.read_bytes(), "keypoints", tiny_bundle, "-", "-o", "-")
    assert found.returncode == 0, found.stderr
    assert len(json.loads(found.stdout)["frames"]) == 12
    drawn = piped(found.stdout, "render", tiny_bundle, "-", "-o", "-")
    assert drawn.returncode == 0, drawn.stderr
    (tmp_path / "piped.mkv").write_bytes(drawn.stdout)
    assert call("run", tiny_bundle, clip, "-o", tmp_path / "file.mkv", "--no-audio")[0] == 0
    assert pixels(tmp_path / "piped.mkv") == pixels(tmp_path / "file.mkv")


def test_a_reader_that_leaves_ends_the_run_quietly(tiny_bundle: Path, tmp_path: Path) -> None:
    source = clips.video(tmp_path / "in.mp4", 100, pictures=clips.noise(100))
    args = command("run", tiny_bundle, source, "-o", "-", "--size", "512", "--crf", "0")
    with subprocess.Popen(args, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            assert process.stderr is not None
            assert process.stdout.read(1000)
            process.stdout.close()
            said = process.stderr.read().decode()
            assert process.wait(60) == 1
        finally:
            process.kill()
    assert len(said.splitlines()) == 1, said  # what runs
    assert said.startswith("direction a2b")


def test_a_full_disk_behind_stdout_is_one_line(tiny_bundle: Path, clip: Path) -> None:
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(
            command("run", tiny_bundle, clip, "-o", "-"), cwd=ROOT, stdout=full, stderr=subprocess.PIPE, timeout=300
        )
    assert done.returncode == 1
    *_, last = done.stderr.decode().splitlines()
    assert last == "jokr: error: -: cannot be written any further (No space left on device)"
    assert "Traceback" not in done.stderr.decode()


def test_a_terminal_json_and_an_empty_pipe_are_refused(tiny_bundle: Path, clip: Path) -> None:
    main_end, terminal = pty.openpty()
    for name, what in (("run", clip), ("keypoints", clip)):
        done = subprocess.run(
            command(name, tiny_bundle, what, "-o", "-"), cwd=ROOT, stdout=terminal, stderr=subprocess.PIPE, timeout=300
        )
        assert (done.returncode, done.stderr.decode()) == (
            2,
            "jokr: error: -: stdout is a terminal; send it to a file or a program, or name a file with -o\n",
        )
    done = subprocess.run(
        command("run", tiny_bundle, "-", "-o", "-"), cwd=ROOT, stdin=terminal, capture_output=True, timeout=300
    )
    os.close(main_end)
    os.close(terminal)
    assert done.returncode == 2
    assert done.stderr.decode().endswith("jokr: error: -: stdin is a terminal; pipe a file into it, or name one\n")
    done = piped(b"", "run", tiny_bundle, clip, "-o", "-", "--json")
    assert (done.returncode, done.stdout) == (2, b"")
    assert done.stderr == b"jokr: error: --json and the output - both write to stdout; choose one\n"
    done = piped(b"", "run", tiny_bundle, "-", "-o", "-")
    assert (done.returncode, done.stdout) == (1, b"")
    assert done.stderr.splitlines()[-1].startswith(b"jokr: error: stdin: nothing came")


def test_a_dash_in_a_folder_is_a_file(tiny_bundle: Path, clip: Path, tmp_path: Path) -> None:
    (tmp_path / "-").write_bytes(clip.read_bytes())
    done = piped(b"", "run", tiny_bundle, "./-", "-o", "out.mp4", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert len(pixels(tmp_path / "out.mp4")) == 12
    (tmp_path / "-").unlink()
    done = piped(b"", "keypoints", tiny_bundle, "out.mp4", "-o", "./-", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert len(json.loads((tmp_path / "-").read_text())["frames"]) == 12
