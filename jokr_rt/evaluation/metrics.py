"""Every measure as a pure function of arrays; T frames of S x S pixels, K keypoints.

Frames are (T, S, S, 3) uint8 RGB, silhouettes (T, S, S) bool, points (T, P, 2) as (x, y) in [-1, 1], so that 1 is half
the width of the frame.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from skimage.metrics import structural_similarity
from sklearn.linear_model import LogisticRegression, RidgeCV
from sklearn.metrics import balanced_accuracy_score
from sklearn.model_selection import KFold
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

Frames = NDArray[np.uint8]
Silhouettes = NDArray[np.bool_]
Points = NDArray[np.floating]

PEAK = 255.0
PSNR_CAP = 100.0  # dB; two equal pictures would have infinitely many
DRAWN_LEVEL = 24  # of 255: brighter than this in any channel is drawn, darker is the black around it
MIN_DETERMINANT = 0.05  # as `jokr_rt.training.affine.inverse` has it
RIDGES = np.logspace(-6, 0, 13)
FOLDS = 8
SEED = 0


def silhouettes(frames: Frames) -> Silhouettes:
    """Where something is drawn: any channel above DRAWN_LEVEL."""
    return np.asarray((frames > DRAWN_LEVEL).any(axis=-1))


def psnr_db(drawn: Frames, true: Frames, region: Silhouettes | None = None) -> float:
    """10 log10(255^2 / MSE), the squared error pooled over all frames, channels and pixels (of `region`), at most 100.

    Raises ValueError where the region is empty.
    """
    error, count = 0.0, 0
    for index, (one, other) in enumerate(zip(drawn, true, strict=True)):
        squared = (one.astype(np.float64) - other) ** 2
        values = squared if region is None else squared[region[index]]
        error, count = error + float(values.sum()), count + values.size
    if not count:
        raise ValueError("PSNR of no pixel at all")
    return PSNR_CAP if error == 0 else min(PSNR_CAP, 10 * float(np.log10(PEAK**2 * count / error)))


def ssim(drawn: Frames, true: Frames) -> float:
    """Mean over the frames of the whole frame's structural similarity (Wang et al. 2004), 1 for equal frames."""
    pairs = zip(drawn, true, strict=True)
    return float(np.mean([structural_similarity(one, other, channel_axis=2, data_range=PEAK) for one, other in pairs]))


def gain_db(drawn: Frames, baseline: Frames, true: Frames, true_silhouettes: Silhouettes) -> float:
    """10 log10(SE_baseline / SE_drawn), both over the same pixels: where the truth or either of them is drawn.

    Each PSNR is capped before they are subtracted, so that the result lies within +-100.
    """
    region = true_silhouettes | silhouettes(drawn) | silhouettes(baseline)
    return psnr_db(drawn, true, region) - psnr_db(baseline, true, region)


def moved_by(theta: Points, keypoints: Points) -> Points:
    """Keypoints (T, K, 2) in the space of what the maps (T, 2, 3) warp to: inverse(theta)(k).

    An image warped by theta shows at p what stood at theta(p). As `jokr_rt.training.affine.inverse`, in numpy.
    """
    linear, shift = theta[:, :, :2].astype(np.float64), theta[:, None, :, 2]
    a, b, c, d = linear[:, 0, 0], linear[:, 0, 1], linear[:, 1, 0], linear[:, 1, 1]
    adjugate = np.stack([d, -b, -c, a], axis=1).reshape(-1, 2, 2)
    determinant = a * d - b * c
    divisor = np.copysign(np.maximum(np.abs(determinant), MIN_DETERMINANT), determinant)  # negative where it mirrors
    inverse = adjugate / divisor[:, None, None]
    return np.asarray((keypoints - shift) @ inverse.transpose(0, 2, 1), keypoints.dtype)


def linear_map(inputs: Points, targets: Points) -> RidgeCV:
    """Least squares from points (T, K, 2) to points (T, J, 2), with an intercept and a ridge.

    The ridge is the one of RIDGES that predicts best across FOLDS runs of these frames: keypoints are many and move
    together, so plain least squares would rest on differences that are mostly noise.
    """
    return RidgeCV(RIDGES, cv=KFold(min(FOLDS, len(inputs)))).fit(_flat(inputs), _flat(targets))


def regression_error(fitted: RidgeCV, inputs: Points, targets: Points, lengths: Points) -> float:
    """Mean distance of predicted from true points (T, J, 2), each frame's in units of its length (T,)."""
    predicted = fitted.predict(_flat(inputs)).reshape(targets.shape)
    return normalised_error(predicted, targets, lengths)


def normalised_error(predicted: Points, targets: Points, lengths: Points) -> float:
    """Mean distance between points (T, J, 2), or (J, 2) for all frames, in units of each frame's length (T,)."""
    return float(np.mean(np.linalg.norm(predicted - targets, axis=-1) / lengths[:, None]))


def domain_accuracy(fit: tuple[Points, Points], test: tuple[Points, Points]) -> float:
    """How well fresh classifiers tell two kinds of poses apart: 0.5 is chance, 1.0 is always.

    fit, test: poses (T, K, 2) of the first kind and of the second. Balanced accuracy on `test` of the better of two,
    fitted to standardised coordinates: a multilayer perceptron of 128 and 64 units, and logistic regression.
    """
    mlp = MLPClassifier((128, 64), max_iter=2000, random_state=SEED)
    scores = []
    for classifier in (mlp, LogisticRegression(max_iter=2000)):
        model = make_pipeline(StandardScaler(), classifier).fit(*_labelled(fit))
        poses, labels = _labelled(test)
        scores.append(float(balanced_accuracy_score(labels, model.predict(poses))))
    return max(scores)


def affine_errors(theta: Points, true: Points) -> tuple[float, float, float]:
    """How far a map (2, 3) is from the true one: rotation in degrees, scale in %, shift in % of the frame's width.

    Of m, the map after the inverse of the true one, rotation is atan2(m10 - m01, m00 + m11) and scale the root of the
    determinant (0 where only one of both maps mirrors). The frame is 2 wide.
    """
    apart = theta[:, :2] @ np.linalg.inv(true[:, :2])
    turn = np.degrees(np.arctan2(apart[1, 0] - apart[0, 1], apart[0, 0] + apart[1, 1]))
    scale = np.sqrt(max(0.0, float(np.linalg.det(apart))))
    shift = np.linalg.norm(theta[:, 2] - true[:, 2]) / 2
    return abs(float(turn)), abs(float(scale) - 1) * 100, float(shift) * 100


def iou(first: Silhouettes, second: Silhouettes) -> NDArray[np.float64]:
    """Intersection over union (T,) of silhouettes; 1 where both are empty."""
    both, either = (first & second).sum(axis=(-2, -1)), (first | second).sum(axis=(-2, -1))
    return np.where(either == 0, 1.0, both / np.maximum(either, 1))


def lower_thirds(shown: Silhouettes) -> Silhouettes:
    """The rows (T, S) of the lowest third of each silhouette's height, where legs are; none where it is empty."""
    top, bottom = _rows_of(shown)
    centres = np.arange(shown.shape[1]) + 0.5
    return np.asarray((centres > (bottom - (bottom - top) / 3)[:, None]) & (centres < bottom[:, None]))


def heights(shown: Silhouettes) -> NDArray[np.float64]:
    """Of each silhouette (T,), in half-widths of the frame; 0 where it is empty."""
    top, bottom = _rows_of(shown)
    return np.asarray((bottom - top) * 2 / shown.shape[1])


def _rows_of(shown: Silhouettes) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """The first row (T,) of each silhouette, and the one after its last; both 0 where it is empty."""
    rows = np.asarray(shown.any(axis=2))
    bottom = np.where(rows.any(axis=1), rows.shape[1] - rows[:, ::-1].argmax(axis=1), 0)
    return rows.argmax(axis=1), bottom


def share_low(shown: Silhouettes, points: Points) -> float:
    """Share of points (T, P, 2) in the rows of `lower_thirds`."""
    size = shown.shape[-1]
    rows = np.floor((points[..., 1] + 1) * size / 2).astype(int)
    inside = (rows >= 0) & (rows < size)
    return float(np.mean(inside & np.take_along_axis(lower_thirds(shown), rows.clip(0, size - 1), axis=1)))


def texture(frames: Frames) -> float:
    """Mean difference of neighbouring pixels, beside and below, both of which are drawn (`silhouettes`); in levels.

    Outlines do not count, so that it tells fur from smears. 0 where nothing is drawn.
    """
    total, count = 0.0, 0
    for frame in frames:
        shown = silhouettes(frame)
        levels = frame.astype(np.int16)
        for axis in (0, 1):
            both = np.minimum(*_neighbours(shown, axis))
            difference = np.abs(np.subtract(*_neighbours(levels, axis)))[both]
            total, count = total + float(difference.sum()), count + difference.size
    return total / count if count else 0.0


def silhouette_motion(shown: Silhouettes, lag: int) -> float:
    """Mean of 1 - IoU between silhouettes `lag` frames apart: 0 where nothing moves."""
    return float(np.mean(1 - iou(shown[:-lag], shown[lag:])))


def acceleration(points: Points) -> float:
    """Mean of |p(t+1) - 2 p(t) + p(t-1)| over points (T, P, 2): half-widths per frame^2."""
    return float(np.mean(np.linalg.norm(points[2:] - 2 * points[1:-1] + points[:-2], axis=-1)))


def flicker(frames: Frames) -> float:
    """Mean of |f(t+1) - 2 f(t) + f(t-1)| over pixels and channels: levels of 255 per frame^2."""
    triples = zip(frames[:-2], frames[1:-1], frames[2:], strict=True)
    return float(np.mean([np.abs(one.astype(np.int16) - 2 * two.astype(np.int16) + three).mean()
                          for one, two, three in triples]))  # fmt: skip


def mean_distance(first: Points, second: Points) -> float:
    """Mean distance between points (T, P, 2), in half-widths of the frame."""
    return float(np.mean(np.linalg.norm(first - second, axis=-1)))


def share_on(shown: Silhouettes, points: Points) -> float:
    """Share of points (T, P, 2) whose pixel lies in the silhouette; those outside the frame do not."""
    size = shown.shape[-1]
    columns, rows = np.moveaxis(np.floor((points + 1) * size / 2).astype(int), -1, 0)
    inside = (columns >= 0) & (columns < size) & (rows >= 0) & (rows < size)
    frame = np.arange(len(shown))[:, None]
    return float(np.mean(inside & shown[frame, rows.clip(0, size - 1), columns.clip(0, size - 1)]))


def ratio(value: float, reference: float) -> float | None:
    """value / reference; None where the reference is 0, as a clip's that stands still."""
    return value / reference if reference > 0 else None


def _neighbours(pixels: NDArray[Any], axis: int) -> tuple[NDArray[Any], NDArray[Any]]:
    """All but the last along an axis, and all but the first."""
    last = pixels.shape[axis] - 1
    return pixels.take(range(last), axis), pixels.take(range(1, last + 1), axis)


def _flat(points: Points) -> Points:
    return points.reshape(len(points), -1).astype(np.float64)


def _labelled(poses: tuple[Points, Points]) -> tuple[Points, NDArray[np.int64]]:
    """Poses of both kinds as rows, and 0 or 1 for the kind."""
    return np.concatenate([_flat(part) for part in poses]), np.repeat([0, 1], [len(part) for part in poses])
