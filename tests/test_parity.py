"""What parity is measured on, and that the gate finds every kind of difference."""

import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

import jokr_rt.parity
from export import export_bundle
from jokr_rt.bundle import DIRECTIONS, Bundle, open_bundle
from jokr_rt.engines import load_engine
from jokr_rt.errors import ParityError
from jokr_rt.parity import compare, require_parity, verify_bundle
from jokr_rt.training.checkpoint import load_checkpoint, save_checkpoint
from jokr_rt.training.networks import Model
from tests import tolerances
from tests.tiny import TINY, make_checkpoint, max_error, perturbed, replace_graph

ENGINES = ("onnxruntime", "openvino")


@pytest.mark.parametrize("name", ENGINES)
def test_verify_measures_every_output_of_every_graph(bundle: Bundle, name: str) -> None:
    figures = verify_bundle(bundle, name)
    assert [(figure.graph, figure.output) for figure in figures] == [
        ("extractor", "keypoints"), ("extractor", "confidence"), ("extractor", "appearance"),
        ("stn-a2b", "theta"), ("stn-a2b", "warped"), ("stn-b2a", "theta"), ("stn-b2a", "warped"),
        ("generator", "image"), ("a2b", "image"), ("b2a", "image"),
    ]  # fmt: skip
    require_parity(figures)
    for figure in figures[-2:]:
        assert (figure.engine, figure.precision, figure.tolerance) == (name, "fp32", None)
        assert figure.min_psnr_db == 60
    for figure in figures[:-2]:
        assert (figure.engine, figure.precision) == (name, "fp32")
        assert 0 <= figure.mean_abs <= figure.max_abs <= figure.tolerance
        largest = max(1.0, float(np.abs(bundle.samples()[figure.graph][figure.output]).max()))
        assert figure.tolerance == (tolerances.LEVELS if figure.output == "image" else tolerances.FP32 * largest)


def test_manifest_has_the_figures_of_the_export(bundle: Bundle) -> None:
    assert [replace(figure, max_abs=0, mean_abs=0, psnr_db=0) for figure in bundle.parity] == [
        replace(figure, max_abs=0, mean_abs=0, psnr_db=0) for figure in verify_bundle(bundle, "onnxruntime")
    ]
    require_parity(bundle.parity)


def test_samples_are_two_real_frames_of_each_domain_and_what_pytorch_makes_of_them(
    bundle: Bundle, tiny_checkpoint: Path, model: Model
) -> None:
    samples, references = bundle.samples(), load_checkpoint(tiny_checkpoint).references
    frames = np.concatenate([references["a"][[0, -1]], references["b"][[0, -1]]])
    assert np.array_equal(samples["extractor"]["frame"], frames)
    assert np.array_equal(samples["stn-a2b"]["keypoints"], samples["extractor"]["keypoints"][:2])
    assert np.array_equal(samples["stn-b2a"]["keypoints"], samples["extractor"]["keypoints"][2:])
    generator = samples["generator"]
    assert np.array_equal(generator["warped"][:2], samples["stn-a2b"]["warped"])
    assert np.array_equal(generator["appearance"][0], bundle.appearance("b")[0])  # a's motion, b's looks
    assert np.array_equal(generator["appearance"][3], bundle.appearance("a")[0])
    with torch.no_grad():
        image, _ = model.generator(*(torch.from_numpy(generator[name]) for name in ("warped", "appearance")))
    assert max_error(generator["image"], ((image + 1) * 127.5).permute(0, 2, 3, 1)) <= 0.5 + tolerances.LEVELS / 10


@pytest.mark.parametrize(
    ("graph", "weight", "value", "outputs"),
    [
        ("extractor", "keypoint_head.weight", 1.0, {"keypoints": False, "confidence": False, "appearance": True}),
        ("stn-b2a", "transformer.theta", 0.01, {"theta": False, "warped": False}),
        ("stn-b2a", "transformer.theta", 1e-5, {"theta": True, "warped": True}),
        ("generator", "down.0.0.bias", np.nan, {"image": False}),
    ],
)
def test_gate_finds_a_graph_that_computes_something_else(
    bundle_copy: Path, graph: str, weight: str, value: float, outputs: dict[str, bool]
) -> None:
    damaged = replace_graph(bundle_copy, graph, perturbed(onnx.load(bundle_copy / f"{graph}.onnx"), weight, value))
    figures = verify_bundle(damaged, "onnxruntime")
    assert {figure.output: figure.passed for figure in figures if figure.graph == graph} == outputs
    assert all(figure.passed for figure in figures if figure.graph in damaged.signatures and figure.graph != graph)
    frames = {figure.graph: figure.passed for figure in figures if figure.graph in DIRECTIONS}
    assert frames == {direction: all(outputs.values()) or graph == f"stn-{other}"
                      for direction, other in (("a2b", "b2a"), ("b2a", "a2b"))}  # fmt: skip
    if not all(outputs.values()):
        with pytest.raises(ParityError, match=rf"^{graph} \(onnxruntime, fp32\): \w+ differs from PyTorch's by"):
            require_parity(figures)


def test_gate_compares_names_then_shapes_and_dtypes_then_values(bundle: Bundle) -> None:
    signature = bundle.signatures["stn-a2b"]
    expected = {name: array for name, array in bundle.samples()["stn-a2b"].items() if name != "keypoints"}
    theta, warped = expected["theta"], expected["warped"]
    with pytest.raises(ParityError, match=r"stn-a2b \(e\): outputs theta instead of theta, warped"):
        compare("stn-a2b", "e", signature, {"theta": theta[:1]}, expected)
    with pytest.raises(ParityError, match=r"\(e\): theta is float32 \(1, 2, 3\) instead of float32 \(2, 2, 3\)"):
        compare("stn-a2b", "e", signature, {"theta": theta[:1], "warped": warped}, expected)
    with pytest.raises(ParityError, match=r"warped is float64 .* instead of float32"):
        compare("stn-a2b", "e", signature, {"theta": theta, "warped": warped.astype(np.float64)}, expected)
    shifted = {"theta": theta, "warped": warped + np.float32(0.25)}
    equal, different = compare("stn-a2b", "e", signature, shifted, expected)
    assert (equal.max_abs, equal.mean_abs, equal.psnr_db, equal.passed) == (0, 0, None, True)
    assert different.max_abs == pytest.approx(0.25)
    assert different.mean_abs == pytest.approx(0.25)
    assert different.psnr_db == pytest.approx(20 * np.log10(np.ptp(warped) / 0.25), abs=1e-3)
    with pytest.raises(ParityError, match="warped differs from PyTorch's by 0.25, more than 0.0001"):
        require_parity([equal, different])


@pytest.fixture(scope="module")
def loud_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Exported from a good model but for its map of "a2b", which leads far away."""
    folder = tmp_path_factory.mktemp("loud")
    checkpoint = make_checkpoint(TINY)
    with torch.no_grad():
        checkpoint.model.stn_a2b.theta[:, 2] += 2000
    save_checkpoint(folder / "loud.safetensors", checkpoint)
    export_bundle(folder / "loud.safetensors", folder / "loud.jokr")
    return folder / "loud.jokr"


@pytest.mark.parametrize("name", ENGINES)
def test_large_values_may_differ_in_proportion(loud_bundle: Path, name: str) -> None:
    loud = open_bundle(loud_bundle)
    figures = verify_bundle(loud, name)
    require_parity(figures)
    largest = float(np.abs(loud.samples()["stn-a2b"]["theta"]).max())
    assert largest > 1000
    for figure in figures:
        if (figure.graph, figure.output) == ("stn-a2b", "theta"):
            assert figure.tolerance == tolerances.FP32 * largest
        if figure.output == "keypoints":
            assert figure.tolerance == tolerances.FP32


def test_of_large_values_too_a_thousandth_is_refused(loud_bundle: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(loud_bundle, tmp_path / "copy.jokr"))
    proto = onnx.load(copy / "stn-a2b.onnx")
    (weight,) = [tensor for tensor in proto.graph.initializer if tensor.name.endswith("transformer.theta")]
    weight.CopyFrom(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(weight) * np.float32(1.001), weight.name))
    figures = verify_bundle(replace_graph(copy, "stn-a2b", proto), "onnxruntime")
    assert {figure.output for figure in figures if not figure.passed} == {"theta"}
    with pytest.raises(ParityError, match=r"^stn-a2b \(onnxruntime, fp32\): theta differs from PyTorch's by"):
        require_parity(figures)


@pytest.mark.parametrize("name", ENGINES)
def test_the_model_that_all_is_compared_on_has_a_map_that_mirrors(bundle: Bundle, name: str) -> None:
    """A keypoint on the one side is drawn on the other, and with the map back, where it was."""
    keypoints = np.tile(np.float32([0.4, 0.1]), (1, TINY.keypoints, 1))
    engine = load_engine(name, bundle)
    there = engine.run("stn-b2a", {"keypoints": keypoints})  # inverse(theta) moves it, which is that of "a2b"
    theta = engine.run("stn-a2b", {"keypoints": keypoints})["theta"]
    assert np.linalg.det(theta[0, :, :2]) < -0.5
    expected = theta[0, :, :2] @ keypoints[0, 0] + theta[0, :, 2]
    assert expected[0] < -0.2
    mass = there["warped"][0, 0] / there["warped"][0, 0].sum()
    centres = (np.arange(TINY.heatmap_size) * 2 + 1) / TINY.heatmap_size - 1
    found = np.array([(mass.sum(0) * centres).sum(), (mass.sum(1) * centres).sum()])
    cell = 2 / TINY.heatmap_size
    assert np.abs(found - expected).max() < cell / 2


def test_verify_needs_neither_torch_nor_onnx_nor_the_export(tiny_bundle: Path, tmp_path: Path) -> None:
    program = (
        "import sys\n"
        "for name in ('torch', 'onnx', 'onnxscript', 'safetensors', 'export'): sys.modules[name] = None\n"
        "from jokr_rt.bundle import open_bundle\n"
        "from jokr_rt.parity import verify_bundle\n"
        f"for engine in {ENGINES}:\n"
        "    print([figure.passed for figure in verify_bundle(open_bundle(sys.argv[1]), engine)])\n"
    )
    command = [sys.executable, "-c", program, str(tiny_bundle)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=Path(jokr_rt.parity.__file__).parents[1])
    assert done.stderr == ""
    assert done.stdout.splitlines() == [str([True] * 10)] * 2
