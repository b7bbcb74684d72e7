"""Masks, compositing, slates and the stream's clock: values, and properties that hold for every picture."""

from collections.abc import Iterator, Sequence
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import cast

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from jokr_rt.bundle import Bundle
from jokr_rt.clock import RealClock
from jokr_rt.engines import load_engine
from jokr_rt.errors import UsageError
from jokr_rt.frame import Frame
from jokr_rt.keypoints import draw_keypoints
from jokr_rt.live.compose import blur, matte_of, over, soften
from jokr_rt.live.inference import Inference
from jokr_rt.live.masks import StaticBackground, open_mask
from jokr_rt.live.model import LiveModel, Target
from jokr_rt.live.options import LiveOptions, colour_of
from jokr_rt.live.picture import Pictures
from jokr_rt.live.slate import banner, slate
from jokr_rt.live.timeline import TICK, Timeline
from jokr_rt.video import letterbox, write_png
from jokr_rt.video.resize import Resizer, fit_box
from tests.tiny import creature_frames

SIDE = 64


def disc(level: int = 200, radius: float = 16, x: float = 31.5, y: float = 31.5) -> NDArray[np.uint8]:
    """A disc on black whose edge fades over a pixel, as a generator draws it."""
    ys, xs = np.mgrid[:SIDE, :SIDE]
    cover = np.clip(radius + 0.5 - np.hypot(xs - x, ys - y), 0, 1)
    return np.rint(cover[..., None] * [level, level // 2, level // 4]).astype(np.uint8)


def test_before_black_a_picture_stays_as_it_is() -> None:
    image = disc()
    assert over(image, np.zeros_like(image), 3) is image


def test_before_a_colour_the_inside_is_the_creature_and_the_outside_the_colour() -> None:
    green = np.full((SIDE, SIDE, 3), (0, 177, 64), np.uint8)
    shown = over(disc(), green, 4)
    assert np.array_equal(shown[28:36, 28:36], disc()[28:36, 28:36])
    outside = disc().max(axis=2) == 0
    assert np.array_equal(shown[outside], green[outside])


def test_the_edge_fades_over_the_feather_and_has_no_dark_rim() -> None:
    white = np.full((SIDE, SIDE, 3), 255, np.uint8)
    row = over(disc(255), white, 6)[31, :, 0].astype(int)  # red: white on white all along
    assert row.min() >= 250
    blue = over(disc(255), white, 6)[31, 31:, 2].astype(int)  # from 63 inside to 255 outside
    assert blue[0] == 63
    assert blue[-1] == 255
    assert np.all(np.diff(blue) >= -1)
    assert 3 <= np.count_nonzero((blue > 80) & (blue < 240)) <= 9


@given(st.integers(60, 255), st.floats(6, 24), st.floats(0, 8))
def test_opacity_is_within_bounds_and_nothing_outside_becomes_opaque(level: int, radius: float, feather: float) -> None:
    image = disc(level, radius)
    matte = matte_of(image, feather)
    assert matte.shape == (SIDE, SIDE)
    assert matte.min() >= 0
    assert matte.max() <= 1
    assert np.all(matte <= matte_of(image, 0) + 1e-6)
    ys, xs = np.mgrid[:SIDE, :SIDE]
    assert not matte[np.hypot(xs - 31.5, ys - 31.5) > radius + 4].any()


def test_a_dark_spot_within_the_creature_is_closed() -> None:
    image = disc()
    image[31:33, 31:33] = 0
    assert matte_of(image, 0)[31:33, 31:33].min() == 1


def test_blur_is_the_mean_of_the_square() -> None:
    plane = np.random.default_rng(0).random((20, 30)).astype(np.float32)
    padded = np.pad(plane, 2, mode="edge")
    windows = np.lib.stride_tricks.sliding_window_view(padded, (5, 5))
    assert np.abs(blur(plane, 2) - windows.mean(axis=(2, 3))).max() < 1e-6
    assert np.array_equal(soften(plane, 0), plane)


def scene(seconds: float, x: float | None, noise: np.random.Generator, light: float = 1.0) -> NDArray[np.uint8]:
    """A textured wall and a disc that may be before it, seen by a camera that is not free of noise."""
    wall = np.random.default_rng(7).integers(60, 190, (16, 16, 3)).repeat(4, axis=0).repeat(4, axis=1).astype(float)
    if x is not None:
        ball = disc(255, 10, x, 32).astype(float)
        wall = np.where(ball.max(axis=2, keepdims=True) > 100, ball, wall)
    return np.clip(np.rint(wall * light + noise.normal(0, 2, wall.shape)), 0, 255).astype(np.uint8)


def learned(noise: np.random.Generator) -> StaticBackground:
    """It saw 2 s of the wall, with a ball that rolled through."""
    mask = StaticBackground(2.0)
    for index in range(50):
        assert not mask(scene(index / 25, 64.0 * index / 50, noise), None, index / 25).any()
    mask(scene(2.0, None, noise), None, 2.0)
    return mask


def test_a_learned_background_tells_the_creature_from_the_wall() -> None:
    noise = np.random.default_rng(1)
    mask = learned(noise)
    wall = scene(0, None, np.random.default_rng(2)).astype(int)
    assert mask.background is not None
    assert np.abs(mask.background - wall).mean() < 3
    found = mask(scene(3.0, 40.0, noise), None, 3.0) > 0.5
    ys, xs = np.mgrid[:SIDE, :SIDE]
    distance = np.hypot(xs - 40, ys - 32)
    assert found[distance < 8].mean() > 0.9
    assert found[distance > 13].mean() < 0.01


@pytest.mark.parametrize("light", [0.8, 1.25])
def test_the_cameras_exposure_is_no_creature(light: float) -> None:
    noise = np.random.default_rng(1)
    mask = learned(noise)
    assert (mask(scene(3.0, None, noise, light), None, 3.0) > 0.5).mean() < 0.03


def test_it_learns_again_when_asked_and_at_another_size() -> None:
    noise = np.random.default_rng(1)
    mask = learned(noise)
    mask.relearn()
    assert mask.background is None
    assert not mask(scene(4.0, 40.0, noise), None, 4.0).any()
    mask = learned(noise)
    assert mask(np.zeros((32, 32, 3), np.uint8), None, 5.0).shape == (32, 32)


def test_the_sources_alpha_is_a_mask() -> None:
    mask = open_mask("alpha")
    alpha = np.array([[0, 51], [255, 102]], np.uint8)
    assert mask is not None
    assert mask(np.zeros((2, 2, 3), np.uint8), alpha, 0.0) == pytest.approx(np.array([[0, 0.2], [1, 0.4]]))
    with pytest.raises(UsageError, match="no alpha channel"):
        mask(np.zeros((2, 2, 3), np.uint8), None, 0.0)


def test_masks_and_backgrounds_that_are_none_are_refused() -> None:
    for name in ("motion", "missing.onnx"):
        with pytest.raises(UsageError, match="choose none, static-background, alpha"):
            LiveOptions("in", ("out.mp4",), mask=name)
    with pytest.raises(UsageError, match="no such picture"):
        LiveOptions("in", ("out.mp4",), background="purple")
    assert colour_of("#0a10ff") == (10, 16, 255)


@pytest.fixture
def inference() -> Iterator[Inference]:
    made = Inference(RealClock())
    yield made
    made.close(60)


def pictures(bundle: Bundle, inference: Inference, **options: object) -> Pictures:
    model = LiveModel(lambda: (bundle, load_engine("onnxruntime", bundle)))
    chosen = LiveOptions("in", ("out.mp4",), smooth=0, hold=0, **options)  # type: ignore[arg-type]
    mask = open_mask(chosen.mask)
    return Pictures(chosen, [model.target("a2b")], inference, mask, RealClock())


def test_a_frame_is_drawn_as_the_retargeter_does(bundle: Bundle, inference: Inference) -> None:
    from jokr_rt import Retargeter

    frame = creature_frames(3, 96, seed=1)[1][:72]  # 96 x 72
    drawn, found = pictures(bundle, inference).draw(frame, None, 0.0)
    expected = Retargeter(bundle, "a2b", "onnxruntime").retarget(Frame(frame, 0, Fraction(1, 25)))
    assert found
    assert np.array_equal(drawn, expected.image.rgb)


def test_a_corner_shows_what_the_model_sees_and_the_keypoints_in_it(bundle: Bundle, inference: Inference) -> None:
    from jokr_rt import Retargeter

    frame = creature_frames(3, 96, seed=1)[1][:72]
    drawn, _ = pictures(bundle, inference, keypoints=True, size=(192, 192)).draw(frame, None, 0.0)
    plain, _ = pictures(bundle, inference, size=(192, 192)).draw(frame, None, 0.0)
    seen = Retargeter(bundle, "a2b", "onnxruntime").retarget(Frame(frame, 0, Fraction(1, 25)))
    assert np.array_equal(drawn[:SIDE, :SIDE], draw_keypoints(seen.source.rgb, seen.keypoints))
    drawn[:SIDE, :SIDE] = plain[:SIDE, :SIDE]
    assert np.array_equal(drawn, plain)


class DiscModel:
    """A model and its one target: whatever the frame is, it draws `disc`."""

    size, name = SIDE, "disc"

    @property
    def model(self) -> "DiscModel":
        return self

    def familiarity(self) -> None:
        """It has no frames to compare with."""

    def extract(self, frames: Sequence[NDArray[np.uint8]]) -> list[tuple[NDArray[np.float32], NDArray[np.float32]]]:
        return [(np.zeros((1, 2), np.float32), np.ones(1, np.float32))] * len(frames)

    def draw(self, poses: Sequence[NDArray[np.float32]]) -> list[NDArray[np.uint8]]:
        return [disc()] * len(poses)


def shown(frame: NDArray[np.uint8], **options: object) -> NDArray[np.uint8]:
    """`disc` for a frame."""
    chosen = LiveOptions("in", ("out.mp4",), smooth=0, **options)  # type: ignore[arg-type]
    inference, clock = Inference(RealClock()), RealClock()
    drawn, _ = Pictures(chosen, [cast(Target, DiscModel())], inference, None, clock).draw(frame, None, 0.0)
    inference.close(60)
    return drawn


def test_paste_puts_the_creature_where_it_was_in_the_source() -> None:
    frame = np.random.default_rng(0).integers(60, 200, (72, 96, 3)).astype(np.uint8)
    pasted = shown(frame, paste=True, size=(192, 144), feather=0)
    behind = Resizer().resize(frame, 192, 144)
    ys, xs = np.mgrid[:144, :192]
    distance = np.hypot(xs - 95.5, ys - 71.5)  # the disc's middle is the picture's; a pixel of 64 is now 3
    assert np.array_equal(pasted[distance > 55], behind[distance > 55])
    assert np.all(np.abs(pasted[distance < 42].astype(int) - (200, 100, 50)) <= 1)


def test_a_picture_of_another_shape_than_the_output_is_pasted_with_bars() -> None:
    frame = np.full((48, 96, 3), 90, np.uint8)
    pasted = shown(frame, paste=True, size=(64, 64), feather=0)
    assert not pasted[:15].any()
    assert not pasted[49:].any()
    assert np.all(pasted[20, 2] == 90)
    assert np.all(np.abs(pasted[32, 32].astype(int) - (200, 100, 50)) <= 1)


def test_a_background_picture_fills_the_output(tmp_path: Path) -> None:
    wall = np.random.default_rng(0).integers(60, 200, (100, 200, 3)).astype(np.uint8)
    write_png(tmp_path / "wall.png", wall)
    drawn = shown(np.zeros((64, 64, 3), np.uint8), background=str(tmp_path / "wall.png"), size=(80, 80))
    expected = Resizer().resize(wall[:, 50:150], 80, 80)
    ys, xs = np.mgrid[:80, :80]
    outside = np.hypot(xs - 39.5, ys - 39.5) > 24
    assert np.array_equal(drawn[outside], expected[outside])
    assert np.all(np.abs(drawn[40, 40].astype(int) - (200, 100, 50)) <= 1)


@given(st.integers(1, 300), st.integers(1, 300), st.integers(16, 200), st.integers(16, 200))
def test_a_fitted_picture_is_centred_and_touches_two_sides(columns: int, rows: int, width: int, height: int) -> None:
    x, y, inner_width, inner_height = fit_box(columns, rows, width, height)
    assert inner_width == width or inner_height == height
    assert abs((width - inner_width) - 2 * x) <= 1
    assert abs((height - inner_height) - 2 * y) <= 1
    assert 0 <= x <= width - inner_width
    assert 0 <= y <= height - inner_height
    assert abs(inner_width * rows - inner_height * columns) <= max(rows, columns)


def test_a_resizer_letterboxes_as_everywhere_else() -> None:
    frame = Frame(creature_frames(1, 96, seed=1)[0][:72], 0, Fraction(1, 25))
    assert np.array_equal(Resizer().fit(frame.rgb, 64, 64), letterbox(frame, 64).rgb)
    square = letterbox(frame, 64).rgb
    assert Resizer().fit(square, 64, 64) is square


def test_a_slate_holds_its_words_and_grows_with_the_picture() -> None:
    small, large = slate(160, 120, "no signal", "for 3 s"), slate(640, 480, "no signal", "for 3 s")
    for card in (small, large):
        ink = (card > 128).all(axis=2)
        assert 0.01 < ink.mean() < 0.3
        columns = np.flatnonzero(ink.any(axis=0))
        assert abs(columns[0] + columns[-1] - card.shape[1]) < card.shape[1] / 8  # centred
    assert not np.array_equal(slate(160, 120, "no signal", "for 3 s"), slate(160, 120, "no signal", "for 4 s"))
    assert slate(16, 16, "words that never fit").shape == (16, 16, 3)
    assert np.array_equal(slate(64, 64, "é"), slate(64, 64, "?"))


def test_a_banner_leaves_the_rest_of_the_picture() -> None:
    image = np.full((96, 128, 3), 200, np.uint8)
    marked = banner(image, "paused")
    assert np.array_equal(marked[:80], image[:80])
    assert (marked[85:] < 50).any()
    assert (marked[85:] > 230).any()
    assert image.min() == 200


Event = tuple[str, float]
events = st.lists(
    st.one_of(
        st.tuples(st.just("frame"), st.floats(0, 0.5)),
        st.tuples(st.just("cover"), st.floats(0, 0.5)),
        st.tuples(st.just("connect"), st.floats(0, 5)),
        st.tuples(st.just("jump"), st.floats(-100, 100)),
    ),
    min_size=1,
    max_size=60,
)


@given(events)
def test_the_streams_clock_only_goes_forward_and_stays_near_ours(events: list[Event]) -> None:
    timeline, now, pts, connection = Timeline(), 1000.0, 500.0, 0
    placed: list[tuple[Fraction, float]] = []
    began: float | None = None
    for kind, value in events:
        now += value if kind != "jump" else 0.0
        pts += value
        connection += kind == "connect"
        if kind == "cover" and began is not None:
            placed.append((timeline.place_cover(now), now - began))
        elif kind in ("frame", "connect", "jump"):
            frame = Frame(np.zeros((1, 1, 3), np.uint8), round(pts * 90_000), Fraction(1, 90_000))
            began = now if began is None else began
            placed.append((timeline.place(frame, now, connection), now - began))
    times = [time for time, _ in placed]
    assert all(second - first >= TICK for first, second in pairwise(times))
    assert all(abs(float(time) - ours) < 1.1 for time, ours in placed)


def test_sound_is_placed_as_its_pictures_are() -> None:
    timeline = Timeline()
    frame = Frame(np.zeros((1, 1, 3), np.uint8), 900_000, Fraction(1, 90_000))
    assert timeline.place_sound(Fraction(10), 3) is None
    assert timeline.place(frame, 77.0, 3) == 0
    assert timeline.place_sound(Fraction(21, 2), 3) == Fraction(1, 2)
    assert timeline.place_sound(Fraction(21, 2), 4) is None
