"""Anti-aliased shapes with patterns, from which puppets are drawn part by part."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from jokr_rt.evaluation.puppets.motion import Floats

Colour = tuple[float, float, float]
"""RGB in 0-1."""
Paint = Callable[[Floats, Floats], Floats]
"""From where a pixel lies on a limb, (H, W) each, to its colour (H, W, 3): along, 0 to 1 from start to end, and across,
in radii from the middle line, either side positive, so that a mirrored limb is a mirrored picture."""
Profile = Callable[[Floats], Floats]
"""From along (H, W) to the share (H, W) of the thickness that a limb has there."""


class Canvas:
    """A picture of size x size pixels before its background, with the mask of what has been drawn on it."""

    def __init__(self, background: Callable[[Floats, Floats], Floats], size: int) -> None:
        """background: from x and y, (S, S) in [-1, 1], to colours (S, S, 3) in 0-1."""
        centres = (np.arange(size) * 2 + 1) / size - 1
        self._size, self._pixels = size, np.stack(np.meshgrid(centres, centres), axis=-1)
        self._picture = background(self._pixels[..., 0], self._pixels[..., 1])
        self._mask = np.zeros((size, size, 1))

    def limb(
        self, points: Floats, thickness: float, paint: Paint, profile: Profile | None = None, light: float = 1
    ) -> None:
        """Draw a round-ended limb over what is there, darker to its edges.

        points: its middle line (N, 2) in [-1, 1]. thickness: its radius, in half-widths. light: what its colours are
        multiplied by.
        """
        near = _window(points, thickness, self._size)
        along, distance = _nearest(self._pixels[near], points)
        radius = thickness if profile is None else thickness * profile(along)
        inside = np.clip((radius - distance) * self._size / 2 + 0.5, 0, 1)[..., None]
        across = (distance / np.maximum(radius, 1e-6)).clip(0, 1)
        shade = (1 - 0.35 * across[..., None] ** 2) * light
        picture, mask = self._picture[near], self._mask[near]
        self._picture[near] = picture * (1 - inside) + paint(along, across) * shade * inside
        self._mask[near] = np.maximum(mask, inside)

    def disc(self, centre: Floats, radius: float, paint: Paint, light: float = 1) -> None:
        """Draw a disc; see `limb`."""
        self.limb(np.stack([centre, centre]), radius, paint, light=light)

    def finish(self) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """RGB (S, S, 3) and mask (S, S), both uint8."""
        return (self._picture * 255).round().astype(np.uint8), (self._mask[..., 0] * 255).round().astype(np.uint8)


def tapered(share: float) -> Profile:
    """A limb that has lost so much of its thickness at its end."""
    return lambda along: 1 - share * along


def bulging(start: float, end: float) -> Profile:
    """A limb that is thickest in its middle, with such shares of that at its ends."""
    return lambda along: np.where(along < 0.5, start, end) * (1 - np.sin(np.pi * along)) + np.sin(np.pi * along)


def plain(colour: Colour) -> Paint:
    return lambda along, across: np.broadcast_to(np.array(colour), (*along.shape, 3))


def striped(colour: Colour, other: Colour, periods: float, amount: float = 1) -> Paint:
    """Bands across a limb, so many of each colour. amount: how much of the other colour its bands show."""
    return lambda along, across: _mixed(colour, other, np.sin(2 * np.pi * along * periods), amount)


def dotted(colour: Colour, other: Colour, rows: float, columns: float) -> Paint:
    """So many rows of dots across a limb, every second between its neighbours'; bands where there are 0 columns."""

    def paint(along: Floats, across: Floats) -> Floats:
        waves = np.cos(2 * np.pi * rows * along) * np.cos(np.pi * columns * across)
        return _mixed(colour, other, waves - 0.45)

    return paint


def veined(colour: Colour, other: Colour, veins: float) -> Paint:
    """A line along the middle of a limb, and slanting ones from it to the edges."""

    def paint(along: Floats, across: Floats) -> Floats:
        slants = np.cos(2 * np.pi * (veins * along - 0.6 * across)) - 0.8
        return _mixed(colour, other, np.maximum(slants, (0.16 - across) * 6), 0.8)

    return paint


def streaked(colour: Colour, other: Colour, length: float) -> Paint:
    """A flame along the middle of a limb, from its start."""
    return lambda along, across: _mixed(colour, other, (1 - along / length) * 0.7 - across)


def _mixed(colour: Colour, other: Colour, wave: Floats, amount: float = 1) -> Floats:
    """The other colour where the wave is above 0, with a soft edge."""
    share = np.clip(wave[..., None] * 4 + 0.5, 0, 1) * amount
    return np.asarray(np.array(colour) * (1 - share) + np.array(other) * share)


def _window(points: Floats, radius: float, size: int) -> tuple[slice, slice]:
    """Rows and columns of the pixels that a limb may touch."""
    low, high = (points.min(axis=0) - radius + 1) * size / 2 - 2, (points.max(axis=0) + radius + 1) * size / 2 + 2
    (left, top), (right, bottom) = (np.clip(corner, 0, size).astype(int) for corner in (low, high))
    return slice(top, bottom), slice(left, right)


def _nearest(pixels: Floats, points: Floats) -> tuple[Floats, Floats]:
    """Per pixel: where along the line its nearest point lies (0 to 1, each piece as long), and how far away that is."""
    along, distance = _capsule(pixels, points[0], points[1])
    for index in range(1, len(points) - 1):
        there, other = _capsule(pixels, points[index], points[index + 1])
        along = np.where(other < distance, index + there, along)
        distance = np.minimum(other, distance)
    return along / (len(points) - 1), distance


def _capsule(pixels: Floats, start: Floats, end: Floats) -> tuple[Floats, Floats]:
    """Per pixel: where along the bone its nearest point lies (0 to 1), and how far away that is."""
    bone = end - start
    along = np.clip(((pixels - start) @ bone) / max(float(bone @ bone), 1e-9), 0, 1)
    return along, np.linalg.norm(pixels - start - along[..., None] * bone, axis=-1)
