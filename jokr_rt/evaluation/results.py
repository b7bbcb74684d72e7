"""What an evaluation found, with what its page shows; and the bars that a good model clears."""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from jokr_rt.retarget import Retargeter


@dataclass(frozen=True)
class Quality:
    """Frames against the true partners on black, over the held-out clip.

    psnr_db: where the truth or the frame is drawn. psnr_frame_db, ssim: over the whole frame.
    """

    psnr_db: float
    psnr_frame_db: float
    ssim: float


@dataclass(frozen=True)
class Baseline(Quality):
    """What needs no method. gain_db: of the model over it, both on the same pixels."""

    gain_db: float


@dataclass(frozen=True)
class Retargeting(Quality):
    """psnr_gain_db: the smallest gain over a baseline.

    baselines: "mean_frame", the mean of the target's training frames; "nearest_keypoints", its training frame with the
    nearest keypoints; "identity_stn", the model with the keypoints left where they are.
    """

    psnr_gain_db: float
    baselines: Mapping[str, Baseline]


@dataclass(frozen=True)
class JointKeypoints:
    """Mean error, in body lengths, of the target's true joints predicted linearly from the source's moved keypoints.

    own: fitted on the source's moved keypoints. joint: fitted on the target's own keypoints. mean_pose: of the mean
    pose of training. relative: joint / mean_pose. ratio: joint / own, 1 where the representation is truly joint.
    """

    own: float
    joint: float
    mean_pose: float
    relative: float
    ratio: float | None


@dataclass(frozen=True)
class AffineError:
    """Of the mean predicted map: degrees, % of the true scale, % of the frame's width."""

    rotation_degrees: float
    scale_percent: float
    shift_percent: float


@dataclass(frozen=True)
class Disentanglement:
    """appearance_iou: of the silhouette drawn with the stored appearance and those with other frames' appearances.

    moved: mean of 1 - IoU of the drawn silhouettes 8 frames apart. follows: that, over the true silhouettes'.
    """

    appearance_iou: float
    moved: float
    follows: float | None


@dataclass(frozen=True)
class Temporal:
    """keypoint_acceleration: of the moved keypoints, half-widths per frame^2. acceleration: over the true joints'.

    flicker: second temporal difference of the drawn frames over the true ones' (without truth, the source's own).
    """

    keypoint_acceleration: float
    acceleration: float | None
    flicker: float | None


@dataclass(frozen=True)
class Performance:
    """What the model did with the test clip of one direction: T frames of S x S pixels, K keypoints.

    source: (T, S, S, 3) uint8 as the extractor saw it. drawn: (T, S, S, 3) uint8, the target's creature on black.
    true, true_silhouettes, true_joints: of the target at the same motion, (T, S, S, 3) uint8 on black, (T, S, S) bool,
    (T, J, 2), or None. keypoints: (T, K, 2) float32 found in `source`; moved: the same in the target's space; theta:
    (T, 2, 3) float32. rate: frames per second. retargeter: draws from keypoints in the source's space.
    """

    source: NDArray[np.uint8]
    drawn: NDArray[np.uint8]
    true: NDArray[np.uint8] | None
    true_silhouettes: NDArray[np.bool_] | None
    true_joints: NDArray[np.float64] | None
    keypoints: NDArray[np.float32]
    moved: NDArray[np.float32]
    theta: NDArray[np.float32]
    rate: float
    retargeter: Retargeter


@dataclass(frozen=True)
class DirectionResult:
    """Measures of one direction; None where they need a truth (or, for on_mask, masks) that is not there.

    source, target: the domains' names. domain_accuracy: share of poses that a fresh classifier assigns to the right
    domain, in the target's space. cycle_error: mean distance, in half-widths, of the moved keypoints from those found
    in the drawn frame. on_mask: share of the source's keypoints that lie on its mask.
    """

    direction: str
    source: str
    target: str
    retargeting: Retargeting | None
    joints: JointKeypoints | None
    affine: AffineError | None
    domain_accuracy: float
    disentanglement: Disentanglement
    temporal: Temporal
    cycle_error: float
    on_mask: float | None
    performance: Performance

    def to_json(self) -> dict[str, Any]:
        """All but the performance."""
        values = {field.name: getattr(self, field.name) for field in fields(self) if field.name != "performance"}
        return {name: asdict(value) if hasattr(value, "__dataclass_fields__") else value
                for name, value in values.items()}  # fmt: skip


@dataclass(frozen=True)
class Bar:
    """A measure's worst value over the directions, and what it must and should reach."""

    measure: str
    unit: str
    value: float
    bar: float
    aim: float
    higher_is_better: bool

    @property
    def met(self) -> bool:
        return self._reaches(self.bar)

    @property
    def aim_met(self) -> bool:
        return self._reaches(self.aim)

    def _reaches(self, threshold: float) -> bool:
        return self.value > threshold if self.higher_is_better else self.value <= threshold

    def to_json(self) -> dict[str, Any]:
        return asdict(self) | {"met": self.met, "aim_met": self.aim_met}


@dataclass(frozen=True)
class Smoothing:
    """A OneEuroFilter on the keypoints before drawing. min_cutoff, beta, d_cutoff: its parameters.

    psnr_db: as in Quality. acceleration, flicker: as in Temporal. Each as found, and smoothed.
    """

    min_cutoff: float
    beta: float
    d_cutoff: float
    psnr_db: float
    smoothed_psnr_db: float
    acceleration: float | None
    smoothed_acceleration: float | None
    flicker: float | None
    smoothed_flicker: float | None


@dataclass(frozen=True)
class Interpolation:
    """Every other pose is drawn, those between are interpolated: PSNR of the in-between frames on the same pixels.

    psnr_db: cubic. linear_psnr_db: linear. extracted_psnr_db: drawn from the in-between frames' own keypoints.
    drawn_blend_psnr_db, true_blend_psnr_db: the mean of the two neighbouring frames, drawn or true ones.
    gain_db: psnr_db - drawn_blend_psnr_db.
    """

    psnr_db: float
    linear_psnr_db: float
    extracted_psnr_db: float
    drawn_blend_psnr_db: float
    true_blend_psnr_db: float
    gain_db: float


@dataclass(frozen=True)
class Application:
    """What keypoints as a bottleneck are good for, in one direction."""

    smoothing: Smoothing
    interpolation: Interpolation


Reader = Callable[[Any], float]
BARS: tuple[tuple[str, str, Reader, float, float, bool], ...] = (
    ("PSNR over the best baseline", "dB", lambda found: found.retargeting.psnr_gain_db, 0.0, 3.0, True),
    ("SSIM, whole frame", "", lambda found: found.retargeting.ssim, 0.85, 0.92, True),
    ("joints from keypoints, against the mean pose", "", lambda found: found.joints.relative, 0.5, 0.25, False),
    ("joint ratio", "", lambda found: found.joints.ratio, 1.5, 1.2, False),
    ("fresh domain classifier", "%", lambda found: 100 * found.domain_accuracy, 70.0, 55.0, False),
    ("rotation error", "degrees", lambda found: found.affine.rotation_degrees, 5.0, 2.0, False),
    ("scale error", "%", lambda found: found.affine.scale_percent, 10.0, 5.0, False),
    ("shift error", "% of the frame", lambda found: found.affine.shift_percent, 5.0, 2.0, False),
    ("silhouette IoU, other appearance", "", lambda found: found.disentanglement.appearance_iou, 0.95, 0.98, True),
    ("flicker, against the true video's", "times", lambda found: found.temporal.flicker, 1.3, 1.0, False),
)
"""Measure, unit, where it is found in a DirectionResult, bar, aim, whether higher is better. They are for puppets."""


@dataclass(frozen=True)
class Evaluation:
    """model: where it came from. data: what it was measured on. notes: what a reader of the numbers must know.

    directions: by name, "a2b" and "b2a". applications: likewise, but empty without ground truth.
    """

    model: str
    engine: str
    data: str
    notes: tuple[str, ...]
    directions: Mapping[str, DirectionResult]
    applications: Mapping[str, Application]

    @property
    def has_truth(self) -> bool:
        return all(found.retargeting is not None for found in self.directions.values())

    @property
    def bars(self) -> tuple[Bar, ...]:
        """The bars of the puppets, each with its worst value; none without ground truth."""
        if not self.has_truth:
            return ()
        return tuple(
            Bar(measure, unit, (min if higher else max)(map(read, self.directions.values())), bar, aim, higher)
            for measure, unit, read, bar, aim, higher in BARS
        )

    def to_json(self) -> dict[str, Any]:
        return {
            "model": self.model,
            "engine": self.engine,
            "data": self.data,
            "notes": list(self.notes),
            "directions": {name: found.to_json() for name, found in self.directions.items()},
            "applications": {name: asdict(found) for name, found in self.applications.items()},
            "bars": [bar.to_json() for bar in self.bars],
        }
