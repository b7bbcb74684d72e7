"""Do two creatures face the same way? A network that knows creatures from ImageNet is asked, not the user.

The affine map between the keypoints of two creatures that face opposite ways has a negative determinant, and no descent
gets there from a positive one.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from jokr_rt.training.data import Clip, on_black
from jokr_rt.training.perception import Features

FRAMES = 8  # of each clip
SIDE = 192  # of the pictures that the network sees
LEVELS = (14, 15)  # the ends of the last two stages, stride 32: heads and tails, not edges
TILTS = (-15.0, 0.0, 15.0)  # degrees: creatures stand on slopes, and cameras are held askew
# In trials on known pairs, the sign was right in 91 % (406 of drawn animals) and 94 % (190 of random puppets); beyond
# this margin in 99 and 100 %: half of the animals, four fifths of the puppets. A drawing with a puppet is too much to
# ask: 64 %, and 89 % of the sixth that is beyond.
SURE = 0.2


@dataclass(frozen=True)
class Facing:
    """margin: from -1, opposite ways for certain, to 1, the same way for certain."""

    margin: float

    @property
    def opposite(self) -> bool:
        """Whether the creatures more likely face opposite ways."""
        return self.margin < 0

    @property
    def sure(self) -> bool:
        """Whether the margin is large enough to rely on; else a person should say."""
        return abs(self.margin) >= SURE


def facing(first: Clip, second: Clip) -> Facing:
    """Compare which way the creatures of two clips face, each clip as a whole; clips as `load_clip` has them.

    The margin is the cosine of what mirroring changes in the features of one clip and in those of the other. So it is
    1 for a clip and itself, changes its sign when one clip is mirrored, and is 0 where a creature turns about halfway.
    Without masks the pictures are compared whole, which says more of the backgrounds than of the creatures.

    Raises what `Features` raises.
    """
    features = Features(LEVELS)
    return Facing(float(_direction(first, features) @ _direction(second, features)))


@torch.no_grad()
def _direction(clip: Clip, features: Features) -> Tensor:
    """What mirroring changes in the features, the mean of frames and tilts: one vector of unit length, or of 0."""
    visible = clip.frames[:, 3].flatten(1).amax(dim=1).gt(127).nonzero()[:, 0]
    chosen = visible[np.unique(np.linspace(0, len(visible) - 1, FRAMES).round().astype(int))]
    frames = on_black(clip.frames[chosen].float() / 255)
    masks = clip.frames[chosen, 3:] > 127
    changes = []
    for tilt in TILTS:
        pictures = _close_ups(frames, masks, tilt)
        changes.append([_change(a, b) for a, b in zip(features(pictures), features(pictures.flip(-1)), strict=True)])
    levels = [torch.stack(level).mean(dim=0).flatten() for level in zip(*changes, strict=True)]
    return F.normalize(torch.cat([F.normalize(level, dim=0) for level in levels]), dim=0)


def _change(seen: Tensor, mirrored: Tensor) -> Tensor:
    """Two maps (N, C, h, w) -> their mean difference (C, h, w), blurred, as creatures differ in proportions."""
    return F.avg_pool2d((seen - mirrored).mean(dim=0), kernel_size=3, stride=1, padding=1)


def _close_ups(frames: Tensor, masks: Tensor, tilt: float) -> Tensor:
    """Pictures (N, 3, size, size) in [-1, 1], masks (N, 1, size, size) -> the creatures, tilted by degrees and cut out.

    (N, 3, SIDE, SIDE): a long creature is squeezed, so that head comes to lie on head.
    """
    cosine, sine = math.cos(math.radians(tilt)), math.sin(math.radians(tilt))
    # Black is 0 here, as is what comes in from outside; zoomed out, for a corner that is turned must not be lost.
    zoom = cosine + abs(sine)
    turn = torch.tensor([[cosine, -sine, 0], [sine, cosine, 0]]) * zoom
    grid = F.affine_grid(turn.expand(len(frames), 2, 3), list(frames.shape), align_corners=False)
    tilted = F.grid_sample(torch.cat([frames + 1, masks.float()], dim=1), grid, align_corners=False)
    cut = []
    for picture in tilted:
        rows, columns = (picture[3] > 0.5).nonzero(as_tuple=True)
        box = picture[None, :3, rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]
        cut.append(F.interpolate(box, (SIDE, SIDE), mode="bilinear", antialias=True, align_corners=False))
    return torch.cat(cut) - 1
