"""Configuration of several streams: every value that a file can hold, and what it says of one that it cannot."""

from fractions import Fraction
from pathlib import Path

import pytest

from jokr_rt.errors import InputError, UsageError
from jokr_rt.live.config import read_config
from jokr_rt.live.options import LiveOptions
from jokr_rt.live.values import parse_rate, parse_seconds, parse_size

FULL = """
bundle = "cat-fox.jokr"
engine = "openvino"
target = "other.jokr"
watchdog = 10
on-hang = "end"
prometheus = 9000

on-loss = "freeze"
smooth = 2

[[stream]]
name = "hall"
input = "rtsp://camera/1"
output = ["hall.mp4", "preview:8081"]
rtsp-transport = "udp"
stall = "500ms"
backoff = ["250ms", 4]
retries = 7
size = "320x240"
rate = "30000/1001"
background = "green"
keyframe-interval = 1
audio = false
hold = 0.25

[[stream]]
input = "camera:0"
output = "door.mkv"
camera_size = "640x480"
camera_rate = 29.97
camera_format = "mjpeg"
on-loss = "stop"
paste = true
"""


def write(folder: Path, text: str) -> Path:
    path = folder / "streams.toml"
    path.write_text(text)
    return path


def test_every_kind_of_value(tmp_path: Path) -> None:
    config = read_config(write(tmp_path, FULL))
    assert config.run == {
        "bundle": "cat-fox.jokr",
        "engine": "openvino",
        "target": ("other.jokr",),
        "watchdog": 10.0,
        "on_hang": "end",
        "prometheus": 9000,
    }
    assert config.streams == (
        LiveOptions(
            "rtsp://camera/1",
            ("hall.mp4", "preview:8081"),
            name="hall",
            on_loss="freeze",
            smooth=2.0,
            rtsp_transport="udp",
            stall=0.5,
            backoff=(0.25, 4.0),
            retries=7,
            size=(320, 240),
            rate=Fraction(30000, 1001),
            background="green",
            keyframe_interval=1.0,
            audio=False,
            hold=0.25,
        ),
        LiveOptions(
            "camera:0",
            ("door.mkv",),
            name="stream2",
            on_loss="stop",
            smooth=2.0,
            camera_size=(640, 480),
            camera_rate=Fraction(2997, 100),
            camera_format="mjpeg",
            paste=True,
        ),
    )


STREAM = '[[stream]]\ninput = "a"\noutput = "b.mp4"\n'


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", r"needs a table \[\[stream\]\]"),
        ('stream = "a"', r"needs a table \[\[stream\]\]"),
        ('[[stream]]\ninput = "a"', "stream stream1: needs output"),
        ("frobnicate = 1\n" + STREAM, "unknown frobnicate; known are bundle, engine"),
        (STREAM + "watchdog = 3\n", "unknown watchdog"),
        (STREAM + 'name = "hall"\non-loss = "explode"\n', "stream hall: unknown on-loss 'explode'; choose freeze"),
        (STREAM + "paste = 1\n", "stream stream1: paste cannot be 1"),
        (STREAM + "hold = true\n", "stream stream1: hold cannot be True"),
        (STREAM + 'size = "large"\n', "a size is WIDTHxHEIGHT"),
        (STREAM + "size = 3\n", "a size is WIDTHxHEIGHT"),
        (STREAM + 'stall = "soon"\n', "stream stream1: .*soon"),
        (STREAM + "rate = 0\n", "a rate is a number above 0"),
        ('[[stream]]\ninput = "a"\noutput = 3\n', "stream stream1: .*int"),
        ('[[stream]]\ninput = "a"\noutput = [3]\n', "stream stream1: output cannot be 3"),
        (STREAM + "retries = 1.5\n", "retries cannot be 1.5"),
        (STREAM + 'name = "a/b"\n', "a stream's name is for file names too"),
        ('watchdog = "never"\n' + STREAM, "streams.toml: .*never"),
        ("prometheus = true\n" + STREAM, "prometheus cannot be True"),
    ],
)
def test_what_cannot_be_meant_is_said_in_one_line(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(UsageError, match=words) as raised:
        read_config(write(tmp_path, text))
    assert "\n" not in str(raised.value)


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be read"):
        read_config(tmp_path / "missing.toml")
    with pytest.raises(InputError, match="not a TOML file"):
        read_config(write(tmp_path, "a = "))


def test_values_as_people_write_them() -> None:
    assert [parse_seconds(value) for value in ("2s", "2", 2, "500ms", "0.5 s")] == [2, 2, 2, 0.5, 0.5]
    assert parse_size("640x480") == (640, 480)
    assert parse_rate("30000/1001") == Fraction(30000, 1001)
    for parse, wrong in ((parse_seconds, "2h"), (parse_size, "640"), (parse_rate, "1/0"), (parse_rate, "-5")):
        with pytest.raises(ValueError, match="."):
            parse(wrong)


@pytest.mark.parametrize(
    "wrong",
    [
        {"output": ()},
        {"size": (15, 16)},
        {"size": (64, 33)},
        {"feather": -1.0},
        {"smooth": float("nan")},
        {"smooth_speed": 0.0},
        {"hold": 1.5},
        {"paste": True, "background": "green"},
        {"background": "#12345"},
    ],
)
def test_options_that_cannot_be_meant(wrong: dict[str, object]) -> None:
    with pytest.raises(UsageError):
        LiveOptions(**{"input": "camera:0", "output": ("out.mp4",)} | wrong)  # type: ignore[arg-type]
