"""What a training step sees: batches that follow from seed and step, and backgrounds."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from jokr_rt.training.data import Clip, on_black
from jokr_rt.training.affine import transform
from jokr_rt.training.networks import cell_centres, render_heatmaps
from jokr_rt.training.views import Backgrounds, Batch, Loader, background_plate
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


def everything_in(batch: Batch) -> dict[str, torch.Tensor]:
    places = torch.linspace(-1, 1, 12).reshape(1, 6, 2).expand(len(batch.targets), -1, -1)
    return vars(batch) | {"extra": batch.extra.transform(places)}


def same(one: Batch, other: Batch) -> bool:
    theirs = everything_in(other)
    return all(torch.equal(value, theirs[name]) for name, value in everything_in(one).items())


def test_a_batch_follows_from_seed_and_step_whatever_was_asked_for_before(clips):
    first = Loader(clips, 2, 5, CPU, neighbours=True)
    batches = [first.batch(step) for step in range(5)]
    torch.manual_seed(99)
    random = torch.get_rng_state()
    for loader in (first, Loader(clips, 2, 5, CPU, neighbours=True)):  # a resumed run has a new one
        for step in (3, 1, 1, 4, 0, 2):
            assert same(loader.batch(step), batches[step]), step
    assert torch.equal(torch.get_rng_state(), random)


def test_other_seeds_and_other_steps_give_batches_that_differ_throughout(clips):
    batch = everything_in(Loader(clips, 8, 5, CPU).batch(1))
    for other in (Loader(clips, 8, 5, CPU).batch(2), Loader(clips, 8, 6, CPU).batch(1)):
        assert not any(torch.equal(value, batch[name]) for name, value in everything_in(other).items())


@pytest.mark.parametrize(("neighbours", "groups"), [(False, 3), (True, 4)])
def test_shapes_and_ranges_and_that_neighbours_are_one_more_group(clips, neighbours, groups):
    batch = Loader(clips, 3, 0, CPU, neighbours=neighbours).batch(0)
    assert batch.inputs.shape == (groups * 6, 3, 64, 64)
    assert batch.plain.shape == (6, 3, 64, 64)
    assert batch.targets.shape == (6, 4, 64, 64)
    assert batch.base.shape == batch.other.shape == batch.shake.shape == batch.bend.shape == (6, 2, 3)
    assert (batch.usual.shape, batch.usual.dtype) == ((6, 1, 1), torch.bool)
    assert -1 <= batch.inputs.min() < batch.inputs.max() <= 1
    assert 0 <= batch.targets.min() < batch.targets.max() <= 1


@pytest.mark.parametrize("count", [3, 8])
def test_looks_come_from_every_frame_but_the_one_drawn_and_neighbours_from_the_next_or_last(count):
    batch = Loader((numbered(count), numbered(count)), 2000, 0, CPU, neighbours=True).batch(0)
    now, following, again, looks = map(numbers, batch.inputs.chunk(4))
    assert torch.equal(numbers(batch.plain), looks)
    assert torch.equal(now, numbers(batch.targets[:, :3] * 2 - 1))
    assert (now == again).float().mean() > 0.99  # unless the middle is bent out of the picture
    assert set((following - now).tolist()) == {-1, 1}
    for side in range(2):
        drawn, lent = (each.chunk(2)[side].tolist() for each in (now, looks))
        assert set(zip(drawn, lent, strict=True)) == {(i, j) for i in range(count) for j in range(count) if i != j}


def test_without_other_looks_they_come_from_the_frame_drawn():
    batch = Loader((numbered(5), numbered(5)), 50, 0, CPU, other_looks=False).batch(0)
    now, _, looks = map(numbers, batch.inputs.chunk(3))
    assert torch.equal(now, looks)


def test_the_first_half_of_every_group_is_video_a():
    first, second = numbered(3), numbered(12)
    second = replace(second, frames=second.frames[6:])
    batch = Loader((first, second), 4, 0, CPU, neighbours=True).batch(0)
    for group in (*batch.inputs.chunk(4), batch.plain, batch.targets[:, :3] * 2 - 1):
        of_a, of_b = numbers(group).chunk(2)
        assert of_a.max() < 3
        assert of_b.min() >= 6


def test_settling_four_times_as_many_frames_come_as_they_are_and_all_else_stays():
    clips = tuple(replace(numbered(12), frames=numbered(12).frames[half]) for half in (slice(6), slice(6, 12)))
    loader = Loader((clips[0], clips[1]), 50, 0, CPU, settling=lambda step: step >= 3)
    usual = Loader((clips[0], clips[1]), 50, 0, CPU)
    assert same(loader.batch(2), usual.batch(2))
    before, batch = usual.batch(3), loader.batch(3)
    assert (len(batch.plain), len(before.plain)) == (400, 100)
    for side, (few, many) in enumerate(zip(before.plain.chunk(2), batch.plain.chunk(2), strict=True)):
        assert torch.equal(numbers(many[:50]), numbers(few))
        assert set(numbers(many[50:]).tolist()) == set(range(6 * side, 6 * side + 6))
    for name in ("targets", "base", "other"):
        assert torch.equal(getattr(batch, name), getattr(before, name)), name


def test_at_a_share_of_0_every_background_is_black_and_at_1_most_are_not(clips):
    loader = Loader(clips, 8, 0, CPU, backgrounds=lambda step: float(step >= 3))
    for step in (0, 2):
        batch = loader.batch(step)
        now, again, _ = batch.inputs.chunk(3)
        assert ((batch.plain == -1).all(1).float().mean((1, 2)) > 0.3).all()
        torch.testing.assert_close(now, on_black(batch.targets))
        torch.testing.assert_close(again, on_black(batch.extra.warp(batch.targets)))
    batch = loader.batch(3)
    now, _, looks = batch.inputs.chunk(3)
    frames = torch.cat([clip.frames[:, :3] for clip in clips]).float() / 127.5 - 1
    assert all(any(torch.allclose(view, frame, atol=1e-5) for frame in frames) for view in batch.plain)
    black = (now - on_black(batch.targets)).abs().amax((1, 2, 3)) < 1e-6
    assert 0 < black.sum() < 8
    assert ((looks == -1).all(1).float().mean((1, 2)) > 0.3).all()  # but looks are always read on black


def test_coarse_batches_are_the_same_views_at_half_the_size(clips):
    coarse, fine = (Loader(clips, 4, 3, CPU, coarse_steps=count, neighbours=True) for count in (2, 0))
    for step in range(3):
        one, other = coarse.batch(step), fine.batch(step)
        if step == 2:
            assert same(one, other)
            break
        assert one.inputs.shape == (32, 3, 32, 32)
        assert one.targets.shape == (8, 4, 32, 32)
        assert torch.equal(one.base, other.base)
        torch.testing.assert_close(one.plain, F.avg_pool2d(other.plain, 2), atol=1e-5, rtol=0)
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
    batch = Loader((clip, clip), 4, seed, CPU, neighbours=True).batch(0)
    now, following, again, looks = ((group + 1) / 2 for group in batch.inputs.chunk(4))
    torch.testing.assert_close(now, batch.targets[:, :3])
    assert torch.equal(now, following)  # nothing moves, and both are seen alike
    there = place.expand(8, -1, -1)
    torch.testing.assert_close(transform(batch.base, brightest(now)), there, atol=0.01, rtol=0)
    torch.testing.assert_close(transform(batch.other, brightest(looks)), there, atol=0.01, rtol=0)
    torch.testing.assert_close(brightest((batch.plain + 1) / 2), there, atol=0.01, rtol=0)
    off = (batch.extra.transform(brightest(again)) - brightest(now)).norm(dim=-1)
    assert off.median() < 0.02  # where a bend is nearly a fold, it smears the dot


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
