"""Training clips in memory, and the random views of them that a training step sees."""

from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from jokr_rt.errors import InputError
from jokr_rt.training.geometry import random_affine, warp
from jokr_rt.video import open_masks, open_video, with_masks

MIN_FRAMES = 3  # one to draw, its neighbour, and another to take the appearance from


@dataclass(frozen=True)
class Clip:
    """One video. name: for people. frames: (T, 4, size, size) uint8, RGB and mask (255 is the object).

    has_masks: whether masks were given; without them the whole picture counts as the object.
    """

    name: str
    frames: Tensor
    has_masks: bool

    def references(self, count: int) -> NDArray[np.uint8]:
        """Up to `count` frames spread over the clip, the object on black: (R, size, size, 3) uint8."""
        indices = np.unique(np.linspace(0, len(self.frames) - 1, count).round().astype(int))
        frames = self.frames[indices]
        return (frames[:, :3] * (frames[:, 3:] > 127)).permute(0, 2, 3, 1).numpy().copy()


def load_clip(path: str | Path, masks: str | Path | None, size: int) -> Clip:
    """Decode a whole clip, letterboxed. Raises InputError, also where masks do not fit the frames."""
    path = Path(path)
    pictures = []
    with ExitStack() as stack:
        video = stack.enter_context(open_video(path, size=size))
        mattes = stack.enter_context(open_masks(masks, size=size)) if masks is not None else None
        for frame, mask in with_masks(video, mattes):
            object_mask = np.ones(frame.rgb.shape[:2], np.bool_) if mask is None else mask
            picture = np.concatenate([frame.rgb, object_mask[..., None] * np.uint8(255)], axis=2)
            pictures.append(torch.from_numpy(picture).permute(2, 0, 1))
    if len(pictures) < MIN_FRAMES:
        raise InputError(f"{path}: {len(pictures)} frames; training needs at least {MIN_FRAMES}")
    frames = torch.stack(pictures).contiguous()
    if not frames[:, 3].any():
        raise InputError(f"{masks}: no mask shows an object (white); check the masks")
    name = path.parent.name if path.is_dir() and path.name == "frames" else path.stem
    return Clip(name or path.stem, frames, masks is not None)


@dataclass(frozen=True)
class Views:
    """What a step sees of one clip; N views each of frames, their neighbours in time and frames to take looks from.

    Each is (N, 4, size, size) float in [0, 1]: RGB and mask, before any augmentation.
    """

    frames: Tensor
    following: Tensor
    looks: Tensor

    @classmethod
    def sample(cls, clip: Clip, count: int, device: torch.device) -> "Views":
        length = len(clip.frames)
        now = torch.randint(length - 1, (count,))
        # Any frame but the one to be drawn: were it the same, its looks would give away its pose.
        looks = (now + torch.randint(1, length, (count,))) % length
        swap = torch.rand(count) < 0.5  # time runs both ways
        first, second = torch.where(swap, now + 1, now), torch.where(swap, now, now + 1)
        looks = torch.where(looks == first, (looks + 1) % length, looks)
        return cls(*(clip.frames[indices].to(device).float() / 255 for indices in (first, second, looks)))


def background_plate(clip: Clip) -> Tensor:
    """What stands behind the object: mean over time of the pixels off the mask, (1, 3, size, size) in [0, 1].

    Where the object never moves away, the mean colour of the surroundings.
    """
    total = torch.zeros_like(clip.frames[:1, :3], dtype=torch.float32)
    seen = torch.zeros_like(total[:, :1])
    for frame in clip.frames.split(32):
        outside = (frame[:, 3:] < 128).float()
        total += (frame[:, :3].float() / 255 * outside).sum(0, keepdim=True)
        seen += outside.sum(0, keepdim=True)
    around = total.sum((2, 3), keepdim=True) / seen.sum((2, 3), keepdim=True).clamp(min=1)
    return torch.where(seen > 0, total / seen.clamp(min=1), around)


def on_black(views: Tensor) -> Tensor:
    """RGB and mask (N, 4, size, size) in [0, 1] -> the object before black, (N, 3, size, size) in [-1, 1]."""
    return views[:, :3] * views[:, 3:] * 2 - 1


class Backgrounds:
    """Puts objects before black, their own or random backgrounds, so that the extractor does without masks later."""

    def __init__(self, clips: tuple[Clip, Clip], device: torch.device) -> None:
        self.plates = torch.cat([background_plate(clip) for clip in clips]).to(device)
        self.masked = [clip.has_masks for clip in clips]

    def compose(self, views: Tensor, domain: int) -> Tensor:
        """(N, 4, size, size) RGB and mask in [0, 1] -> (N, 3, size, size) in [-1, 1], each its own background."""
        rgb, mask = views[:, :3], views[:, 3:]
        if not self.masked[domain]:
            return rgb * 2 - 1
        choice = torch.randint(4, (len(views), 1, 1, 1), device=views.device)
        behind = torch.where(choice == 1, self._plates(rgb), self._noise(rgb))
        behind = torch.where(choice == 0, torch.zeros_like(rgb), behind)
        composed = rgb * mask + behind * (1 - mask)
        return torch.where(choice == 3, rgb, composed) * 2 - 1

    def _plates(self, like: Tensor) -> Tensor:
        plates = self.plates[torch.randint(len(self.plates), (len(like),), device=like.device)]
        return warp(plates, random_affine(len(like), like, degrees=30, scale=0.3, shift=0.4))

    def _noise(self, like: Tensor) -> Tensor:
        """Clouds of random colour, coarse and fine."""
        count, _, height, width = like.shape
        noise = torch.rand(count, 3, 1, 1, device=like.device)
        for cells in (4, 16):
            layer = torch.rand(count, 3, cells, cells, device=like.device) - 0.5
            noise = noise + F.interpolate(layer, (height, width), mode="bilinear", align_corners=False)
        return noise.clamp(0, 1)
