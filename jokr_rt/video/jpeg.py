"""Single pictures as JPEG, for a browser."""

from fractions import Fraction

import numpy as np
from av import CodecContext, VideoFrame
from av.video.reformatter import ColorRange, Colorspace
from numpy.typing import NDArray

_QUALITY = 3  # FFmpeg's scale from 1, the best, to 31


def jpeg(rgb: NDArray[np.uint8]) -> bytes:
    """A JPEG file (JFIF: BT.601, full range) of (H, W, 3) uint8 RGB."""
    height, width, _ = rgb.shape
    encoder = CodecContext.create("mjpeg", "w")
    encoder.width, encoder.height, encoder.pix_fmt, encoder.time_base = width, height, "yuvj420p", Fraction(1, 25)
    encoder.color_range = ColorRange.JPEG
    encoder.options = {"qmin": str(_QUALITY), "qmax": str(_QUALITY)}
    picture = VideoFrame.from_ndarray(np.ascontiguousarray(rgb), "rgb24").reformat(
        format="yuvj420p", dst_colorspace=Colorspace.ITU601, dst_color_range=ColorRange.JPEG, threads=1
    )
    return b"".join(bytes(packet) for packet in encoder.encode(picture) + encoder.encode(None))
