"""Still pictures."""

from pathlib import Path

import numpy as np
from av import CodecContext, VideoFrame
from numpy.typing import NDArray

from jokr_rt.errors import OutputError
from jokr_rt.video.reader import open_masks, open_video


def read_picture(path: str | Path, size: int, max_pixels: int | None = None) -> NDArray[np.uint8]:
    """(size, size, 3) uint8 RGB of a picture, letterboxed, before black where it is transparent.

    Of a video, or a folder of images, it is the first picture. max_pixels: for a stranger's; see `open_video`.
    Raises InputError.
    """
    with open_video(path, size=size, max_pixels=max_pixels) as video:
        rgb = next(video).rgb
    if not video.has_alpha:
        return rgb
    with open_masks(path, size=size, max_pixels=max_pixels) as masks:
        return rgb * next(masks)[..., None]


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
