"""A virtual camera without the device: what it would get, and what is said."""

from pathlib import Path

import numpy as np
import pytest

from jokr_rt.clock import RealClock
from jokr_rt.errors import OutputError
from jokr_rt.live.sinks import SinkOptions, open_sink
from jokr_rt.video.virtual_camera import YuyvConverter, check_camera
from tests import clips
from tests.receivers import HEIGHT, WIDTH
from tests.tolerances import LEVELS


def test_a_virtual_camera_gets_the_colours_that_webcams_give() -> None:
    """White, black and BT.601's primaries in limited range, the luma of each pixel and a pair's chroma between."""
    colours = {(255, 255, 255): (235, 128, 128), (0, 0, 0): (16, 128, 128), (255, 0, 0): (81, 90, 240)}
    convert = YuyvConverter()
    for colour, (luma, blue, red) in colours.items():
        frame = convert(np.full((6, 9, 3), colour, np.uint8))
        assert (frame.width, frame.height, frame.format.name) == (10, 6, "yuyv422")
        lines = np.frombuffer(frame.planes[0], np.uint8).reshape(6, -1)[:, :20]
        expected = np.tile(np.array([luma, blue, luma, red]), (6, 5))
        assert np.abs(lines.astype(int) - expected).max() <= LEVELS


def test_where_there_is_no_virtual_camera_one_line_says_how_to_get_one(tmp_path: Path) -> None:
    for device, words in (("/dev/video987", "there is no such device"), ("camera:987", "/dev/video987")):
        with pytest.raises(OutputError) as error:
            open_sink(device, (WIDTH, HEIGHT), SinkOptions(), RealClock())
        assert words in clips.message_of(error)
        assert "modprobe v4l2loopback" in clips.message_of(error)


def test_a_device_that_is_no_camera_is_said_to_be_none() -> None:
    with pytest.raises(OutputError, match="/dev/null: is no camera"):
        check_camera("/dev/null")
