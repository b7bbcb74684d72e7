"""Clips that there is nothing to learn from are refused before training; of poor ones a line says what is wrong."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from jokr_rt.errors import InputError
from jokr_rt.training.data import Clip

LEVELS = 2.0  # of 255: what an encoder makes of one colour, or of a picture that stands still
BLACK = 8.0  # levels on average: nothing is to be seen before black
FULL = 0.99  # share of the picture
FLICKER = 0.5  # a mask's area is off by this share of its neighbours'


@dataclass(frozen=True)
class _Figures:
    """mean: level of the object. spread: largest standard deviation of a colour channel on it, levels; what is black,
    as the bars beside a picture are, does not count. motion: mean difference to the first frame, levels. areas: shares
    of the picture, (T,)."""

    mean: float
    spread: float
    motion: float
    areas: Tensor


def inspect_clips(first: Clip, second: Clip) -> list[str]:
    """What is poor about two clips, a line each. Raises InputError where both are the same or show nothing."""
    if first.frames.shape == second.frames.shape and torch.equal(first.frames, second.frames):
        raise InputError(
            f"{first.name} and {second.name} are the same pictures twice; give clips of two creatures, or masks of two"
        )
    return [f"{clip.name}: {words}" for clip in (first, second) for words in _inspect(clip)]


def _inspect(clip: Clip) -> Iterator[str]:
    figures = _measure(clip.frames)
    if figures.mean <= BLACK:
        raise InputError(
            f"{clip.name}: the {'creature' if clip.has_masks else 'picture'} is black throughout"
            + (" under its masks, and is drawn before black; brighten the frames" if clip.has_masks else "; check it")
        )
    if figures.spread <= LEVELS and not clip.has_masks:
        raise InputError(f"{clip.name}: the picture is of one colour throughout; check it")
    if figures.spread <= LEVELS:
        yield "the creature is of one colour under its masks; its limbs cannot be told apart; check frames and masks"
    if figures.motion <= LEVELS / 2 and len(clip.frames) > 1:
        yield "all frames are alike; there is no motion to learn from"
    if not clip.has_masks:
        yield "without masks its background is learnt with the creature, and the result is poor (--a-masks, --b-masks)"
        return
    for wrong, words in (
        (figures.areas == 0, "no object"),
        (figures.areas >= FULL, "the whole picture as the object"),
        (_flickers(figures.areas), "an object of quite another size than the masks before and after have"),
    ):
        if wrong.any():
            yield f"{_masks(wrong.nonzero().flatten().tolist())} {words}; check the masks"


def _masks(numbers: Sequence[int]) -> str:
    if len(numbers) == 1:
        return f"mask {numbers[0]} (from 0) has"
    return f"{len(numbers)} masks, the first of them {numbers[0]} (from 0), have"


def _flickers(areas: Tensor) -> Tensor:
    """Of each mask, whether it is off while its two neighbours agree with each other. (T,) bool."""
    found = torch.zeros(len(areas), dtype=torch.bool)
    before, now, after = areas[:-2], areas[1:-1], areas[2:]
    around = (before + after) / 2
    agree = (before - after).abs() < FLICKER * around / 2
    found[1:-1] = agree & ((now - around).abs() > FLICKER * around) & (now > 0) & (now < FULL)
    return found


def _measure(frames: Tensor) -> _Figures:
    total, squares, count, level, pixels, moved = torch.zeros(3).double(), torch.zeros(3).double(), 0.0, 0.0, 0.0, 0.0
    start, areas = frames[:1, :3].float(), []
    for batch in frames.split(32):
        rgb, inside = batch[:, :3].float(), batch[:, 3:] > 127
        lit = inside & (rgb.amax(1, keepdim=True) > 0)
        total += (rgb * lit).double().sum((0, 2, 3))
        squares += (rgb.square() * lit).double().sum((0, 2, 3))
        count += float(lit.sum())
        level += float((rgb.mean(1, keepdim=True) * inside).double().sum())
        pixels += float(inside.sum())
        moved += float((rgb - start).abs().mean((1, 2, 3)).sum())
        areas.append(inside.float().mean((1, 2, 3)))
    variance = squares / max(count, 1) - (total / max(count, 1)).square()
    spread = float(variance.clamp(min=0).max().sqrt())
    return _Figures(level / max(pixels, 1), spread, moved / len(frames), torch.cat(areas))
