"""The demo's bundle does what README says of it, on the puppets' held-out walk."""

import math
from pathlib import Path

import onnx
import pytest

from export.truth import PuppetTruth
from jokr_rt import Retargeter, open_bundle
from jokr_rt.engines import load_engine
from jokr_rt.evaluation.data import puppet_data
from jokr_rt.evaluation.evaluate import evaluate
from jokr_rt.evaluation.results import Evaluation
from jokr_rt.parity import require_parity, verify_bundle

SHIPPED = Path(__file__).parent.parent / "examples" / "puppets.jokr"
SIDES = ("a2b", "b2a")


@pytest.fixture(scope="module")
def found() -> Evaluation:
    bundle = open_bundle(SHIPPED)
    return evaluate(
        bundle, load_engine("openvino", bundle, "fp32"), puppet_data(bundle.config.size), model_name="shipped"
    )


@pytest.mark.parametrize("engine", ["onnxruntime", "openvino"])
def test_it_still_runs_though_its_map_is_of_a_network(engine):
    """Bundles of before, whose map was read off each pose."""
    bundle = open_bundle(SHIPPED)
    weights = onnx.load(bundle.graph_path("stn-a2b")).graph.initializer
    assert any(tensor.name.endswith("regressor.weight") for tensor in weights)
    require_parity(verify_bundle(bundle, engine))


def test_it_clears_all_bars_but_the_one_that_readme_names(found):
    """That by one to five poses of 192, for rounding turns some: any processor is within two standard errors."""
    value = {bar.measure: bar.value for bar in found.bars}
    assert {bar.measure for bar in found.bars if not bar.met} <= {"fresh domain classifier"}
    assert value["fresh domain classifier"] == pytest.approx(70, abs=200 * math.sqrt(0.7 * 0.3 / 192))
    assert value["joints from keypoints, against the mean pose"] < 0.2
    assert value["joint ratio"] < 1.4


@pytest.mark.parametrize("side", SIDES)
def test_every_baseline_is_beaten(found, side):
    baselines = found.directions[side].retargeting.baselines
    assert min(baseline.gain_db for baseline in baselines.values()) > 3


@pytest.mark.parametrize("side", SIDES)
def test_the_puppets_relative_affine_map_was_found_without_supervision(found, side):
    affine = found.directions[side].affine
    assert abs(affine.rotation_degrees) < 1
    assert abs(affine.scale_percent) < 5
    assert affine.shift_percent < 3


@pytest.mark.parametrize("side", SIDES)
def test_smoothing_calms_keypoints_and_frames_for_less_than_a_fifth_of_a_decibel(found, side):
    smoothing = found.applications[side].smoothing
    assert smoothing.smoothed_acceleration < 0.95 * smoothing.acceleration
    assert smoothing.smoothed_flicker < 0.98 * smoothing.flicker
    assert smoothing.smoothed_psnr_db > smoothing.psnr_db - 0.2


@pytest.mark.parametrize("side", SIDES)
def test_a_walk_at_twice_the_frame_rate_beats_blended_frames(found, side):
    assert found.applications[side].interpolation.gain_db > 0


def test_the_truth_that_int8_is_held_against_is_an_evaluations(found):
    bundle = open_bundle(SHIPPED)
    retargeters = {side: Retargeter(bundle, side, load_engine("openvino", bundle, "fp32")) for side in SIDES}

    def draw(direction, frame):
        retargeter = retargeters[direction]
        return retargeter.draw(retargeter.extract(frame)[0])

    for side, psnr_db in PuppetTruth(bundle).psnr_db(draw).items():
        assert psnr_db == pytest.approx(found.directions[side].retargeting.psnr_db, abs=1e-3)
