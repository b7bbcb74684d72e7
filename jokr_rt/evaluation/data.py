"""What a model is evaluated on: clips with or without their truth, at the size of the model."""

from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from jokr_rt.bundle import DIRECTIONS
from jokr_rt.errors import InputError, UsageError
from jokr_rt.evaluation import puppets
from jokr_rt.evaluation.puppets import PROBE, RATE, TEST, TRAINING, Family, Floats, Puppet, Walk, family_of
from jokr_rt.video import is_held_out, open_masks, open_video, with_masks

MIN_FRAMES = 16  # what the silhouettes' lag and the blocks of the domain classifier need


@dataclass(frozen=True)
class LabelledClip:
    """Consecutive frames (T, S, S, 3) uint8 of one creature before its own background, and what is known of them.

    rate: frames per second. masks: (T, S, S) uint8, 255 on the creature, or None. joints: true ones (T, J, 2) in
    [-1, 1], or None. is_cut_out: whether `frames` show the creature before black already. held_out: (T,) bool, which
    frames training never saw; None where that is not known, or it saw them all.
    """

    frames: NDArray[np.uint8]
    rate: float
    masks: NDArray[np.uint8] | None = None
    joints: Floats | None = None
    is_cut_out: bool = False
    held_out: NDArray[np.bool_] | None = None

    def pick(self, chosen: NDArray[np.bool_]) -> "LabelledClip":
        """Of the frames those that are chosen (T,); they are no longer consecutive."""
        picked = {
            name: value[chosen]
            for name in ("frames", "masks", "joints", "held_out")
            if (value := getattr(self, name)) is not None
        }
        return replace(self, **picked)

    @property
    def on_black(self) -> NDArray[np.uint8]:
        """The frames with the masks' alpha before black; as they are where there are no masks."""
        if self.masks is None or self.is_cut_out:
            return self.frames
        # One frame at a time: float copies of a whole clip would not fit where the clip does.
        pairs = zip(self.frames, self.masks, strict=True)
        return np.stack([np.rint(frame * (mask[..., None] / 255)).astype(np.uint8) for frame, mask in pairs])

    @property
    def silhouettes(self) -> NDArray[np.bool_] | None:
        """(T, S, S), where the mask is more than half opaque."""
        return None if self.masks is None else self.masks > 127


@dataclass(frozen=True)
class Domain:
    """One creature's clips. training: what the model was trained on. test: what it is measured on.

    probe: what fresh probes, such as a domain classifier, are fitted on; None where `test` is all there is.
    """

    name: str
    training: LabelledClip
    test: LabelledClip
    probe: LabelledClip | None = None


@dataclass(frozen=True)
class Truth:
    """What only made-up creatures know, beside joints: frame t of both domains is the same motion.

    theta: per direction the true map (2, 3) from the target's frame to the source's.
    """

    theta: Mapping[str, Floats]


@dataclass(frozen=True)
class EvaluationData:
    """name: in words. domains: of "a" and "b". notes: what a reader of the numbers must know."""

    name: str
    domains: Mapping[str, Domain]
    truth: Truth | None = None
    notes: tuple[str, ...] = ()


def puppet_data(
    size: int,
    names: tuple[str, str] = ("brown", "blue"),
    *,
    training: Walk = TRAINING,
    test: Walk = TEST,
    probe: Walk = PROBE,
    creatures: Family | None = None,
) -> EvaluationData:
    """The two creatures of a family on three walks, drawn at size x size pixels.

    names: of the model's domains a and b. Where they are not the creatures', a is the first creature and b the second.
    creatures: those of `family_of(names)`, unless given.
    """
    if creatures is None:
        creatures = family_of(names)
    if set(names) != set(creatures):
        first, second = creatures
        names = first, second
    domains = {
        domain: Domain(name, *(_film(creatures[name], walk, size) for walk in (training, test, probe)))
        for domain, name in zip("ab", names, strict=True)
    }
    theta = {
        direction: puppets.true_theta(creatures[domains[source].name], creatures[domains[target].name])
        for direction, (source, target) in DIRECTIONS.items()
    }
    walk = f"seed {test.seed}, gait {test.gait:g}; training had seed {training.seed}, gait {training.gait:g}"
    notes = (f"puppets: a is {names[0]}, b is {names[1]}; held-out walk of {test.frames} frames ({walk})",)
    return EvaluationData("puppets", domains, Truth(theta), notes)


def clip_data(
    size: int,
    names: tuple[str, str],
    clips: tuple[Path, Path],
    masks: tuple[Path | None, Path | None],
    max_frames: int,
    holdout: int = 0,
) -> EvaluationData:
    """Two clips, letterboxed, as they are: without truth, and each its own training clip.

    max_frames: of each clip, from its start. holdout: what `jokr train` had, see `is_held_out`; without the frames that
    it kept out, a clip is its training clip. Raises InputError for a clip or masks that cannot be used.
    """
    notes = ["no ground truth; each clip counts as its own training clip"]
    if holdout:
        notes = [f"no ground truth; own frames are measured on one of every {holdout}, which training never saw"]
    domains = {}
    for domain, name, path, mask_path in zip("ab", names, clips, masks, strict=True):
        clip, was_cut = _read(path, mask_path, size, max_frames)
        held_out = np.array([is_held_out(index, holdout) for index in range(len(clip.frames))])
        known, test = (clip.pick(~held_out), replace(clip, held_out=held_out)) if holdout else (clip, clip)
        domains[domain] = Domain(name, known, test)
        count = f"{'the first ' if was_cut else ''}{len(clip.frames)} frames"
        notes.append(f"{domain} ({name}) is {path}: {count}, {'without' if clip.masks is None else 'with'} masks")
    return EvaluationData(f"{clips[0]} {clips[1]}", domains, notes=tuple(notes))


def before_black(data: EvaluationData) -> EvaluationData:
    """The same with the creatures before black, as `jokr run --masks` has them. Raises UsageError without masks."""

    def cut_out(clip: LabelledClip) -> LabelledClip:
        return replace(clip, frames=clip.on_black, is_cut_out=True)

    domains = {}
    for name, domain in data.domains.items():
        if domain.test.masks is None:
            raise UsageError(f"--on-black: {domain.name} has no masks; give them with --{name}-masks")
        probe = None if domain.probe is None else cut_out(domain.probe)
        domains[name] = Domain(domain.name, cut_out(domain.training), cut_out(domain.test), probe)
    note = "keypoints are found on the creature before black, as jokr run --masks does"
    return replace(data, domains=domains, notes=(*data.notes, note))


def _film(puppet: Puppet, walk: Walk, size: int) -> LabelledClip:
    poses = puppets.joints(puppet, walk.motion(puppet.program))
    frames, masks = zip(*(puppets.render(puppet, pose, size) for pose in poses), strict=True)
    return LabelledClip(np.stack(frames), float(RATE), np.stack(masks), poses)


def _read(path: Path, mask_path: Path | None, size: int, max_frames: int) -> tuple[LabelledClip, bool]:
    """The clip, and whether it goes on after `max_frames`."""
    with ExitStack() as stack:
        video = stack.enter_context(open_video(path, size=size))
        mattes = stack.enter_context(open_masks(mask_path, size=size)) if mask_path is not None else None
        pairs = with_masks(video, mattes)
        seen = list(islice(pairs, max_frames))
        was_cut = next(pairs, None) is not None
        rate = float(video.rate)
    if len(seen) < MIN_FRAMES:
        raise InputError(f"{path}: {len(seen)} frames; an evaluation needs at least {MIN_FRAMES}")
    masks = [mask for _, mask in seen if mask is not None]
    if masks and not np.any(masks):
        raise InputError(f"{mask_path}: no mask shows an object (white); check the masks")
    frames = np.stack([frame.rgb for frame, _ in seen])
    return LabelledClip(frames, rate, np.stack(masks) * np.uint8(255) if masks else None), was_cut
