"""Pictures at another size."""

import numpy as np
from av import VideoFrame
from av.video.reformatter import VideoReformatter
from numpy.typing import NDArray

from jokr_rt.video.picture import SCALING, letterbox_box


class Resizer:
    """Resizes pictures, (H, W, 3) RGB or (H, W), uint8. Keeps its tables from one to the next; for one thread."""

    def __init__(self) -> None:
        self._reformatter = VideoReformatter()

    def resize(self, picture: NDArray[np.uint8], width: int, height: int) -> NDArray[np.uint8]:
        """The whole picture in width x height pixels; the picture itself where it has them already."""
        if picture.shape[:2] == (height, width):
            return picture
        pixel_format = "rgb24" if picture.ndim == 3 else "gray"
        stored = self._reformatter.reformat(
            VideoFrame.from_ndarray(np.ascontiguousarray(picture), pixel_format),
            width,
            height,
            format=pixel_format,
            interpolation=SCALING,
            threads=1,
        )
        return np.ascontiguousarray(stored.to_ndarray(), np.uint8)

    def fit(self, picture: NDArray[np.uint8], width: int, height: int) -> NDArray[np.uint8]:
        """The whole picture at its aspect ratio, centred before black (0) in width x height pixels."""
        if picture.shape[:2] == (height, width):
            return picture
        x, y, inner_width, inner_height = fit_box(picture.shape[1], picture.shape[0], width, height)
        canvas = np.zeros((height, width, *picture.shape[2:]), np.uint8)
        canvas[y : y + inner_height, x : x + inner_width] = self.resize(picture, inner_width, inner_height)
        return canvas

    def cover(self, picture: NDArray[np.uint8], width: int, height: int) -> NDArray[np.uint8]:
        """The middle of the picture at its aspect ratio, so large that it fills width x height pixels."""
        rows, columns = picture.shape[:2]
        inner_width, inner_height = (
            min(columns, max(1, rows * width // height)),
            min(rows, max(1, columns * height // width)),
        )
        x, y = (columns - inner_width) // 2, (rows - inner_height) // 2
        return self.resize(picture[y : y + inner_height, x : x + inner_width], width, height)


def fit_box(columns: int, rows: int, width: int, height: int) -> tuple[int, int, int, int]:
    """Where a picture of columns x rows lies, fitted into width x height: (x, y, width, height)."""
    if width == height:
        return letterbox_box(columns, rows, width)
    scale = min(width / columns, height / rows)
    inner_width, inner_height = (max(1, round(side * scale)) for side in (columns, rows))
    return (width - inner_width) // 2, (height - inner_height) // 2, inner_width, inner_height
