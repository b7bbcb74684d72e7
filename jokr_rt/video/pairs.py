"""Frames and their masks, side by side."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from jokr_rt.errors import InputError
from jokr_rt.frame import Frame
from jokr_rt.video.picture import letterbox_box
from jokr_rt.video.reader import MaskSource, VideoSource

Pair = tuple[Frame, NDArray[np.bool_] | None]


def is_held_out(index: int, every: int) -> bool:
    """Whether frame `index` (from 0) of a clip is kept from training: the last of each `every` frames; none for 0."""
    return every > 0 and index % every == every - 1


def with_masks(video: VideoSource, masks: MaskSource | None) -> Iterator[Pair]:
    """Each frame with its mask, or with None where there are no masks; both letterboxed to the same size.

    Raises InputError where a mask has another shape than its frame, and so would lie beside the object, and where
    there are more of one than of the other, with both numbers.
    """
    if masks is None:
        yield from ((frame, None) for frame in video)
        return
    count = 0
    for frame in video:
        mask = next(masks, None)
        if mask is None:
            raise _uneven(video, masks, count + 1 + sum(1 for _ in video), count)
        _check_shape(video, masks, count)
        yield frame, mask
        count += 1
    surplus = sum(1 for _ in masks)
    if surplus:
        raise _uneven(video, masks, count, count + surplus)


def _check_shape(video: VideoSource, masks: MaskSource, index: int) -> None:
    """Of the pictures last read. A mask may be smaller than its frame; rounding may then move its box by a pixel."""
    boxes = (letterbox_box(*source.upright_size, video.width) for source in (video, masks))
    if any(abs(side - other) > 1 for side, other in zip(*boxes, strict=True)):
        (width, height), (mask_width, mask_height) = video.upright_size, masks.upright_size
        raise InputError(
            f"{masks.path}: mask {index} (from 0) is {mask_width} x {mask_height} pixels, its frame in {video.path} "
            f"{width} x {height}; make the masks from the same pictures"
        )


def _uneven(video: VideoSource, masks: MaskSource, frames: int, mattes: int) -> InputError:
    return InputError(f"{masks.path}: {mattes} masks for the {frames} frames of {video.path}; each needs one")
