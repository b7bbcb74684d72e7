"""An evaluation as tables of words, for terminal and page alike."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from jokr_rt.evaluation.results import Application, DirectionResult, Evaluation, Quality, Retargeting


@dataclass(frozen=True)
class Row:
    """cells: one for each column. meaning: of its numbers, in a sentence; empty where the table's `about` says it."""

    cells: tuple[str, ...]
    meaning: str = ""


@dataclass(frozen=True)
class Table:
    """about: a sentence. The first cell of each row is its name, the others are numbers with units or verdicts."""

    title: str
    about: str
    header: tuple[str, ...]
    rows: tuple[Row, ...]


def evaluation_tables(evaluation: Evaluation, against: Evaluation | None = None) -> list[Table]:
    """The bars, one table of frames for each direction, measures, applications; without what had no truth to tell.

    against: another model on the same data, which the measures are compared with.
    """
    directions = list(evaluation.directions.values())
    columns = tuple(arrow(result) for result in directions)
    tables = [_bars(evaluation)] if evaluation.bars else []
    tables += [_frames(result, result.retargeting) for result in directions if result.retargeting]
    tables.append(Table("Measures", "Over the test clip.", ("measure", *columns), tuple(_rows(_MEASURES, directions))))
    if against is not None:
        tables += _comparison(evaluation, against)
    applications = [evaluation.applications[result.direction] for result in directions if evaluation.applications]
    if applications:
        first = applications[0].smoothing
        one_euro = f"of {first.min_cutoff:g} Hz, beta {first.beta:g}, and {first.d_cutoff:g} Hz for the speed"
        about = f"Keypoints through a One-Euro filter {one_euro}, before they are drawn."
        tables.append(Table("Smoothing", about, ("measure", *columns), tuple(_rows(_SMOOTHING, applications))))
        about = "Every other frame is given; PSNR of those between, where any way of making them shows a creature."
        rows = tuple(_rows(_INTERPOLATION, applications))
        tables.append(Table("Twice the frame rate", about, ("frames between from", *columns), rows))
    return tables


def arrow(result: DirectionResult) -> str:
    """A direction in words: whose motion, whose looks."""
    return f"{result.source} → {result.target}"


def _bars(evaluation: Evaluation) -> Table:
    rows = []
    for bar in evaluation.bars:
        verdict = "aim met" if bar.aim_met else "bar met" if bar.met else "MISSED"
        bound = "at least" if bar.higher_is_better else "at most"
        value, *bounds = (f"{number:.3g} {bar.unit}".rstrip() for number in (bar.value, bar.bar, bar.aim))
        rows.append(Row((bar.measure, value, *(f"{bound} {number}" for number in bounds), verdict)))
    about = "The worse of both directions, against what it must reach (bar) and should reach (aim)."
    return Table("Bars", about, ("measure", "value", "bar", "aim", "verdict"), tuple(rows))


def _comparison(one: Evaluation, other: Evaluation) -> list[Table]:
    """What both have of the bars, then all measures."""
    about = f"1: {one.model}. 2: {other.model}."
    both = {bar.measure: bar for bar in other.bars}
    rows = []
    for bar in one.bars:
        if bar.measure in both:
            values = bar.value, both[bar.measure].value
            shown = (f"{value:.3g} {bar.unit}".rstrip() for value in (*values, bar.bar))
            better = "-" if values[0] == values[1] else "1" if (values[0] > values[1]) == bar.higher_is_better else "2"
            rows.append(Row((bar.measure, *shown, better)))
    tables = [Table("Bars, side by side", about, ("measure", "1", "2", "bar", "better"), tuple(rows))] if rows else []
    pairs = zip(one.directions.values(), other.directions.values(), strict=True)
    results = [result for pair in pairs for result in pair]
    header = tuple(f"{arrow(result)}, {number}" for result, number in zip(results, "1212", strict=True))
    measures = tuple(_rows(_MEASURES, results))
    return [*tables, Table("Measures, side by side", about, ("measure", *header), measures)]


_METHODS = {
    "mean_frame": ("mean frame", "What is drawn without looking: the mean of the target's training frames."),
    "nearest_keypoints": ("nearest keypoints", "What is drawn without a generator: the target's training frame whose "
                          "keypoints are nearest to the moved ones."),
    "identity_stn": ("identity STN", "What is drawn without the map between the domains: the same networks, with the "
                     "keypoints left where they were found."),
}  # fmt: skip


def _frames(result: DirectionResult, retargeting: Retargeting) -> Table:
    def row(name: str, quality: Quality, gain: str, meaning: str) -> Row:
        numbers = f"{quality.psnr_db:.2f} dB", gain, f"{quality.psnr_frame_db:.2f} dB", f"{quality.ssim:.3f}"
        return Row((name, *numbers), meaning)

    meaning = "Its own gain is the smallest of those over the others."
    rows = [row("the model", retargeting, f"{retargeting.psnr_gain_db:+.2f} dB", meaning)]
    for key, baseline in retargeting.baselines.items():
        name, meaning = _METHODS[key]
        rows.append(row(name, baseline, f"{baseline.gain_db:+.2f} dB", meaning))
    header = "frames by", "PSNR, creature", "model's gain", "PSNR, frame", "SSIM"
    about = (
        "Against the true partner of every held-out frame: PSNR where the true or the drawn creature is, the model's "
        "gain over each on the same pixels, then PSNR and SSIM (1 for equal frames) of the whole frame."
    )
    return Table(f"Frames, {arrow(result)}", about, header, tuple(rows))


Measure = tuple[str, str, Callable[..., float | None], str]
"""Name, format, where it is found, meaning."""


def _rows(measures: Iterable[Measure], found: Iterable[DirectionResult] | Iterable[Application]) -> Iterator[Row]:
    """A row for each measure that has a value in any direction."""
    subjects = list(found)
    for name, form, read, meaning in measures:
        values = [read(subject) for subject in subjects]
        if any(value is not None for value in values):
            yield Row((name, *("-" if value is None else form.format(value) for value in values)), meaning)


_MEASURES: tuple[Measure, ...] = (
    ("joints, fitted on the source", "{:.3f} body lengths", lambda r: r.joints and r.joints.own,
     "Mean error of the target's true joints, predicted linearly from the source's moved keypoints."),
    ("joints, fitted on the target", "{:.3f} body lengths", lambda r: r.joints and r.joints.joint,
     "The same with a linear map fitted on the target's own keypoints: the test of a joint representation."),
    ("joints, mean pose", "{:.3f} body lengths", lambda r: r.joints and r.joints.mean_pose,
     "The error of always predicting the mean pose."),
    ("joints, of the mean pose's error", "{:.3f}", lambda r: r.joints and r.joints.relative,
     "The second of these over the third: 0 is perfect, 1 knows nothing of the pose."),
    ("joint ratio", "{:.2f}", lambda r: r.joints and r.joints.ratio,
     "The second of these over the first: 1 if keypoints mean the same in both domains."),
    ("fresh domain classifier", "{:.1%}", lambda r: r.domain_accuracy,
     "Accuracy of classifiers, fitted after training, that tell by the keypoints whose they are: 50% is chance."),
    ("rotation error", "{:.2f} degrees", lambda r: r.affine and r.affine.rotation_degrees,
     "Of the mean map that the spatial transformer predicts, from the true map between the domains."),
    ("scale error", "{:.2f} %", lambda r: r.affine and r.affine.scale_percent, "Of the same map, of the true scale."),
    ("shift error", "{:.2f} %", lambda r: r.affine and r.affine.shift_percent, "Of the same map, of the frame."),
    ("silhouette IoU, other appearance", "{:.3f}", lambda r: r.disentanglement.appearance_iou,
     "Overlap of silhouettes drawn with appearances of other frames: 1 if looks do not touch the pose."),
    ("silhouette moved", "{:.3f}", lambda r: r.disentanglement.moved,
     "1 - IoU of drawn silhouettes 8 frames apart: above 0 if the keypoints move the creature."),
    ("silhouette follows", "{:.2f} times", lambda r: r.disentanglement.follows,
     "That, over the same of the true silhouettes: 1 if it moves as much as it should."),
    ("keypoint acceleration", "{:.4f} half-widths/frame²", lambda r: r.temporal.keypoint_acceleration,
     "Mean second difference of the moved keypoints: jitter and true acceleration together."),
    ("acceleration, of the true joints'", "{:.2f} times", lambda r: r.temporal.acceleration,
     "That, over the true joints': far above 1 it is jitter."),
    ("flicker", "{:.2f} times", lambda r: r.temporal.flicker,
     "Mean second difference over time of the drawn pixels, over the true video's (without truth, the input's)."),
    ("cycle error", "{:.4f} half-widths", lambda r: r.cycle_error,
     "Mean distance between moved keypoints and those found again in the drawn frame."),
    ("cycle error, of the height", "{:.2f} %", lambda r: r.cycle_percent,
     "The same, of the height of the target's creature."),
    ("keypoints on the mask", "{:.1%}", lambda r: r.on_mask, "Share of the keypoints that lie on the source creature."),
    ("retargeted frames, texture", "{:.2f} times", lambda r: r.texture,
     "Mean difference of neighbouring pixels on the drawn creature, over the target's own: below 1 it is smeared."),
    ("own frames", "{:.0f} frames", lambda r: r.own and r.own.frames,
     "The target's own frames, drawn again from their own keypoints; where some were kept from training, those."),
    ("own silhouette, IoU", "{:.3f}", lambda r: r.own and r.own.iou, "Overlap of what is drawn with the mask."),
    ("own silhouette, IoU of the lowest third", "{:.3f}", lambda r: r.own and r.own.legs_iou,
     "The same in the lowest third of the creature's height, where legs are."),
    ("own frames, PSNR on the creature", "{:.2f} dB", lambda r: r.own and r.own.psnr_db,
     "On the mask, of pictures of 128 x 128 or less."),
    ("own frames, texture", "{:.2f} times", lambda r: r.own and r.own.texture,
     "As that of the retargeted frames, over the true frames'."),
    ("own keypoints in the lowest third", "{:.1%}", lambda r: r.own and r.own.low_keypoints,
     "Share of the target's keypoints in the lowest third of its height."),
)  # fmt: skip

_SMOOTHING: tuple[Measure, ...] = (
    ("acceleration, as found", "{:.3f} times", lambda a: a.smoothing.acceleration,
     "Of the moved keypoints, over the true joints'."),
    ("acceleration, smoothed", "{:.3f} times", lambda a: a.smoothing.smoothed_acceleration,
     "The same with keypoints smoothed before they are drawn: it must be lower."),
    ("flicker, as found", "{:.3f} times", lambda a: a.smoothing.flicker,
     "Of the drawn pixels, over the true video's."),
    ("flicker, smoothed", "{:.3f} times", lambda a: a.smoothing.smoothed_flicker,
     "The same, smoothed: it must be lower."),
    ("PSNR, as found", "{:.2f} dB", lambda a: a.smoothing.psnr_db, "Where the true or the drawn creature is."),
    ("PSNR, smoothed", "{:.2f} dB", lambda a: a.smoothing.smoothed_psnr_db,
     "The same, smoothed: what the filter's lag costs, at most 0.2 dB."),
)  # fmt: skip

_INTERPOLATION: tuple[Measure, ...] = (
    ("keypoints, cubic", "{:.2f} dB", lambda a: a.interpolation.psnr_db,
     "Drawn from keypoints interpolated between those of the given frames, on smooth curves."),
    ("keypoints, linear", "{:.2f} dB", lambda a: a.interpolation.linear_psnr_db, "The same, on straight lines."),
    ("keypoints, as found", "{:.2f} dB", lambda a: a.interpolation.extracted_psnr_db,
     "Drawn from the in-between frames' own keypoints: what a perfect interpolation would reach with this model."),
    ("blend of drawn frames", "{:.2f} dB", lambda a: a.interpolation.drawn_blend_psnr_db,
     "The mean of the two neighbouring drawn frames: legs show twice, but errors of drawing average out."),
    ("cubic over that blend", "{:+.2f} dB", lambda a: a.interpolation.gain_db, "It should be above 0."),
    ("blend of true frames", "{:.2f} dB", lambda a: a.interpolation.true_blend_psnr_db,
     "The mean of the two neighbouring true frames, which a model that draws imperfectly need not reach."),
)  # fmt: skip
