"""Training clips, decoded once into a temporary file."""

import tempfile
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from jokr_rt.errors import InputError, OutputError
from jokr_rt.names import clip_name
from jokr_rt.video import is_held_out, open_masks, open_video, with_masks

MIN_FRAMES = 3  # one to draw, its neighbour, and another to take the appearance from


@dataclass(frozen=True)
class Clip:
    """One video. name: for people. frames: (T, 4, size, size) uint8, RGB and mask (255 is the object).

    has_masks: whether masks were given; without them the whole picture counts as the object. held_out: how many frames
    more the video has, which were left out.
    """

    name: str
    frames: Tensor
    has_masks: bool
    held_out: int = 0

    def resized(self, size: int) -> "Clip":
        """The same with frames of a smaller size, which divides theirs."""
        factor = self.frames.shape[-1] // size
        if factor == 1:
            return self
        small = [F.avg_pool2d(frames.float(), factor).round().byte() for frames in self.frames.split(32)]
        return replace(self, frames=torch.cat(small))

    def references(self, count: int) -> NDArray[np.uint8]:
        """Up to `count` frames spread over the clip, the object on black: (R, size, size, 3) uint8."""
        indices = np.unique(np.linspace(0, len(self.frames) - 1, count).round().astype(int))
        frames = self.frames[indices]
        return (frames[:, :3] * (frames[:, 3:] > 127)).permute(0, 2, 3, 1).numpy().copy()


def load_clip(path: str | Path, masks: str | Path | None, size: int, holdout: int = 0) -> Clip:
    """Decode a whole clip, letterboxed, into a temporary file without a name; the tensor maps it.

    So the operating system keeps the frames in memory where they fit, and else reads them from the disk as they are
    used. TMPDIR chooses the folder. holdout: leave out the last of each so many frames, see `is_held_out`.

    Raises InputError, also where masks do not fit the frames, and OutputError where the disk is full.
    """
    path = Path(path)
    with ExitStack() as stack:
        video = stack.enter_context(open_video(path, size=size))
        mattes = stack.enter_context(open_masks(masks, size=size)) if masks is not None else None
        file = stack.enter_context(tempfile.TemporaryFile(buffering=0))
        count = held_out = 0
        for index, (frame, mask) in enumerate(with_masks(video, mattes)):
            if is_held_out(index, holdout):
                held_out += 1
                continue
            object_mask = np.ones(frame.rgb.shape[:2], np.bool_) if mask is None else mask
            picture = np.concatenate([frame.rgb, object_mask[..., None] * np.uint8(255)], axis=2)
            _append(file, picture.transpose(2, 0, 1), path)
            count += 1
        if count < MIN_FRAMES:
            raise InputError(f"{path}: {count} frames; training needs at least {MIN_FRAMES}")
        frames = torch.from_numpy(np.memmap(file, np.uint8, "r+", shape=(count, 4, size, size)))
    if not frames[:, 3].any():
        raise InputError(f"{masks}: no mask shows an object (white); check the masks")
    return Clip(clip_name(path), frames, masks is not None, held_out)


def _append(file: IO[bytes], picture: NDArray[np.uint8], path: Path) -> None:
    """Write it whole. Unbuffered, so that nothing is left to fail later; then a write may stop short."""
    rest = memoryview(picture.tobytes())
    try:
        while rest:
            rest = rest[file.write(rest) :]
    except OSError as error:
        folder = tempfile.gettempdir()
        raise OutputError(
            f"{folder}: no room for the decoded frames of {path}: {error.strerror}; set TMPDIR to a folder with more"
        ) from None


def on_black(views: Tensor) -> Tensor:
    """RGB and mask (N, 4, size, size) in [0, 1] -> the object before black, (N, 3, size, size) in [-1, 1]."""
    return views[:, :3] * views[:, 3:] * 2 - 1
