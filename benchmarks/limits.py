"""What keeps a model's keypoints of the four-legged puppets from being joint? Of checkpoint or bundle, each direction.

Apart: keypoints that the transformer moved from those found in the frame's true partner, root mean square over the
held-out walk, in half-widths. Not linear: what is left of it after the best linear map between poses, fitted on the
walk that probes are fitted on; noise, and what bends. Accuracy of a fresh classifier on the held-out walk; and on a
new walk with training's gait, fitted on another such: how much of it is for want of motion. Legs: error of true knees
and feet read off keypoints, in body lengths, by maps fitted on the source's keypoints (own) and on the target's
(joint). `jokr evaluate` has the rest.

    python benchmarks/limits.py MODEL [--precision fp32] [--json]
"""

import json
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path

import click
import numpy as np
from harness import Program

from jokr_rt.bundle import DIRECTIONS
from jokr_rt.cli_model import load_model
from jokr_rt.evaluation import metrics
from jokr_rt.evaluation.data import Domain, puppet_data
from jokr_rt.evaluation.perform import Performer, Track, find, locate
from jokr_rt.evaluation.puppets import JOINTS, PROBE, PUPPETS, TEST, TRAINING, body_length
from jokr_rt.looks import FixedLooks

ALIKE = {"test": replace(TEST, gait=TRAINING.gait), "probe": replace(PROBE, gait=TRAINING.gait)}
LEGS = [index for index, name in enumerate(JOINTS) if name.endswith(("knee", "foot"))]
Tracks = dict[str, Track]


@dataclass(frozen=True)
class Limits:
    apart: float
    not_linear: float
    accuracy: float
    accuracy_at_trainings_gait: float
    legs_own: float
    legs_joint: float


def limits(target: Domain, own: Tracks, moved: Tracks) -> Limits:
    """own, moved: keypoints (T, K, 2) of the target and of the source in its space, on the walks "training", "test",
    "probe", "alike test" and "alike probe"; frame t of both is the same motion."""
    mapped = metrics.linear_map(moved["probe"], own["probe"]).predict(moved["test"].reshape(len(moved["test"]), -1))
    joints, wanted = target.training.joints, target.test.joints
    assert joints is not None
    assert wanted is not None
    legs = [
        metrics.regression_error(
            metrics.linear_map(track, joints[:, LEGS]), moved["test"], wanted[:, LEGS], body_length(wanted)
        )
        for track in (moved["training"], own["training"])
    ]
    accuracies = [
        metrics.domain_accuracy((own[fit], moved[fit]), (own[test], moved[test]))
        for fit, test in (("probe", "test"), ("alike probe", "alike test"))
    ]
    apart = (_spread(each - own["test"]) for each in (moved["test"], mapped.reshape(own["test"].shape)))
    return Limits(*apart, *accuracies, *legs)


def _spread(differences: Track) -> float:
    return float(np.sqrt(np.mean(np.sum(np.square(differences), axis=-1))))


def measure(model: Path, precision: str | None) -> dict[str, Limits]:
    loaded, loaded_engine = load_model(model, "torch" if model.is_file() else "auto", precision)
    click.echo(f"engine {loaded_engine.name}, precision {loaded_engine.precision}", err=True)
    performer = Performer(FixedLooks.stored(loaded), loaded_engine)
    size, names = loaded.config.size, (loaded.domains["a"], loaded.domains["b"])
    data, alike = (puppet_data(size, names, creatures=PUPPETS, **walks) for walks in ({}, ALIKE))
    found, moved = {}, {}
    for direction, (source, _) in DIRECTIONS.items():
        here, there = data.domains[source], alike.domains[source]
        clips = {"training": here.training, "test": here.test, "probe": here.probe}
        clips |= {"alike test": there.test, "alike probe": there.probe}
        retargeter = performer.retargeter(direction)
        found[source] = {name: find(retargeter, clip.frames) for name, clip in clips.items() if clip is not None}
        moved[direction] = {
            name: metrics.moved_by(locate(retargeter, track), track) for name, track in found[source].items()
        }
    return {
        direction: limits(data.domains[target], found[target], moved[direction])
        for direction, (_, target) in DIRECTIONS.items()
    }


@click.command(cls=Program, help=__doc__)
@click.argument("model", type=click.Path(path_type=Path, exists=True))
@click.option("--precision", help="As of jokr run.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object on stdout instead of the table.")
def main(model: Path, precision: str | None, as_json: bool) -> None:
    found = {direction: asdict(each) for direction, each in measure(model, precision).items()}
    if as_json:
        click.echo(json.dumps(found, allow_nan=False))
        return
    click.echo(f"{'':28}{''.join(f'{direction:>8}' for direction in found)}")
    for field in fields(Limits):
        values = "".join(f"{each[field.name]:8.4f}" for each in found.values())
        click.echo(f"{field.name.replace('_', ' '):28}{values}")


if __name__ == "__main__":
    main()
