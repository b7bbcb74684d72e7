"""Between a decoded picture and an array: colour, orientation, pixel shape and letterbox."""

from fractions import Fraction
from math import atan2, pi
from typing import Any

import numpy as np
from av import VideoFrame
from av.sidedata.sidedata import SideData, SideDataContainer
from av.video.reformatter import ColorRange, Colorspace, Interpolation, VideoReformatter
from numpy.typing import NDArray

from jokr_rt.frame import Frame
from jokr_rt.video import exif, hdr

# Bicubic widens its kernel when it makes a picture smaller, so nothing aliases. The other flags are libswscale's
# FULL_CHR_H_INT, FULL_CHR_H_INP and ACCURATE_RND, which older PyAV does not name: chroma at full resolution and exact
# rounding. RGB -> YUV -> RGB is then off by one level, not by three.
SCALING = Interpolation.BICUBIC | 0x2000 | 0x4000 | 0x40000

# MatrixCoefficients of ITU-T H.273 -> number that the scaler gives the same matrix.
_MATRICES = {1: 1, 4: 4, 5: 5, 6: 5, 7: 7, 9: 9, 10: 9}


def letterbox_box(width: int, height: int, size: int) -> tuple[int, int, int, int]:
    """Where a picture of width x height pixels lies in a square of size x size: (x, y, width, height).

    The longer side fills the square, the aspect ratio is kept to within a pixel, and the box is centred.
    """
    longer = max(width, height)
    box_width, box_height = (max(1, round(side * size / longer)) for side in (width, height))
    return (size - box_width) // 2, (size - box_height) // 2, box_width, box_height


def default_matrix(height: int) -> Colorspace:
    """RGB-YUV matrix of a video that names none, as players choose it: BT.709 from 720 lines on, else BT.601."""
    return Colorspace.ITU709 if height >= 720 else Colorspace.ITU601


class Canvas:
    """Draws pictures upright, with square pixels, into arrays.

    pixel_aspect: width / height of a stored pixel.
    size: side of the square that each picture is letterboxed into, or None for arrays of the picture's own size.
    """

    def __init__(self, pixel_aspect: Fraction, size: int | None) -> None:
        self._pixel_aspect = pixel_aspect
        self._size = size
        # One reformatter for all pictures keeps its tables. One thread: the pipeline around it has its own.
        self._reformatter = VideoReformatter()

    def upright_size(self, picture: VideoFrame) -> tuple[int, int]:
        """(width, height) of the picture as it should be seen, before any letterbox."""
        width, height = max(1, round(picture.width * self._pixel_aspect)), picture.height
        return (height, width) if _orientation(picture)[0] % 2 else (width, height)

    def rgb(self, picture: VideoFrame) -> NDArray[np.uint8]:
        """(H, W, 3) uint8, full range; the bars are black. HDR is tone-mapped: see `hdr.to_sdr`."""
        if picture.color_trc in hdr.TRANSFERS:
            return hdr.to_sdr(self._draw(picture, "rgb48le"), picture.color_trc)
        return self._draw(picture, "rgb24")

    def grey(self, picture: VideoFrame) -> NDArray[np.uint8]:
        """(H, W) uint8 brightness, full range; the bars are black."""
        return self._draw(picture, "gray")

    def alpha(self, picture: VideoFrame) -> NDArray[np.uint8]:
        """(H, W) uint8 opacity, 255 where the picture hides what is behind it; the bars are 0."""
        return self._draw(picture, "rgba")[..., 3]

    def _draw(self, picture: VideoFrame, pixel_format: str) -> NDArray[Any]:
        shown = self.upright_size(picture)
        x, y, width, height = letterbox_box(*shown, self._size) if self._size else (0, 0, *shown)
        turns, mirrored = _orientation(picture)
        stored = self._reformatter.reformat(
            picture,
            *((height, width) if turns % 2 else (width, height)),
            format=pixel_format,
            src_colorspace=_matrix(picture),
            dst_color_range=ColorRange.JPEG,
            interpolation=SCALING,
            threads=1,
        )
        whole = stored is picture or pixel_format == "rgb48le"
        pixels = np.rot90(stored.to_ndarray() if whole else _pixels(stored), turns)
        if mirrored:
            pixels = pixels[:, ::-1]
        if not self._size or pixels.shape[:2] == (self._size, self._size):
            return np.ascontiguousarray(pixels)
        canvas = np.zeros((self._size, self._size, *pixels.shape[2:]), pixels.dtype)
        canvas[y : y + height, x : x + width] = pixels
        return canvas


def letterbox(frame: Frame, size: int) -> Frame:
    """The frame in a size x size square at the same time; the frame itself if it has that size already."""
    if frame.rgb.shape[:2] == (size, size):
        return frame
    picture = VideoFrame.from_ndarray(np.ascontiguousarray(frame.rgb), "rgb24")
    return Frame(Canvas(Fraction(1), size).rgb(picture), frame.pts, frame.time_base)


def has_alpha_format(picture: VideoFrame) -> bool:
    """Whether the pixel format can be transparent. (The entries of a palette can.)"""
    return picture.format.has_palette or any(component.is_alpha for component in picture.format.components)


def _pixels(picture: VideoFrame) -> NDArray[np.uint8]:
    """(H, W) or (H, W, C): the picture's own memory, which lives as long as the array does; lines may have a margin.

    Of a picture with one plane, that nobody else writes to (as a decoder does to the ones it still refers to).
    """
    (plane,) = picture.planes
    channels = len(picture.format.components)
    strides = (plane.line_size, channels, 1)
    pixels = np.ndarray((picture.height, picture.width, channels), np.uint8, memoryview(plane), strides=strides)
    return pixels if channels > 1 else pixels[..., 0]


def _orientation(picture: VideoFrame) -> tuple[int, bool]:
    """(turns, mirrored): quarter turns counter-clockwise, then left-right mirroring, that make the picture upright."""
    try:
        # Not `picture.side_data`: that keeps a container which refers back to the picture, so that every picture would
        # wait, megabytes and all, for the cycle collector.
        matrix = SideDataContainer(picture).get("DISPLAYMATRIX")  # type: ignore[call-arg]  # PyAV's stub lacks it
    except ValueError:
        # PyAV cannot list side data that it has no name for, such as EXIF, and of what that says finds the angle alone.
        turned = round(picture.rotation / 90) % 4, False
        return exif.UPRIGHT.get(picture.opaque, turned) if isinstance(picture.opaque, int) else turned
    if not isinstance(matrix, SideData):
        return 0, False
    # x' = a x + c y, y' = b x + d y, as 16.16 fixed point. Mirroring changes the sign of a and c only.
    a, b, _, c, d = (int(value) for value in np.frombuffer(bytes(matrix), np.int32)[:5])
    return round(atan2(-b, d) / (pi / 2)) % 4, a * d < b * c


def _matrix(picture: VideoFrame) -> int | None:
    if picture.format.is_rgb or picture.format.has_palette:
        return None
    return _MATRICES.get(picture.colorspace, default_matrix(picture.height))
