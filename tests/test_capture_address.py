"""What is a live source and what is not, and webcams by name."""

from dataclasses import replace
from fractions import Fraction

import pytest

from jokr_rt.clock import RealClock
from jokr_rt.errors import InputError, JokrError, UsageError
from jokr_rt.video import address
from jokr_rt.video.capture import CameraMode, CaptureOptions, check_source, open_capture
from jokr_rt.video.devices import camera_input
from tests import clips

LIVE = CaptureOptions()
FILM = CaptureOptions(realtime=True)


@pytest.mark.parametrize(
    ("source", "options", "kind", "words"),
    [
        ("srt://camera:9000", LIVE, UsageError, "the installed FFmpeg cannot read srt://"),
        ("nonsense://camera", LIVE, UsageError, "cannot read nonsense://"),
        ("rtsp://[::1/camera", LIVE, UsageError, "no address"),
        ("file:///etc/passwd", LIVE, UsageError, "without file://"),
        ("missing.mp4", LIVE, InputError, "missing.mp4: there is no such file"),
        ("/dev/video77", LIVE, InputError, "/dev/video77: there is no such webcam"),
        ("camera:77", LIVE, InputError, "camera:77: there is no such webcam"),
        ("camera:None Such", LIVE, InputError, "camera:None Such: there is no such webcam"),
        ("/", LIVE, UsageError, "is a folder"),
        ("rtsp://u:hidden@camera/1", FILM, UsageError, "only a file"),
        ("udp://0.0.0.0:5000", CaptureOptions(loop=True), UsageError, "only a file"),
        ("rtsp://camera/1", CaptureOptions(camera=CameraMode((640, 480))), UsageError, "of a webcam only"),
        ("rtsp://camera/1", CaptureOptions(hwaccel="magic"), UsageError, "unknown hwaccel 'magic'"),
    ],
)
def test_what_cannot_be_a_source_is_refused_before_anything_starts(
    source: str, options: CaptureOptions, kind: type[JokrError], words: str
) -> None:
    with pytest.raises(kind) as error:
        check_source(source, options)
    message = clips.message_of(error)
    assert words in message
    assert "hidden" not in message


@pytest.mark.parametrize(
    "source",
    ["-", "rtsp://camera/1", "rtsps://camera/1", "rtmp://camera/a/b", "http://camera/video", "https://camera/video"]
    + ["udp://0.0.0.0:5000", "tcp://0.0.0.0:5000?listen=1", "rtp://0.0.0.0:5000"],
)
def test_what_ffmpeg_opens_is_a_source(source: str) -> None:
    check_source(source)


@pytest.mark.parametrize("wrong", [{"stall_s": 0.0}, {"open_s": float("inf")}, {"rtsp_transport": "pigeon"}])
def test_options_that_cannot_be_meant_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(UsageError):
        replace(LIVE, **wrong)


@pytest.mark.parametrize("wrong", [{"size": (0, 480)}, {"rate": Fraction(0)}])
def test_a_camera_mode_that_cannot_be_meant_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(UsageError):
        CameraMode(**wrong)  # type: ignore[arg-type]


MODE = CameraMode((1280, 720), Fraction(30000, 1001), "mjpeg")
ASKED = {"video_size": "1280x720", "framerate": "30000/1001"}


@pytest.mark.parametrize(
    ("system", "name", "mode", "expected"),
    [
        ("linux", "0", MODE, ("/dev/video0", "v4l2", {**ASKED, "input_format": "mjpeg"})),
        ("linux", "/dev/video3", CameraMode(), ("/dev/video3", "v4l2", {})),
        ("darwin", "0", CameraMode(rate=Fraction(30)), ("0:none", "avfoundation", {"framerate": "30"})),
        (
            "darwin",
            "FaceTime HD Camera",
            CameraMode(pixel_format="nv12"),
            ("FaceTime HD Camera:none", "avfoundation", {"pixel_format": "nv12"}),
        ),
        ("win32", "Logi C920", MODE, ("video=Logi C920", "dshow", {**ASKED, "vcodec": "mjpeg", "rtbufsize": "64M"})),
        (
            "win32",
            "Logi C920",
            CameraMode(pixel_format="yuyv422"),
            ("video=Logi C920", "dshow", {"pixel_format": "yuyv422", "rtbufsize": "64M"}),
        ),
    ],
)
def test_webcams_have_the_names_and_options_of_their_system(
    system: str, name: str, mode: CameraMode, expected: tuple[str, str, dict[str, str]]
) -> None:
    assert camera_input(name, mode, system) == expected


def test_webcams_of_other_systems_are_refused() -> None:
    with pytest.raises(UsageError, match="no webcams on this system"):
        camera_input("0", CameraMode(), "plan9")


def test_a_webcam_is_opened_as_asked_and_what_it_gives_instead_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """FFmpeg's own virtual device in place of the system's."""
    opened = ("testsrc=size=64x48:rate=20,format=rgb24", "lavfi", {})
    monkeypatch.setattr(address, "camera_input", lambda name, mode: opened)
    options = CaptureOptions(camera=CameraMode((640, 480), Fraction(20), "rgb24"))
    check_source("camera:0", options)
    capture = open_capture("camera:0", options, RealClock())
    frame = capture.read().frame
    capture.close()
    assert frame.rgb.shape == (48, 64, 3)
    assert capture.is_live
    assert capture.settings["source"] == "camera:0"
    assert capture.settings["format"] == "lavfi"
    assert capture.settings["size"] == "64x48 (asked for 640x480)"
    assert capture.settings["rate"] == "20 fps"
