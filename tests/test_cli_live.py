"""`jokr live` as its users meet it: a process, with a terminal, keys, signals, JSON lines and a metrics page."""

import json
import os
import pty
import signal
import subprocess
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import IO, Any

import pytest
from click.testing import CliRunner

from jokr_rt import read_video
from jokr_rt.cli import main
from jokr_rt.frame import Frame
from jokr_rt.live.controls import KEYS, Controls
from jokr_rt.video import write_video
from tests.cameras import free_port
from tests.process import ROOT, assert_refused, command
from tests.tiny import creature_frames


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """3 s of a creature at 10 fps."""
    path = tmp_path_factory.mktemp("clip") / "in.mp4"
    write_video(path, [Frame(rgb, index, Fraction(1, 10)) for index, rgb in enumerate(creature_frames(30, 64, 1))])
    return path


@contextmanager
def live(*arguments: object, cwd: Path, terminal: int | None = None) -> Iterator["subprocess.Popen[str]"]:
    """`jokr live` for ever, until it is asked to end."""
    environment = os.environ | {"PYTHONPATH": str(ROOT), "TERM": "xterm", "COLUMNS": "200"}
    started = command("live", *map(str, arguments))
    if terminal is not None:  # of which a shell is the owner, that tells what is set on it afterwards
        started = ["sh", "-c", '"$@"; code=$?; stty -a; exit $code', "sh", *started]
    process = subprocess.Popen(
        started,
        cwd=cwd,
        env=environment,
        stdin=terminal if terminal is not None else subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=terminal if terminal is not None else subprocess.PIPE,
        text=True,
        start_new_session=terminal is not None,
        preexec_fn=(lambda: _take_terminal(terminal)) if terminal is not None else None,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def _take_terminal(terminal: int | None) -> None:
    import fcntl
    import termios

    assert terminal is not None
    fcntl.ioctl(terminal, termios.TIOCSCTTY, 0)


def figures(stdout: IO[str] | None, count: int) -> list[dict[str, Any]]:
    assert stdout is not None
    return [json.loads(stdout.readline()) for _ in range(count)]


def wait_until(process: "subprocess.Popen[str]", condition: Callable[[dict[str, Any]], bool]) -> None:
    """Until figures are so; pytest's limit ends what never comes."""
    while not condition(figures(process.stdout, 1)[0]):
        pass


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_finishes_the_file(tiny_bundle: Path, clip: Path, tmp_path: Path, number: signal.Signals) -> None:
    arguments = (tiny_bundle, "--input", clip, "--realtime", "--loop", "--output", "rec.mp4", "--hold", 0, "--json")
    with live(*arguments, cwd=tmp_path) as process:
        lines = figures(process.stdout, 2)
        process.send_signal(number)
        rest, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors
    last = json.loads(rest.splitlines()[-1])
    assert lines[1]["uptime_s"] - lines[0]["uptime_s"] == pytest.approx(1, abs=0.5)
    assert last["captured"] == last["shown"] + last["dropped"]
    assert len(list(read_video(tmp_path / "rec.mp4"))) == last["shown"] > 5
    assert {"stream", "state", "latency_ms", "stages_ms", "sinks", "reconnects", "duplicates"} <= set(last)
    assert "Traceback" not in errors


def test_a_file_ends_by_itself_and_usr1_prints_statistics(tiny_bundle: Path, clip: Path, tmp_path: Path) -> None:
    with live(tiny_bundle, "--input", clip, "--realtime", "--output", "rec.mp4", "--json", cwd=tmp_path) as process:
        first = figures(process.stdout, 1)
        process.send_signal(signal.SIGUSR1)
        rest, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors
    assert first[0]["state"] in ("connecting", "live")
    assert json.loads(rest.splitlines()[-1])["captured"] == 30
    assert any(line.startswith("live: ") and "latency p50" in line for line in errors.splitlines())


def test_keys_on_a_terminal(tiny_bundle: Path, clip: Path, tmp_path: Path) -> None:
    """Pressed one by one on a real (pseudo) terminal; its settings are as before afterwards."""
    import termios

    main_end, terminal = pty.openpty()
    arguments = (tiny_bundle, "--input", clip, "--realtime", "--loop", "--output", "rec.mp4", "--hold", 0, "--json")
    with live(*arguments, cwd=tmp_path, terminal=terminal) as process:
        wait_until(process, lambda seen: seen["shown"] > 3)
        assert not termios.tcgetattr(terminal)[3] & termios.ICANON
        os.write(main_end, b"s")
        while not list(tmp_path.glob("live-*.png")):
            figures(process.stdout, 1)
        os.write(main_end, b"n")
        wait_until(process, lambda seen: seen["target"] == "fox2cat")
        os.write(main_end, b"r")
        wait_until(process, lambda seen: len(seen["sinks"]) == 2 and seen["sinks"][1]["shown"] > 3)
        os.write(main_end, b"iq")
        rest, _ = process.communicate(timeout=60)
    shown = os.read(main_end, 1_000_000).decode()
    os.close(main_end)
    os.close(terminal)
    assert process.returncode == 0, shown
    assert " icanon" in rest
    assert " echo " in rest
    assert len(list(tmp_path.glob("live-*.png"))) == 1
    (recording,) = tmp_path.glob("live-*.mp4")
    assert len(list(read_video(recording))) > 3
    assert "latency p50" in shown


def test_prometheus_reads_the_same_figures(tiny_bundle: Path, clip: Path, tmp_path: Path) -> None:
    port = free_port()
    arguments = (tiny_bundle, "--input", clip, "--realtime", "--loop", "--output", "rec.mp4", "--json")
    with live(*arguments, "--prometheus", port, cwd=tmp_path) as process:
        last = figures(process.stdout, 3)[-1]
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=60) as page:
            lines = page.read().decode().splitlines()
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=60)
    found = dict(line.rsplit(" ", 1) for line in lines if not line.startswith("#"))
    assert float(found['jokr_captured_total{stream="live"}']) >= last["captured"] > 10
    assert found['jokr_state{state="live",stream="live"}'] == "1.0"
    assert float(found['jokr_sink_shown_total{sink="rec.mp4",stream="live"}']) >= last["sinks"][0]["shown"]
    assert 0 < float(found['jokr_latency_seconds{quantile="0.95",sink="",stream="live"}']) < 10


def test_two_streams_from_a_file(tiny_bundle: Path, clip: Path, tmp_path: Path) -> None:
    lines = [f'bundle = "{tiny_bundle}"', "realtime = true", "hold = 0"]
    for name in ("one", "two"):
        lines += ["[[stream]]", f'name = "{name}"', f'input = "{clip}"', f'output = "{name}.mp4"']
    (tmp_path / "streams.toml").write_text("\n".join(lines))
    with live("--config", "streams.toml", "--json", cwd=tmp_path) as process:
        out, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    last = {each["stream"]: each for each in map(json.loads, out.splitlines())}
    assert {name: last[name]["shown"] for name in last} == {
        name: len(list(read_video(tmp_path / f"{name}.mp4"))) for name in ("one", "two")
    }


def test_what_cannot_be_meant_is_said_before_anything_starts(tiny_bundle: Path, clip: Path, tmp_path: Path) -> None:
    def refused(code: int, words: str, *arguments: object) -> None:
        assert_refused(CliRunner().invoke(main, ["live", *map(str, arguments)]), code, words)

    out = str(tmp_path / "rec.mp4")
    refused(2, "name an --input and at least one --output", tiny_bundle)
    refused(2, "no BUNDLE", "--input", clip, "--output", out)
    refused(2, "srt://", tiny_bundle, "--input", "srt://camera:1", "--output", out)
    refused(2, "unknown on-loss", tiny_bundle, "--input", clip, "--output", out, "--on-loss", "cry")
    refused(2, "unknown on-hang", tiny_bundle, "--input", clip, "--output", out, "--on-hang", "cry")
    refused(2, "both write to stdout", tiny_bundle, "--input", clip, "--output", "-", "--json")
    refused(1, "there is no such file", tiny_bundle, "--input", tmp_path / "no.mp4", "--output", out)
    refused(1, "there is no folder", tiny_bundle, "--input", clip, "--output", tmp_path / "no" / "rec.mp4")
    refused(1, "cannot be read", tiny_bundle, "--config", tmp_path / "no.toml")
    (tmp_path / "c.toml").write_text('[[stream]]\ninput = "a"\noutput = "b.mp4"\n')
    refused(2, "--on-loss is of one stream", tiny_bundle, "--config", tmp_path / "c.toml", "--on-loss", "stop")
    assert not Path(out).exists()
    result = CliRunner().invoke(main, ["live", str(tiny_bundle), "--stall", "soon"])
    assert result.exit_code == 2
    assert "--stall" in result.output


def test_help_names_every_option_under_a_heading() -> None:
    shown = CliRunner().invoke(main, ["live", "--help"]).output
    for heading in ("Camera and stream:", "When it is lost or hangs:", "Creature:", "Picture:", "Outputs:", "Machine:"):
        assert heading in shown
    for words in ("--on-loss", "--mask", "--watchdog", "--prometheus", "preview[:PORT]", "SIGUSR1", "space pause"):
        assert words in shown


def test_everything_typed_has_the_same_name_in_python() -> None:
    from dataclasses import MISSING, fields
    from inspect import signature

    from jokr_rt.cli_live import live as typed
    from jokr_rt.live import LiveOptions, run_live

    options = {param.name for param in typed.params}
    python = {field.name for field in fields(LiveOptions)} | set(signature(run_live).parameters)
    assert options - python == {"config", "as_json", "no_audio"}
    parsed = typed.make_context("live", [], resilient_parsing=True).params
    for field in fields(LiveOptions):
        if field.name in parsed and field.default is not MISSING:
            assert parsed[field.name] == field.default, field.name


def test_keys_do_what_they_say() -> None:
    controls = Controls()
    for key in "KxS i":
        controls.press(key)
    assert list(controls.actions()) == ["keypoints", "snapshot", "pause", "statistics"]
    assert not controls.quit
    controls.press("q")
    assert controls.quit
    assert not list(controls.actions())
    assert len(KEYS) == 8


def test_a_direction_is_named_by_the_first_of_several_models(
    tiny_bundle: Path, bundle_copy: Path, clip: Path, tmp_path: Path
) -> None:
    manifest = bundle_copy / "manifest.json"
    manifest.write_text(json.dumps(json.loads(manifest.read_text()) | {"domains": {"a": "dog", "b": "hen"}}))
    arguments = (tiny_bundle, "--target", bundle_copy, "--direction", "fox2cat", "--input", clip)
    with live(*arguments, "--output", "rec.mp4", cwd=tmp_path) as process:
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors
    assert "live: fox2cat on " in errors
