"""The random views of two clips that a training step sees, made while the step before it computes."""

from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from jokr_rt.training import distributed
from jokr_rt.training.data import Clip, on_black
from jokr_rt.training.geometry import SmoothWarp, random_affine, warp

PLAIN_SETTLING = 4  # keypoints are cheap to find, and what a few poses say of two sets of them is mostly chance


@dataclass(frozen=True)
class Batch:
    """What one step sees: 2n views, first n of video A, then n of B. All chance in a step is in here.

    inputs: (G * 2n, 3, size, size) in [-1, 1], what the extractor looks at, in G groups: the augmented views; their
    neighbours in time, if wanted; the augmented views once more under `extra`; other frames to take looks from, warped
    and on black.
    plain: (2m, 3, size, size) in [-1, 1], first m of video A: these other frames as they are, as they will be met at
    run time; while the model settles, PLAIN_SETTLING times as many, with further ones after each video's n.
    targets: (2n, 4, size, size) in [0, 1], RGB and mask of the augmented views.
    base: (2n, 2, 3), maps from augmented views to plain frames. other: the same for the frames to take looks from.
    extra: smooth maps from views "once more" to augmented ones.
    shake: (2n, 2, 3), what drawn frames are warped by before the critics see them.
    bend: (2n, 2, 3) and usual: (2n, 1, 1) bool, see `Stepper._draw`.
    """

    inputs: Tensor
    plain: Tensor
    targets: Tensor
    base: Tensor
    other: Tensor
    extra: SmoothWarp
    shake: Tensor
    bend: Tensor
    usual: Tensor

    def share(self, count: int) -> "Batch":
        """This process's views, where `count` are those of each video in all processes."""
        kept = {name: value for name, value in vars(self).items() if name != "extra"}
        shares = {name: distributed.share(value, count) for name, value in kept.items()}
        return Batch(**shares, extra=self.extra.share(count))


class Loader:
    """Batches of `count` views of each clip, for step after step. One thread makes the next while this one is used.

    The batch of a step depends on the seed and the step alone, so that a resumed run sees what a whole one would have.
    backgrounds: share of the views that may have a background, at each step. coarse_steps: so many first batches are
    of half the size. neighbours: whether to add the views' neighbours in time. other_looks: whether looks come from
    another frame than the one to be drawn.
    """

    def __init__(
        self,
        clips: tuple[Clip, Clip],
        count: int,
        seed: int,
        device: torch.device,
        *,
        backgrounds: Callable[[int], float] = lambda step: 1.0,
        coarse_steps: int = 0,
        neighbours: bool = False,
        other_looks: bool = True,
        settling: Callable[[int], bool] = lambda step: False,
    ) -> None:
        self.count, self.seed, self.device = count, seed, device
        self.share, self.coarse_steps = backgrounds, coarse_steps
        self.neighbours, self.other_looks, self.settling = neighbours, other_looks, settling
        self.frames = [clip.frames.to(device) for clip in clips]
        self.backgrounds = Backgrounds(clips, device)
        self._maker = ThreadPoolExecutor(1, "jokr-views")
        self._coming: tuple[int, Future[Batch]] | None = None

    def batch(self, step: int) -> Batch:
        """The batch of this step; starts to make the next step's."""
        if self._coming is None or self._coming[0] != step:
            self._coming = step, self._maker.submit(self._make, step)
        ready = self._coming[1].result()
        self._coming = step + 1, self._maker.submit(self._make, step + 1)
        return ready

    @torch.no_grad()
    def _make(self, step: int) -> Batch:
        random = torch.Generator(self.device).manual_seed((self.seed * 1_000_003 + step) % 2**63)
        picks = [self._pick(len(frames), random) for frames in self.frames]

        def views(chosen: Sequence[Tensor]) -> Tensor:
            picked = torch.cat([frames[index] for frames, index in zip(self.frames, chosen, strict=True)])
            whole = picked.float() / 255
            return F.avg_pool2d(whole, 2) if step < self.coarse_steps else whole

        first, neighbours, looks = zip(*picks, strict=True)
        now, plain = views(first), views(looks)
        base, other, shake, bend = (random_affine(len(now), random) for _ in range(4))
        extra = SmoothWarp(random_affine(len(now), random, degrees=15, scale=0.15), random)
        augmented = warp(now, base)
        seen = [augmented, *([warp(views(neighbours), base)] if self.neighbours else []), extra.warp(augmented)]
        inputs = [
            self.backgrounds.compose(part, side, self.share(step), random)
            for group in seen
            for side, part in enumerate(group.chunk(2))
        ]
        if self.settling(step):
            looks = tuple(self._with_more(*each, random) for each in zip(looks, self.frames, strict=True))
        met = [
            self.backgrounds.keep(part, side, self.share(step), random)
            for side, part in enumerate(views(looks).chunk(2))
        ]
        # Appearance is read off an object on black, as export does; so no background can find its way into it.
        inputs.append(on_black(warp(plain, other)))
        usual = torch.rand(len(now), 1, 1, generator=random, device=self.device) < 0.5
        batch = Batch(torch.cat(inputs), torch.cat(met), augmented, base, other, extra, shake, bend, usual)
        return batch.share(self.count) if distributed.world_size() > 1 else batch

    def _pick(self, length: int, random: torch.Generator) -> Tensor:
        """Indices (3, n) of frames, of their neighbours in time, and of frames to take looks from."""

        def integers(low: int, high: int) -> Tensor:
            return torch.randint(low, high, (self.count,), generator=random, device=self.device)

        now = integers(0, length - 1)
        swap = integers(0, 2) == 0  # time runs both ways
        first, second = torch.where(swap, now + 1, now), torch.where(swap, now, now + 1)
        # Any frame but the one to be drawn: were it the same, its looks would give away its pose.
        looks = (first + integers(1, length)) % length if self.other_looks else first
        return torch.stack([first, second, looks])

    def _with_more(self, index: Tensor, frames: Tensor, random: torch.Generator) -> Tensor:
        """Indices of frames, and as many again of any as make it PLAIN_SETTLING times as many."""
        count = (PLAIN_SETTLING - 1) * len(index)
        return torch.cat([index, torch.randint(len(frames), (count,), generator=random, device=self.device)])


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

    def keep(self, views: Tensor, domain: int, share: float, random: torch.Generator) -> Tensor:
        """The same with their own background; all but this share on black."""
        if not self.masked[domain]:
            return views[:, :3] * 2 - 1
        kept = torch.rand((len(views), 1, 1, 1), generator=random, device=views.device) < share
        return torch.where(kept, views[:, :3] * 2 - 1, on_black(views))

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
