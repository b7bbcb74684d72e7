"""What parity is measured on, and that the gate finds every kind of difference."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

import jokr_rt.parity
from jokr_rt.bundle import DIRECTIONS, Bundle, open_bundle, stored_file
from jokr_rt.errors import ParityError
from jokr_rt.parity import compare, require_parity, verify_bundle
from jokr_rt.training.checkpoint import load_checkpoint
from jokr_rt.training.networks import Model
from tests import tolerances
from tests.tiny import max_error, perturbed

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
        assert figure.psnr_db is None or figure.psnr_db > 75
        assert figure.min_psnr_db == 60
    for figure in figures[:-2]:
        assert (figure.engine, figure.precision) == (name, "fp32")
        assert 0 <= figure.mean_abs <= figure.max_abs <= figure.tolerance
        assert figure.tolerance == (tolerances.LEVELS if figure.output == "image" else tolerances.FP32)
        assert figure.psnr_db is None or figure.psnr_db > 60


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


def replace_graph(root: Path, name: str, proto: onnx.ModelProto) -> Bundle:
    """Put another graph into a bundle, with its hash: damage that only the parity gate can find."""
    (root / f"{name}.onnx").write_bytes(proto.SerializeToString())
    manifest = root / "manifest.json"
    values = json.loads(manifest.read_text())
    for graph in values["graphs"]:
        graph["sha256"] = stored_file(root, graph["file"]).sha256
    manifest.write_text(json.dumps(values))
    return open_bundle(root)


@pytest.mark.parametrize(
    ("graph", "weight", "value", "outputs"),
    [
        ("extractor", "keypoint_head.weight", 1.0, {"keypoints": False, "confidence": False, "appearance": True}),
        ("stn-b2a", "regressor.bias", 0.01, {"theta": False, "warped": False}),
        ("stn-b2a", "regressor.bias", 1e-5, {"theta": True, "warped": True}),
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
