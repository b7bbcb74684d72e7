"""Single pictures from JPEG, as a browser sends them."""

from fractions import Fraction

import numpy as np
from av import CodecContext, Packet
from av.error import FFmpegError
from av.video.codeccontext import VideoCodecContext
from numpy.typing import NDArray

from jokr_rt.errors import InputError
from jokr_rt.video.picture import Canvas


def read_jpeg(data: bytes, size: int, max_pixels: int) -> NDArray[np.uint8]:
    """(size, size, 3) uint8 RGB of a JPEG file, letterboxed.

    max_pixels: a picture of more is not decoded. Raises InputError for it, and for what is no JPEG or cut off.
    """
    decoder = CodecContext.create("mjpeg", "r")
    assert isinstance(decoder, VideoCodecContext)
    decoder.options = {"max_pixels": str(max_pixels)}
    try:
        pictures = (
            [*decoder.decode(Packet(data)), *decoder.decode(None)] if data.rstrip(b"\0")[-2:] == b"\xff\xd9" else []
        )
    except FFmpegError as error:
        raise InputError(f"not a JPEG picture of at most {max_pixels} pixels ({error.strerror})") from error
    if len(pictures) != 1:
        raise InputError("not a whole JPEG picture")
    return Canvas(Fraction(1), size).rgb(pictures[0])
