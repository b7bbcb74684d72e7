"""What stands behind a puppet: smooth pictures, each from x and y, (S, S) in [-1, 1], to colours (S, S, 3) in 0-1."""

import numpy as np

from jokr_rt.evaluation.puppets.motion import Floats


def meadow(x: Floats, y: Floats) -> Floats:
    ground = 1 / (1 + np.exp(-(y - 0.35 - 0.05 * np.sin(5 * x)) * 30))
    sky, grass = np.array([0.6, 0.75, 0.85]), np.array([0.3, 0.5, 0.25])
    return np.asarray(sky + (grass - sky) * ground[..., None] + 0.04 * np.sin(17 * x + 11 * y)[..., None])


def clouds(x: Floats, y: Floats) -> Floats:
    heaps = 0.5 + 0.25 * np.sin(3 * x + 2 * y) + 0.2 * np.sin(7 * y - 4 * x)
    return np.stack([0.35 + 0.25 * heaps, 0.32 + 0.2 * heaps, 0.25 + 0.15 * heaps], axis=-1)


def beach(x: Floats, y: Floats) -> Floats:
    sky = _blend([0.55, 0.75, 0.9], [0.86, 0.9, 0.88], (y + 1) / 0.9)
    waves = 0.5 + 0.5 * np.sin(60 * np.sqrt(np.maximum(y + 0.12, 0)) + 2 * np.sin(4 * x))
    sea = _blend([0.16, 0.45, 0.62], [0.35, 0.65, 0.75], waves * 0.6)
    sand = _blend([0.87, 0.77, 0.56], [0.78, 0.66, 0.46], 0.5 + 0.3 * np.sin(23 * x + 9 * y) * np.sin(31 * y - 5 * x))
    shore = _blend(sea, sand, 40 * (y - 0.52 - 0.04 * np.sin(4 * x + 1)))
    return _blend(sky, shore, 60 * (y + 0.1))


def forest(x: Floats, y: Floats) -> Floats:
    light = _blend([0.42, 0.52, 0.36], [0.68, 0.72, 0.48], 0.5 - 0.5 * y + 0.2 * np.sin(5 * x + 3 * y))
    far = np.sin(19 * x + 0.5 * np.sin(3 * y) + 1)
    trunks = _blend(light, np.array([0.4, 0.42, 0.32]), 5 * far - 2.6)
    near = np.sin(7.3 * x + 0.25 * np.sin(4 * y) + 0.4)
    bark = 0.04 * np.sin(70 * x + 4 * np.sin(6 * y))[..., None]
    trunks = _blend(trunks, np.array([0.32, 0.25, 0.19]) + bark, 12 * near - 9)
    moss = _blend([0.3, 0.4, 0.2], [0.42, 0.45, 0.22], 0.5 + 0.5 * np.sin(13 * x + 5 * y) * np.sin(17 * y - 6 * x))
    return _blend(trunks, moss, 25 * (y - 0.5 - 0.05 * np.sin(6 * x + 2)))


def hills(x: Floats, y: Floats) -> Floats:
    view = _blend([0.98, 0.86, 0.72], [0.62, 0.78, 0.92], 0.4 - y)
    for height, bend, colour in ((0.15, 0.0, (0.6, 0.66, 0.72)), (0.35, 2.0, (0.5, 0.62, 0.5))):
        view = _blend(view, np.array(colour), 40 * (y - height - 0.09 * np.sin(3.5 * x + bend)))
    furrows = 0.5 + 0.5 * np.sin(50 * np.sqrt(np.maximum(y - 0.4, 0)) + x)
    earth = _blend([0.45, 0.33, 0.24], [0.55, 0.42, 0.3], furrows)
    return _blend(view, earth, 40 * (y - 0.55))


def fence(x: Floats, y: Floats) -> Floats:
    sky = _blend([0.75, 0.86, 0.93], [0.9, 0.92, 0.88], (y + 1) / 0.8)
    plank = np.abs(np.sin(6.5 * x))  # 0 between two
    grain = 0.03 * np.sin(26 * x + 3 * np.sin(5 * y) + 2 * y)[..., None]
    wood = _blend([0.4, 0.45, 0.52], np.array([0.6, 0.68, 0.74]) + grain, 9 * plank - 0.4)
    built = _blend(sky, wood, 40 * (y + 0.5 - 0.12 * plank**2 + 0.12))
    soil = _blend([0.34, 0.25, 0.2], [0.44, 0.33, 0.26], 0.5 + 0.5 * np.sin(21 * x + 8 * y) * np.sin(27 * y - 7 * x))
    return _blend(built, soil, 40 * (y - 0.6 - 0.02 * np.sin(9 * x)))


def _blend(first: object, second: object, share: Floats) -> Floats:
    """From the first colours to the second, where the share goes from 0 to 1."""
    return np.asarray(first) + (np.asarray(second) - np.asarray(first)) * np.clip(share, 0, 1)[..., None]


BACKGROUNDS = (meadow, clouds, beach, forest, hills, fence)
