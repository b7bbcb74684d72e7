"""Clips that training has nothing to learn from."""

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from jokr_rt.errors import InputError
from jokr_rt.training.data import Clip
from jokr_rt.training.inspection import inspect_clips
from tests.tiny import creature_clips

CAT, FOX = creature_clips(8)


def repainted(rgb: tuple[int, int, int]) -> Clip:
    """The cat's silhouettes in one colour."""
    frames = CAT.frames.clone()
    frames[:, :3] = torch.tensor(rgb, dtype=torch.uint8)[:, None, None] * (frames[:, 3:] > 127)
    return Clip("cat", frames, True)


def unmasked(rgb: NDArray[np.uint8]) -> Clip:
    frames = torch.from_numpy(rgb).permute(0, 3, 1, 2)
    return Clip("cat", torch.cat([frames, torch.full_like(frames[:, :1], 255)], 1), False)


def masked(change: dict[int, float]) -> Clip:
    """The cat, some of whose masks are a centred square with this share of the picture."""
    frames = CAT.frames.clone()
    for index, share in change.items():
        side = round(64 * share**0.5)
        frames[index, 3] = 0
        frames[index, 3, :side, :side] = 255
    return Clip("cat", frames, True)


def test_good_clips_are_left_alone():
    assert inspect_clips(CAT, FOX) == []


def test_the_same_clip_twice_is_refused_unless_the_masks_are_of_two_creatures():
    with pytest.raises(InputError, match="cat and cat are the same pictures twice"):
        inspect_clips(CAT, Clip("cat", CAT.frames.clone(), True))
    other = CAT.frames.clone()
    other[:, 3, :32] = 0
    inspect_clips(CAT, Clip("other", other, True))


def test_a_clip_of_one_colour_is_refused():
    black, grey = (unmasked(np.full((4, 64, 64, 3), level, np.uint8)) for level in (0, 128))
    grey.frames[:, :3, :8] = 0  # the bars of a letterbox
    with pytest.raises(InputError, match="cat: the picture is black throughout"):
        inspect_clips(black, FOX)
    with pytest.raises(InputError, match="cat: the picture is of one colour throughout"):
        inspect_clips(FOX, grey)


def test_a_creature_that_is_black_is_refused_and_one_of_one_colour_warned_of():
    with pytest.raises(InputError, match="the creature is black throughout under its masks"):
        inspect_clips(repainted((0, 0, 0)), FOX)
    (words,) = inspect_clips(repainted((200, 30, 30)), FOX)
    assert words.startswith("cat: the creature is of one colour under its masks")


def test_a_clip_without_motion_or_masks_is_warned_of():
    still = Clip("cat", CAT.frames[:1].repeat(8, 1, 1, 1), True)
    (words,) = inspect_clips(still, FOX)
    assert words.startswith("cat: all frames are alike")
    (words,) = inspect_clips(unmasked(CAT.frames[:, :3].permute(0, 2, 3, 1).numpy().copy()), FOX)
    assert words.startswith("cat: without masks its background is learnt with the creature")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({3: 0.0}, "cat: mask 3 (from 0) has no object"),
        ({2: 0.0, 6: 0.0}, "cat: 2 masks, the first of them 2 (from 0), have no object"),
        ({5: 1.0}, "cat: mask 5 (from 0) has the whole picture as the object"),
        ({4: 0.01}, "cat: mask 4 (from 0) has an object of quite another size"),
    ],
)
def test_bad_masks_are_warned_of_with_their_numbers(change, words):
    (found,) = inspect_clips(masked(change), FOX)
    assert found.startswith(words)
