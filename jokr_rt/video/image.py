"""Still pictures."""

from pathlib import Path

import numpy as np
from av import CodecContext, VideoFrame
from numpy.typing import NDArray

from jokr_rt.errors import OutputError


def write_png(path: Path, rgb: NDArray[np.uint8]) -> None:
    """Write (H, W, 3) uint8 RGB as a PNG file. Raises OutputError."""
    height, width, _ = rgb.shape
    encoder = CodecContext.create("png", "w")
    encoder.width, encoder.height, encoder.pix_fmt = width, height, "rgb24"
    packets = encoder.encode(VideoFrame.from_ndarray(np.ascontiguousarray(rgb), format="rgb24")) + encoder.encode(None)
    try:
        path.write_bytes(b"".join(bytes(packet) for packet in packets))
    except OSError as error:
        raise OutputError(f"{path}: cannot be written: {error.strerror}") from None
