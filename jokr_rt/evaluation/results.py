"""What an evaluation found, with what its page shows."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from jokr_rt.evaluation.bars import CLIP_BARS, PUPPET_BARS, Bar, judge
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
class OwnFrames:
    """The target's own frames drawn again from their own keypoints: those that training never saw, if there are such.

    frames: how many. Pixels of the creature that are as dark as the black around it do not count in the overlaps.
    iou: of the drawn silhouette with the mask. legs_iou: the same in the lowest third of the creature's height.
    psnr_db: on the mask, of pictures of at most 128 x 128. texture: `metrics.texture` of the drawn over that of the
    true frames; None where that is 0. low_keypoints: share of the keypoints, over all frames, in that lowest third.
    """

    frames: int
    iou: float
    legs_iou: float
    psnr_db: float
    texture: float | None
    low_keypoints: float


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
    in the drawn frame; cycle_percent: that, of the target's height. on_mask: share of the source's keypoints that lie
    on its mask. own: of the target. texture: `metrics.texture` of the drawn frames over that of the target's own.
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
    cycle_percent: float | None
    on_mask: float | None
    own: OwnFrames | None
    texture: float | None
    performance: Performance

    def to_json(self) -> dict[str, Any]:
        """All but the performance."""
        values = {field.name: getattr(self, field.name) for field in fields(self) if field.name != "performance"}
        return {name: asdict(value) if hasattr(value, "__dataclass_fields__") else value
                for name, value in values.items()}  # fmt: skip


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


@dataclass(frozen=True)
class Evaluation:
    """model: where it came from. data: what it was measured on. notes: what a reader of the numbers must know.

    directions: by name, "a2b" and "b2a". applications: likewise, but empty without ground truth.
    """

    model: str
    engine: str
    precision: str
    data: str
    notes: tuple[str, ...]
    directions: Mapping[str, DirectionResult]
    applications: Mapping[str, Application]
    is_held_out: bool = False

    @property
    def has_truth(self) -> bool:
        return all(found.retargeting is not None for found in self.directions.values())

    @property
    def bars(self) -> tuple[Bar, ...]:
        """The bars, each with its worst value: of the puppets with ground truth, of clips on held-out frames."""
        found = list(self.directions.values())
        if not self.has_truth and not (self.is_held_out and all(each.own is not None for each in found)):
            return ()
        return judge(found, PUPPET_BARS if self.has_truth else CLIP_BARS)

    def to_json(self) -> dict[str, Any]:
        return {
            "model": self.model,
            "engine": self.engine,
            "precision": self.precision,
            "data": self.data,
            "notes": list(self.notes),
            "directions": {name: found.to_json() for name, found in self.directions.items()},
            "applications": {name: asdict(found) for name, found in self.applications.items()},
            "bars": [bar.to_json() for bar in self.bars],
        }
