"""The bars that a good model clears."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jokr_rt.evaluation.results import DirectionResult


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


def judge(found: "Sequence[DirectionResult]", thresholds: "Sequence[Threshold]") -> tuple[Bar, ...]:
    """Each bar with the worst value over the directions; without those that a direction has no value for."""
    bars = []
    for measure, unit, read, bar, aim, higher in thresholds:
        values = [read(each) for each in found]
        if None not in values:  # as the textures of creatures of one colour
            bars.append(Bar(measure, unit, (min if higher else max)(values), bar, aim, higher))
    return tuple(bars)


Threshold = tuple[str, str, Callable[[Any], Any], float, float, bool]
"""Measure, unit, where it is found in a DirectionResult, bar, aim, whether higher is better."""

PUPPET_BARS: tuple[Threshold, ...] = (
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
"""With ground truth."""

CLIP_BARS: tuple[Threshold, ...] = (
    ("own silhouette, IoU", "", lambda found: found.own.iou, 0.92, 0.95, True),
    ("own silhouette, IoU of the lowest third", "", lambda found: found.own.legs_iou, 0.8, 0.88, True),
    ("own frames, PSNR on the creature", "dB", lambda found: found.own.psnr_db, 23.0, 25.0, True),
    ("own frames, texture", "times", lambda found: found.own.texture, 0.75, 0.9, True),
    ("retargeted frames, texture", "times", lambda found: found.texture, 0.7, 0.9, True),
    ("keypoints in the lowest third", "%", lambda found: 100 * found.own.low_keypoints, 21.4, 21.4, True),  # 3 of 14
    ("keypoints found again", "% of the height", lambda found: found.cycle_percent, 4.0, 2.0, False),
)
"""For two clips with masks, on frames that were kept from training."""
