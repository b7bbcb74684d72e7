"""The random views of two clips that a training step sees, made while the step before it computes."""

from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, fields
from typing import Any, Generic, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor

from jokr_rt.training import distributed
from jokr_rt.training.affine import SmoothWarp, random_affine, warp
from jokr_rt.training.data import Clip, on_black


@dataclass(frozen=True)
class GeometryBatch:
    """What a step of the first stage sees: 2n views, first n of video A, then n of B. All chance in a step is in here.

    inputs: (G * 2n, 3, E, E) in [-1, 1], what the extractor looks at, in G groups: the augmented views; their
    neighbours in time, if wanted; the augmented views once more under `extra`. masks: (2n, 1, E, E) in [0, 1], of the
    augmented views. base: (2n, 2, 3), maps from augmented views to plain frames. extra: smooth maps from views "once
    more" to augmented ones.
    """

    inputs: Tensor
    masks: Tensor
    base: Tensor
    extra: SmoothWarp


@dataclass(frozen=True)
class TextureBatch:
    """What a step of the second stage sees: 2n views, as above.

    inputs: (2n, 3, size, size) in [-1, 1], the augmented views that keypoints are found in. targets: (2n, 4, size,
    size) in [0, 1], RGB and mask of the same. looks: (2n, 3, size, size) in [-1, 1], other frames, whose looks are
    lent, warped and on black. base: (2n, 2, 3), maps from augmented views to plain frames. shake: (2n, 2, 3), what
    drawn frames are warped by before a critic sees them. bend: (2n, 2, 3) and usual: (2n, 1, 1) bool, see
    `TextureStage`.
    """

    inputs: Tensor
    targets: Tensor
    looks: Tensor
    base: Tensor
    shake: Tensor
    bend: Tensor
    usual: Tensor


B = TypeVar("B", GeometryBatch, TextureBatch)


class _Loader(Generic[B]):
    """Batches of `count` views of each clip, for step after step. One thread makes the next while this one is used.

    The batch of a step depends on the seed and the step alone, so that a resumed run sees what a whole one would have.
    backgrounds: share of the views that may have a background, at each step.
    """

    def __init__(
        self,
        clips: tuple[Clip, Clip],
        count: int,
        seed: int,
        device: torch.device,
        *,
        backgrounds: Callable[[int], float] = lambda step: 1.0,
    ) -> None:
        self.count, self.seed, self.device, self.share = count, seed, device, backgrounds
        self.frames = [clip.frames.to(device) for clip in clips]
        self.backgrounds = Backgrounds(clips, device)
        self._maker = ThreadPoolExecutor(1, "jokr-views")
        self._coming: tuple[int, Future[B]] | None = None

    def batch(self, step: int) -> B:
        """The batch of this step; starts to make the next step's."""
        if self._coming is None or self._coming[0] != step:
            self._coming = step, self._maker.submit(self.make, step)
        ready = self._coming[1].result()
        self._coming = step + 1, self._maker.submit(self.make, step + 1)
        return ready

    @torch.no_grad()
    def make(self, step: int) -> B:
        """The batch of this step, made here and now."""
        random = torch.Generator(self.device).manual_seed((self.seed * 1_000_003 + step) % 2**63)
        batch = self._views(step, random)
        if distributed.world_size() == 1:
            return batch
        values = {field.name: getattr(batch, field.name) for field in fields(batch)}
        return type(batch)(**{name: self._share(value) for name, value in values.items()})

    def _views(self, step: int, random: torch.Generator) -> B:
        raise NotImplementedError

    def _share(self, value: Tensor | SmoothWarp) -> Any:
        if isinstance(value, SmoothWarp):
            return value.share(self.count)
        return distributed.share(value, self.count)

    def _integers(self, low: int, high: int, random: torch.Generator) -> Tensor:
        return torch.randint(low, high, (self.count,), generator=random, device=self.device)

    def _picked(self, indices: Sequence[Tensor]) -> Tensor:
        """Frames (2n, 4, size, size) in [0, 1]."""
        picked = [frames[index] for frames, index in zip(self.frames, indices, strict=True)]
        return torch.cat(picked).float() / 255

    def _composed(self, views: Tensor, step: int, random: torch.Generator) -> Tensor:
        parts = views.chunk(2)
        return torch.cat(
            [self.backgrounds.compose(part, side, self.share(step), random) for side, part in enumerate(parts)]
        )


class GeometryLoader(_Loader[GeometryBatch]):
    """neighbours: whether to add the views' neighbours in time. size: side of the views, which divides the clips'."""

    def __init__(
        self,
        clips: tuple[Clip, Clip],
        count: int,
        seed: int,
        device: torch.device,
        *,
        size: int,
        neighbours: bool,
        backgrounds: Callable[[int], float] = lambda step: 1.0,
    ) -> None:
        small = clips[0].resized(size), clips[1].resized(size)
        super().__init__(small, count, seed, device, backgrounds=backgrounds)
        self.neighbours = neighbours

    def _views(self, step: int, random: torch.Generator) -> GeometryBatch:
        first, second = [], []
        for frames in self.frames:
            now = self._integers(0, len(frames) - 1, random)
            swap = self._integers(0, 2, random) == 0  # time runs both ways
            first.append(torch.where(swap, now + 1, now))
            second.append(torch.where(swap, now, now + 1))
        base = random_affine(2 * self.count, random)
        extra = SmoothWarp(random_affine(2 * self.count, random), random)
        augmented = warp(self._picked(first), base)
        seen = [augmented, *([warp(self._picked(second), base)] if self.neighbours else []), extra.warp(augmented)]
        inputs = torch.cat([self._composed(group, step, random) for group in seen])
        return GeometryBatch(inputs, augmented[:, 3:].contiguous(), base, extra)


class TextureLoader(_Loader[TextureBatch]):
    """coarse: whether the batch of a step is of half the size."""

    def __init__(
        self,
        clips: tuple[Clip, Clip],
        count: int,
        seed: int,
        device: torch.device,
        *,
        coarse: Callable[[int], bool] = lambda step: False,
        backgrounds: Callable[[int], float] = lambda step: 1.0,
    ) -> None:
        super().__init__(clips, count, seed, device, backgrounds=backgrounds)
        self.coarse = coarse

    def _views(self, step: int, random: torch.Generator) -> TextureBatch:
        first = [self._integers(0, len(frames), random) for frames in self.frames]
        # Any frame but the one to be drawn: were it the same, its looks would give away its pose.
        worn = [
            (index + self._integers(1, len(frames), random)) % len(frames)
            for index, frames in zip(first, self.frames, strict=True)
        ]
        base, other, shake, bend = (random_affine(2 * self.count, random) for _ in range(4))
        usual = torch.rand(2 * self.count, 1, 1, generator=random, device=self.device) < 0.5
        now, plain = self._sized(self._picked(first), step), self._sized(self._picked(worn), step)
        augmented = warp(now, base)
        # Appearance is read off an object on black, as export does; so no background can find its way into it.
        looks = on_black(warp(plain, other))
        return TextureBatch(self._composed(augmented, step, random), augmented, looks, base, shake, bend, usual)

    def _sized(self, frames: Tensor, step: int) -> Tensor:
        return F.avg_pool2d(frames, 2) if self.coarse(step) else frames


def background_plate(clip: Clip) -> Tensor:
    """What stands behind the object: mean over time of the pixels off the mask, (1, 3, size, size) in [0, 1].

    Where the object never moves away, the mean colour of the surroundings.
    """
    total = torch.zeros_like(clip.frames[:1, :3]).float()
    seen = torch.zeros_like(total[:, :1])
    for frame in clip.frames.split(32):
        outside = (frame[:, 3:] < 128).float()
        total += (frame[:, :3].float() / 255 * outside).sum(0, keepdim=True)
        seen += outside.sum(0, keepdim=True)
    around = total.sum((2, 3), keepdim=True) / seen.sum((2, 3), keepdim=True).clamp(min=1)
    return torch.where(seen > 0, total / seen.clamp(min=1), around)


class Backgrounds:
    """Puts objects before black, their own or random backgrounds, so that the extractor does without masks later."""

    def __init__(self, clips: tuple[Clip, Clip], device: torch.device) -> None:
        self.plates = torch.cat([background_plate(clip) for clip in clips]).to(device)
        self.masked = [clip.has_masks for clip in clips]

    def compose(self, views: Tensor, domain: int, share: float, random: torch.Generator) -> Tensor:
        """(N, 4, size, size) RGB and mask in [0, 1] -> (N, 3, size, size) in [-1, 1], each its own background.

        share: of the views that may get another background than black: two in five of these their own.
        """
        if not self.masked[domain]:
            return views[:, :3] * 2 - 1
        rgb, mask = views[:, :3], views[:, 3:]
        choice = torch.randint(5, (len(views), 1, 1, 1), generator=random, device=views.device)
        choice *= torch.rand(choice.shape, generator=random, device=views.device) < share
        behind = torch.where(choice == 1, self._plates(rgb, random), self._noise(rgb, random))
        behind = torch.where(choice == 0, torch.zeros_like(rgb), behind)
        composed = rgb * mask + behind * (1 - mask)
        return torch.where(choice >= 3, rgb, composed) * 2 - 1

    def _plates(self, like: Tensor, random: torch.Generator) -> Tensor:
        plates = self.plates[torch.randint(len(self.plates), (len(like),), generator=random, device=random.device)]
        plates = F.adaptive_avg_pool2d(plates, like.shape[-1])  # squares
        return warp(plates, random_affine(len(like), random, degrees=30, scale=0.3, shift=0.4))

    def _noise(self, like: Tensor, random: torch.Generator) -> Tensor:
        """Clouds of random colour, coarse and fine."""
        count, _, height, width = like.shape
        noise = torch.rand(count, 3, 1, 1, generator=random, device=like.device)
        for cells in (4, 16):
            layer = torch.rand(count, 3, cells, cells, generator=random, device=like.device) - 0.5
            noise = noise + F.interpolate(layer, (height, width), mode="bilinear", align_corners=False)
        return noise.clamp(0, 1)
