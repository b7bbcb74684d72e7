"""What keeps keypoints from being joint, of poses whose answers are known, and of a model as it is run."""

import json
from collections.abc import Iterator
from types import ModuleType

import numpy as np
import pytest
from click.testing import CliRunner

from jokr_rt.evaluation.data import puppet_data
from jokr_rt.evaluation.puppets import PROBE, PUPPETS, TEST, TRAINING, joints
from tests.process import ROOT

WALKS = {"training": TRAINING, "test": TEST, "probe": PROBE, "alike test": TEST, "alike probe": PROBE}
BROWN = puppet_data(64).domains["a"]


@pytest.fixture
def limits() -> Iterator[ModuleType]:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT / "benchmarks"))
        import limits

        yield limits


def poses(noise: float, seed: int) -> dict[str, np.ndarray]:
    """The brown puppet's true joints on every walk, give or take."""
    random = np.random.default_rng(seed)
    true = {name: joints(PUPPETS["brown"], walk.motion()) for name, walk in WALKS.items()}
    return {
        name: (track + noise * random.standard_normal(track.shape)).astype(np.float32) for name, track in true.items()
    }


def test_keypoints_that_are_joint_lie_apart_by_their_noise_alone(limits):
    found = limits.limits(BROWN, poses(0.01, 0), poses(0.01, 1))
    assert found.apart == pytest.approx(0.02, rel=0.05)  # of two places in the plane, each with its noise
    assert 0.01 < found.not_linear < 0.03
    assert 0.4 < found.accuracy < 0.65
    assert 0.4 < found.accuracy_at_trainings_gait < 0.65
    assert found.legs_joint == pytest.approx(found.legs_own, rel=0.2)
    assert found.legs_own < 0.02


def test_a_linear_difference_is_told_from_noise_and_shows_in_the_legs(limits):
    own = poses(0.001, 0)
    moved = {name: track * np.float32([1.2, 1.0]) for name, track in poses(0.001, 1).items()}
    found = limits.limits(BROWN, own, moved)
    across = joints(PUPPETS["brown"], TEST.motion())[..., 0]
    assert found.apart == pytest.approx(0.2 * np.sqrt((across**2).mean()), rel=0.02)
    assert found.not_linear < 0.1 * found.apart
    assert found.accuracy == 1.0
    assert found.legs_joint > 5 * found.legs_own


def test_of_a_bundle_both_directions_are_measured(limits, tiny_bundle):
    result = CliRunner().invoke(limits.main, [str(tiny_bundle), "--json"])
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert found.keys() == {"a2b", "b2a"}
    assert found["a2b"].keys() == limits.Limits.__annotations__.keys()
    for each in found.values():
        assert 0 < each["apart"] < 3
        assert 0.3 < each["accuracy"] <= 1


def test_a_model_that_is_none_is_refused_in_one_line(limits, tmp_path):
    (tmp_path / "model.jokr").write_text("none")
    result = CliRunner().invoke(limits.main, [str(tmp_path / "model.jokr")])
    assert result.exit_code != 0
    assert result.stdout == ""
    assert len(result.stderr.splitlines()) == 1
    assert "model.jokr" in result.stderr
