"""What a training step sees: batches that follow from seed and step, and backgrounds."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from jokr_rt.training.affine import transform
from jokr_rt.training.data import Clip, on_black
from jokr_rt.training.networks import cell_centres, render_heatmaps
from jokr_rt.training.views import (
    Backgrounds,
    GeometryBatch,
    GeometryLoader,
    TextureBatch,
    TextureLoader,
    background_plate,
)
from tests.tiny import creature_clips

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def clips() -> tuple[Clip, Clip]:
    """Four frames of each creature, before the colours of a sunset."""
    random = torch.Generator().manual_seed(0)
    sunset = torch.randint(0, 256, (1, 3, 1, 64), dtype=torch.uint8, generator=random)
    found = [
        replace(clip, frames=torch.cat([torch.where(clip.frames[:, 3:] > 0, clip.frames[:, :3], sunset),
                                        clip.frames[:, 3:]], dim=1))
        for clip in creature_clips(4)
    ]  # fmt: skip
    return found[0], found[1]


def numbered(count: int, size: int = 8) -> Clip:
    """A clip without masks whose frame i is of the level 10 i throughout."""
    levels = 10 * torch.arange(count, dtype=torch.uint8).reshape(-1, 1, 1, 1)
    return Clip("n", torch.cat([levels.expand(-1, 3, size, size), torch.full((count, 1, size, size), 255)], 1).byte(),
                has_masks=False)  # fmt: skip


def numbers(pictures: torch.Tensor) -> torch.Tensor:
    """Of pictures (N, 3, size, size) in [-1, 1] of numbered frames, warped by little: which ones they are."""
    middle = pictures.shape[-1] // 2
    return ((pictures[:, 0, middle, middle] + 1) * 127.5 / 10).round().long()


Batch = GeometryBatch | TextureBatch


def geometry(clips: tuple[Clip, Clip], count: int, seed: int, **more) -> GeometryLoader:
    return GeometryLoader(clips, count, seed, CPU, **{"size": clips[0].frames.shape[-1], "neighbours": True} | more)


def texture(clips: tuple[Clip, Clip], count: int, seed: int, **more) -> TextureLoader:
    return TextureLoader(clips, count, seed, CPU, **more)


LOADERS = pytest.mark.parametrize("loader", [geometry, texture])


def everything_in(batch: Batch) -> dict[str, torch.Tensor]:
    values = dict(vars(batch))
    if isinstance(batch, GeometryBatch):
        places = torch.linspace(-1, 1, 12).reshape(1, 6, 2).expand(len(batch.masks), -1, -1)
        values["extra"] = batch.extra.transform(places)
    return values


def same(one: Batch, other: Batch) -> bool:
    theirs = everything_in(other)
    return all(torch.equal(value, theirs[name]) for name, value in everything_in(one).items())


@LOADERS
def test_a_batch_follows_from_seed_and_step_whatever_was_asked_for_before(clips, loader):
    first = loader(clips, 2, 5)
    batches = [first.batch(step) for step in range(5)]
    torch.manual_seed(99)
    random = torch.get_rng_state()
    for each in (first, loader(clips, 2, 5)):  # a resumed run has a new one
        for step in (3, 1, 1, 4, 0, 2):
            assert same(each.batch(step), batches[step]), step
            assert same(each.make(step), batches[step]), step
    assert torch.equal(torch.get_rng_state(), random)


@LOADERS
def test_other_seeds_and_other_steps_give_batches_that_differ_throughout(clips, loader):
    batch = everything_in(loader(clips, 8, 5).batch(1))
    for other in (loader(clips, 8, 5).batch(2), loader(clips, 8, 6).batch(1)):
        assert not any(torch.equal(value, batch[name]) for name, value in everything_in(other).items())


@pytest.mark.parametrize(("neighbours", "groups"), [(False, 2), (True, 3)])
@pytest.mark.parametrize("size", [32, 64])
def test_geometry_is_shown_at_the_size_that_is_looked_at_and_neighbours_are_one_more_group(
    clips, neighbours, groups, size
):
    batch = geometry(clips, 3, 0, neighbours=neighbours, size=size).batch(0)
    assert batch.inputs.shape == (groups * 6, 3, size, size)
    assert batch.masks.shape == (6, 1, size, size)
    assert batch.base.shape == batch.extra.theta.shape == (6, 2, 3)
    assert -1 <= batch.inputs.min() < batch.inputs.max() <= 1
    assert 0 == batch.masks.min() < batch.masks.max() <= 1


def test_shapes_and_ranges_of_the_texture(clips):
    batch = texture(clips, 3, 0).batch(0)
    assert batch.inputs.shape == batch.looks.shape == (6, 3, 64, 64)
    assert batch.targets.shape == (6, 4, 64, 64)
    assert batch.base.shape == batch.shake.shape == batch.bend.shape == (6, 2, 3)
    assert (batch.usual.shape, batch.usual.dtype) == ((6, 1, 1), torch.bool)
    assert -1 <= batch.inputs.min() < batch.inputs.max() <= 1
    assert 0 <= batch.targets.min() < batch.targets.max() <= 1


def test_half_of_the_heatmaps_are_bent_as_usual(clips):
    small = tuple(replace(clip, frames=clip.frames[..., ::8, ::8]) for clip in clips)
    assert texture(small, 1000, 0).batch(0).usual.float().mean().item() == pytest.approx(0.5, abs=0.05)


@pytest.mark.parametrize("count", [3, 8])
def test_looks_come_from_every_frame_but_the_one_drawn(count):
    batch = texture((numbered(count), numbered(count)), 2000, 0).batch(0)
    now, looks = numbers(batch.inputs), numbers(batch.looks)
    assert torch.equal(now, numbers(batch.targets[:, :3] * 2 - 1))
    for side in range(2):
        drawn, lent = (each.chunk(2)[side].tolist() for each in (now, looks))
        assert set(zip(drawn, lent, strict=True)) == {(i, j) for i in range(count) for j in range(count) if i != j}


@pytest.mark.parametrize("count", [3, 8])
def test_neighbours_are_the_next_or_the_last_frame(count):
    batch = geometry((numbered(count), numbered(count)), 2000, 0).batch(0)
    now, following, again = map(numbers, batch.inputs.chunk(3))
    assert (now == again).float().mean() > 0.99  # unless the middle is bent out of the picture
    steps = set(zip(now.tolist(), following.tolist(), strict=True))
    assert steps == {(i, j) for i in range(count) for j in range(count) if abs(i - j) == 1}


@LOADERS
def test_the_first_half_of_every_group_is_video_a(loader):
    first, second = numbered(3), numbered(12)
    second = replace(second, frames=second.frames[6:])
    batch = loader((first, second), 4, 0).batch(0)
    shown = batch.inputs.split(8)
    if isinstance(batch, TextureBatch):
        shown = (*shown, batch.looks, batch.targets[:, :3] * 2 - 1)
    for group in shown:
        of_a, of_b = numbers(group).chunk(2)
        assert of_a.max() < 3
        assert of_b.min() >= 6


def test_at_a_share_of_0_every_background_is_black_and_at_1_most_are_not(clips):
    def share(step: int) -> float:
        return float(step >= 3)

    for step in (0, 2):
        batch = texture(clips, 8, 0, backgrounds=share).batch(step)
        torch.testing.assert_close(batch.inputs, on_black(batch.targets))
        first = geometry(clips, 8, 0, backgrounds=share).batch(step)
        for group, mask in zip(first.inputs.chunk(3), (first.masks, None, first.extra.warp(first.masks)), strict=True):
            assert mask is None or (group[(mask == 0).expand_as(group)] == -1).all()
    batch = texture(clips, 8, 0, backgrounds=share).batch(3)
    black = (batch.inputs - on_black(batch.targets)).abs().amax((1, 2, 3)) < 1e-6
    assert 0 < black.sum() < 8
    assert ((batch.looks == -1).all(1).float().mean((1, 2)) > 0.3).all()  # but looks are always read on black


def test_coarse_batches_are_the_same_views_at_half_the_size(clips):
    coarse, fine = texture(clips, 4, 3, coarse=lambda step: step < 2), texture(clips, 4, 3)
    for step in range(3):
        one, other = coarse.batch(step), fine.batch(step)
        if step == 2:
            assert same(one, other)
            break
        assert one.inputs.shape == one.looks.shape == (8, 3, 32, 32)
        assert one.targets.shape == (8, 4, 32, 32)
        for name in ("base", "shake", "bend", "usual"):
            assert torch.equal(getattr(one, name), getattr(other, name)), name
        assert (one.targets - F.avg_pool2d(other.targets, 2))[:, 3].abs().mean() < 0.02  # of the masks


def brightest(pictures: torch.Tensor) -> torch.Tensor:
    """Centre (N, 1, 2) of what is bright in pictures (N, C, size, size) in [0, 1]."""
    mass = pictures[:, 0] ** 8  # the tip of the dot: a bend squeezes one of its sides more than the other
    mass = mass / mass.sum((1, 2), keepdim=True)
    axis = cell_centres(mass.shape[-1], mass)
    return torch.stack([(mass.sum(1) * axis).sum(-1), (mass.sum(2) * axis).sum(-1)], dim=-1)[:, None]


@settings(max_examples=30)
@given(st.integers(0, 2**62), st.floats(-0.3, 0.3), st.floats(-0.3, 0.3))
def test_the_maps_of_a_batch_are_those_that_made_its_pictures(seed, x, y):
    place = torch.tensor([[[x, y]]])
    dot = (render_heatmaps(place, 64)[0] * 255).round().byte()
    clip = Clip("dot", torch.cat([dot.expand(3, -1, -1), torch.full((1, 64, 64), 255)]).byte().expand(3, -1, -1, -1),
                has_masks=False)  # fmt: skip
    there = place.expand(8, -1, -1)
    batch = geometry((clip, clip), 4, seed).batch(0)
    now, following, again = ((group + 1) / 2 for group in batch.inputs.chunk(3))
    assert torch.equal(now, following)  # nothing moves, and both are seen alike
    torch.testing.assert_close(transform(batch.base, brightest(now)), there, atol=0.01, rtol=0)
    off = (batch.extra.transform(brightest(again)) - brightest(now)).norm(dim=-1)
    assert off.median() < 0.02  # where a bend is nearly a fold, it smears the dot
    seen = texture((clip, clip), 4, seed).batch(0)
    torch.testing.assert_close((seen.inputs + 1) / 2, seen.targets[:, :3])
    torch.testing.assert_close(transform(seen.base, brightest(seen.targets)), there, atol=0.01, rtol=0)


def test_backgrounds_leave_the_object_alone(clips):
    views = clips[0].frames.float() / 255
    random = torch.Generator().manual_seed(0)
    composed = (Backgrounds(clips, CPU).compose(views, 0, 1.0, random) + 1) / 2
    inside = (views[:, 3:] == 1).expand(-1, 3, -1, -1)
    torch.testing.assert_close(composed[inside], views[:, :3][inside])
    assert not torch.equal(composed, views[:, :3])


@pytest.mark.parametrize(("share", "black", "own"), [(0.0, 1.0, 0.0), (0.5, 0.6, 0.2), (1.0, 0.2, 0.4)])
def test_one_view_in_five_stays_on_black_and_two_keep_their_background(clips, share, black, own):
    small = replace(clips[0], frames=clips[0].frames[..., ::8, ::8])
    views = (small.frames[:1].float() / 255).expand(1000, -1, -1, -1)
    composed = Backgrounds((small, small), CPU).compose(views, 0, share, torch.Generator().manual_seed(0))
    for expected, count in ((on_black(views), black), (views[:, :3] * 2 - 1, own)):
        alike = (composed - expected).abs().amax((1, 2, 3)) < 1e-6
        assert alike.float().mean().item() == pytest.approx(count, abs=0.04)


def test_without_masks_a_view_keeps_its_background(clips):
    views = clips[0].frames.float() / 255
    backgrounds = Backgrounds((replace(clips[0], has_masks=False), clips[1]), CPU)
    kept = backgrounds.compose(views, 0, 1.0, torch.Generator().manual_seed(0))
    torch.testing.assert_close(kept, views[:, :3] * 2 - 1)


def test_the_background_plate_is_what_shows_beside_the_object():
    frames = torch.zeros(2, 4, 1, 3, dtype=torch.uint8)
    frames[:, :3, 0] = torch.tensor([100, 50, 200], dtype=torch.uint8)
    frames[0, 3, 0, 0] = frames[:, 3, 0, 2] = 255
    plate = background_plate(Clip("c", frames, True))[0, 0, 0] * 255
    torch.testing.assert_close(plate, torch.tensor([100.0, 50.0, (100 + 50 * 2) / 3]))
