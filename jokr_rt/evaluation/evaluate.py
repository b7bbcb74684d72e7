"""From a model and data to every measure. The formulas are in `metrics`, what they mean in `results`."""

from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from jokr_rt.bundle import DIRECTIONS
from jokr_rt.engines import Engine
from jokr_rt.evaluation import metrics
from jokr_rt.evaluation.applications import measure_application
from jokr_rt.evaluation.data import Domain, EvaluationData, LabelledClip
from jokr_rt.evaluation.perform import CountingEngine, Frames, Performer, Track, draw, find, locate
from jokr_rt.evaluation.puppets import body_length
from jokr_rt.evaluation.results import (
    AffineError,
    Baseline,
    DirectionResult,
    Disentanglement,
    Evaluation,
    JointKeypoints,
    OwnFrames,
    Performance,
    Quality,
    Retargeting,
    Temporal,
)
from jokr_rt.frame import Frame
from jokr_rt.looks import FixedLooks
from jokr_rt.retarget import Model
from jokr_rt.video import letterbox

OTHER_LOOKS = 4  # frames whose appearance is tried, spread over the target's training clip
LAG = 8  # frames between two silhouettes, about half a stride
SMALL = 128  # pixels; so that models of other sizes can be compared
WHITE = np.full(3, 255, np.uint8)
BLOCKS = 8  # of a clip that has to fit and to test the domain classifier


@dataclass(frozen=True)
class _Tracks:
    """Keypoints (T, K, 2) of a domain's clips; or the same, moved to the other's space."""

    test: Track
    training: Track | None = None
    probe: Track | None = None


def evaluate(
    model: Model,
    engine: Engine,
    data: EvaluationData,
    *,
    model_name: str,
    progress: Callable[[int, int | None], None] = lambda done, total: None,
) -> Evaluation:
    """Measure a model in both directions. `progress` is told (done, total) frames after each found or drawn.

    data: of the model's size. model_name: for people. Raises EngineError.
    """
    performer = Performer(FixedLooks.stored(model), CountingEngine(engine, _frames_to_run(data), progress))
    tracks = {
        source: _find(performer, direction, data.domains[source], has_truth=data.truth is not None)
        for direction, (source, _) in DIRECTIONS.items()
    }
    directions = {direction: _evaluate_direction(performer, direction, data, tracks) for direction in DIRECTIONS}
    applications = {name: measure_application(result.performance) for name, result in directions.items() if data.truth}
    is_held_out = all(domain.test.held_out is not None for domain in data.domains.values())
    return Evaluation(
        model_name, engine.name, engine.precision, data.name, data.notes, directions, applications, is_held_out
    )


def _frames_to_run(data: EvaluationData) -> int:
    """In how many frames `evaluate` finds keypoints, and how many it draws."""
    total = 0
    for domain in data.domains.values():
        test = len(domain.test.frames)
        total += test * (1 + 2 + OTHER_LOOKS) + OTHER_LOOKS  # found; drawn, found again; drawn in other looks
        if domain.test.masks is not None:
            total += int(_measured_on(domain.test).sum())  # drawn again
        if data.truth is not None:
            total += sum(len(clip.frames) for clip in (domain.training, domain.probe) if clip is not None)
            total += 2 * test + 2 * ((test - 1) // 2)  # with the identity, smoothed; interpolated in two ways
    return total


def _find(performer: Performer, direction: str, domain: Domain, has_truth: bool) -> _Tracks:
    retargeter = performer.retargeter(direction)
    test = find(retargeter, domain.test.frames)
    if not has_truth or domain.probe is None:
        return _Tracks(test)
    training, probe = (find(retargeter, clip.frames) for clip in (domain.training, domain.probe))
    return _Tracks(test, training, probe)


def _evaluate_direction(
    performer: Performer, direction: str, data: EvaluationData, tracks: dict[str, _Tracks]
) -> DirectionResult:
    names = DIRECTIONS[direction]
    source, target = (data.domains[name] for name in names)
    own = tracks[names[1]]
    shown = _perform(performer, direction, source, target if data.truth else None, tracks[names[0]].test)
    moved = _move(tracks[names[0]], shown)
    again = find(shown.retargeter, shown.drawn)
    mask, wanted = source.test.silhouettes, target.test.silhouettes
    cycle_error = metrics.mean_distance(shown.moved, again)
    return DirectionResult(
        direction=direction,
        source=source.name,
        target=target.name,
        retargeting=_retargeting(performer, shown, target.training, own, moved),
        joints=_joints(target, own, moved),
        affine=AffineError(*metrics.affine_errors(shown.theta.mean(axis=0), data.truth.theta[direction]))
        if data.truth
        else None,
        domain_accuracy=_domain_accuracy(own, moved),
        disentanglement=_disentanglement(performer, shown, names[1], target.training.on_black),
        temporal=_temporal(shown, source.test),
        cycle_error=cycle_error,
        cycle_percent=None if wanted is None else 100 * cycle_error / float(metrics.heights(wanted).mean()),
        on_mask=None if mask is None else metrics.share_on(mask, shown.keypoints),
        own=_own_frames(performer, direction, target.test, own.test),
        texture=None
        if wanted is None
        else metrics.ratio(metrics.texture(shown.drawn), metrics.texture(target.test.on_black)),
        performance=shown,
    )


def _perform(
    performer: Performer, direction: str, source: Domain, true: Domain | None, keypoints: Track
) -> Performance:
    """true: the target where its test clip shows the same motion as the source's."""
    retargeter = performer.retargeter(direction)
    theta = locate(retargeter, keypoints)
    return Performance(
        source=source.test.frames,
        drawn=draw(retargeter, keypoints),
        true=true.test.on_black if true else None,
        true_silhouettes=true.test.silhouettes if true else None,
        true_joints=true.test.joints if true else None,
        keypoints=keypoints,
        moved=_as_track(metrics.moved_by(theta, keypoints)),
        theta=theta,
        rate=source.test.rate,
        retargeter=retargeter,
    )


def _move(tracks: _Tracks, shown: Performance) -> _Tracks:
    """The source's keypoints in the target's space."""
    training, probe = (
        None if track is None else _as_track(metrics.moved_by(locate(shown.retargeter, track), track))
        for track in (tracks.training, tracks.probe)
    )
    return _Tracks(shown.moved, training, probe)


def _retargeting(
    performer: Performer, shown: Performance, training: LabelledClip, own: _Tracks, moved: _Tracks
) -> Retargeting | None:
    if shown.true is None or shown.true_silhouettes is None or own.training is None:
        return None
    stored = training.on_black
    distances = np.linalg.norm(
        (moved.test[:, None] - own.training[None]).reshape(len(moved.test), len(stored), -1), axis=-1
    )
    others: dict[str, Frames] = {
        "mean_frame": np.broadcast_to(np.rint(stored.mean(axis=0)).astype(np.uint8), shown.true.shape),
        "nearest_keypoints": stored[distances.argmin(axis=1)],
        "identity_stn": draw(performer.unmoved_retargeter(shown.retargeter.direction), shown.keypoints),
    }
    baselines = {}
    for name, frames in others.items():
        gain = metrics.gain_db(shown.drawn, frames, shown.true, shown.true_silhouettes)
        baselines[name] = Baseline(**vars(_quality(frames, shown.true, shown.true_silhouettes)), gain_db=gain)
    worst = min(baseline.gain_db for baseline in baselines.values())
    ours = _quality(shown.drawn, shown.true, shown.true_silhouettes)
    return Retargeting(**vars(ours), psnr_gain_db=worst, baselines=baselines)


def _quality(frames: Frames, true: Frames, true_silhouettes: NDArray[np.bool_]) -> Quality:
    region = true_silhouettes | metrics.silhouettes(frames)
    return Quality(metrics.psnr_db(frames, true, region), metrics.psnr_db(frames, true), metrics.ssim(frames, true))


def _measured_on(clip: LabelledClip) -> NDArray[np.bool_]:
    """Frames (T,) that are drawn again from their own keypoints: the held-out ones, or all."""
    return np.ones(len(clip.frames), np.bool_) if clip.held_out is None else clip.held_out


def _own_frames(performer: Performer, direction: str, clip: LabelledClip, keypoints: Track) -> OwnFrames | None:
    """clip: the target's. None where it shows no silhouette."""
    chosen = _measured_on(clip)
    picked, keypoints = clip.pick(chosen), keypoints[chosen]
    true, mask = picked.on_black, picked.silhouettes
    if mask is None or not mask.any():
        return None
    drawn = draw(performer.unmoved_retargeter(direction), keypoints)
    shown, true_shown = metrics.silhouettes(drawn), metrics.silhouettes(true)
    told = true_shown == mask  # dark fur cannot be told from the black around it, nor a soft edge from the creature
    legs = metrics.lower_thirds(mask)[:, :, None]
    return OwnFrames(
        frames=len(drawn),
        iou=float(metrics.iou(shown & told, mask & told).mean()),
        legs_iou=float(metrics.iou(shown & told & legs, mask & told & legs).mean()),
        psnr_db=metrics.psnr_db(_small(drawn), _small(true), _small(mask[..., None] * WHITE)[..., 0] > 127),
        texture=metrics.ratio(metrics.texture(drawn), metrics.texture(true)),
        low_keypoints=metrics.share_low(mask, keypoints),
    )


def _small(frames: Frames) -> Frames:
    """Frames as of at most SMALL x SMALL pixels."""
    if frames.shape[1] <= SMALL:
        return frames
    return np.stack([letterbox(Frame(frame, 0, Fraction(1)), SMALL).rgb for frame in frames])


def _joints(target: Domain, own: _Tracks, moved: _Tracks) -> JointKeypoints | None:
    known, wanted = target.training.joints, target.test.joints
    if known is None or wanted is None or own.training is None or moved.training is None:
        return None
    lengths = body_length(wanted)
    own_error, joint_error = (
        metrics.regression_error(metrics.linear_map(track, known), moved.test, wanted, lengths)
        for track in (moved.training, own.training)
    )
    mean_error = metrics.normalised_error(known.mean(axis=0), wanted, lengths)
    return JointKeypoints(
        own=own_error,
        joint=joint_error,
        mean_pose=mean_error,
        relative=joint_error / mean_error,
        ratio=metrics.ratio(joint_error, own_error),
    )


def _domain_accuracy(own: _Tracks, moved: _Tracks) -> float:
    """Fitted on the probe walk; where there is none, on every other block of the test clips."""
    if own.probe is not None and moved.probe is not None:
        return metrics.domain_accuracy((own.probe, moved.probe), (own.test, moved.test))
    fit, test = ((own.test[_block(own.test, odd)], moved.test[_block(moved.test, odd)]) for odd in (False, True))
    return metrics.domain_accuracy(fit, test)


def _block(track: Track, odd: bool) -> NDArray[np.bool_]:
    """Every other of BLOCKS runs of frames, so that neighbours in time are mostly on one side: (T,)."""
    return np.arange(len(track)) * BLOCKS // len(track) % 2 == odd


def _disentanglement(performer: Performer, shown: Performance, target: str, looks: Frames) -> Disentanglement:
    drawn = metrics.silhouettes(shown.drawn)
    overlaps = []
    for index in np.linspace(0, len(looks) - 1, OTHER_LOOKS).round().astype(int):
        retargeter = performer.redressed_retargeter(shown.retargeter.direction, target, looks[index])
        others = metrics.silhouettes(draw(retargeter, shown.keypoints))
        overlaps.append(metrics.iou(drawn, others))
    moved = metrics.silhouette_motion(drawn, LAG)
    follows = None
    if shown.true is not None:  # told from black like the drawn ones, so that the truth itself scores 1
        follows = metrics.ratio(moved, metrics.silhouette_motion(metrics.silhouettes(shown.true), LAG))
    return Disentanglement(float(np.mean(overlaps)), moved, follows)


def _temporal(shown: Performance, source: LabelledClip) -> Temporal:
    found = metrics.acceleration(shown.moved)
    true = None if shown.true_joints is None else metrics.ratio(found, metrics.acceleration(shown.true_joints))
    reference = source.on_black if shown.true is None else shown.true
    return Temporal(found, true, metrics.ratio(metrics.flicker(shown.drawn), metrics.flicker(reference)))


def _as_track(points: metrics.Points) -> Track:
    return np.asarray(points, np.float32)
