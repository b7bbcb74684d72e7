"""Masks by a network: real ONNX files, made here, on real ONNX Runtime."""

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from jokr_rt.errors import BundleError
from jokr_rt.live.masks import open_mask

MANIFEST = {
    "size": [8, 8],
    "layout": "nchw",
    "mean": [0.5, 0.5, 0.5],
    "std": [0.5, 0.5, 0.5],
    "output": "mask",
    "kind": "probability",
    "channels": [0],
}


def network(path: Path, operator: str = "Relu", inputs: int = 1, **changes: Any) -> Path:
    """Input through one operator, and its first channel cut out; with a manifest that fits."""
    shape = [1, 3, 8, 8] if changes.get("layout", "nchw") == "nchw" else [1, 8, 8, 3]
    axis = shape.index(3)
    nodes = [
        helper.make_node(operator, ["rgb"], ["all"]),
        helper.make_node("Slice", ["all", "zero", "count", "axis"], ["mask"]),
    ]
    count = changes.pop("count", 1)
    shape_out = [count if index == axis else side for index, side in enumerate(shape)]
    constants = [
        helper.make_tensor(name, TensorProto.INT64, [1], [value])
        for name, value in (("zero", 0), ("count", count), ("axis", axis))
    ]
    ports = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name in ["rgb", "more"][:inputs]]
    out = [helper.make_tensor_value_info("mask", TensorProto.FLOAT, shape_out)]
    graph = helper.make_graph(nodes, "mask", ports, out, constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.save(model, path)
    write_manifest(path, **changes)
    return path


def write_manifest(path: Path, **changes: Any) -> None:
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    values = {key: value for key, value in (MANIFEST | {"sha256": digest} | changes).items() if value is not None}
    path.with_suffix(".json").write_text(json.dumps(values))


def red_half() -> np.ndarray:
    """16 x 16: the left half fully red, the right half black."""
    rgb = np.zeros((16, 16, 3), np.uint8)
    rgb[:, :8, 0] = 255
    return rgb


@pytest.mark.parametrize("layout", ["nchw", "nhwc"])
def test_a_probability_is_the_opacity(tmp_path: Path, layout: str) -> None:
    mask = open_mask(str(network(tmp_path / "m.onnx", layout=layout)))
    assert mask is not None
    matte = mask(red_half(), None, 0.0)  # red is 1 after (1 - 0.5) / 0.5, the rest -1, and 0 after Relu
    assert matte.shape == (16, 16)
    assert matte.dtype == np.float32
    assert matte[:, :6] == pytest.approx(np.ones((16, 6)), abs=0.02)
    assert matte[:, 10:] == pytest.approx(np.zeros((16, 6)), abs=0.02)


def test_a_logit_goes_through_a_sigmoid(tmp_path: Path) -> None:
    mask = open_mask(str(network(tmp_path / "m.onnx", "Identity", kind="logit")))
    assert mask is not None
    matte = mask(red_half(), None, 0.0)
    assert matte[:, 2].mean() == pytest.approx(1 / (1 + np.exp(-1)), abs=0.01)
    assert matte[:, 13].mean() == pytest.approx(1 / (1 + np.exp(1)), abs=0.01)


def test_logits_of_classes_go_through_a_softmax(tmp_path: Path) -> None:
    mask = open_mask(str(network(tmp_path / "m.onnx", "Identity", kind="logit", count=3, channels=[0])))
    assert mask is not None
    expected = np.exp(1) / (np.exp(1) + 2 * np.exp(-1))
    assert mask(red_half(), None, 0.0)[:, 2].mean() == pytest.approx(expected, abs=0.01)
    two = open_mask(str(network(tmp_path / "n.onnx", "Identity", kind="logit", count=3, channels=[1, 2])))
    assert two is not None
    assert two(red_half(), None, 0.0)[:, 2].mean() == pytest.approx(1 - expected, abs=0.01)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"mean": None}, "needs exactly the keys"),
        ({"extra": 1}, "needs exactly the keys"),
        ({"sha256": "0" * 64}, "SHA-256 differs"),
        ({"size": [8]}, "size must be two whole numbers"),
        ({"size": [True, 8]}, "size must be two whole numbers"),
        ({"layout": "hwc"}, "layout must be"),
        ({"std": [1, 0, 1]}, "std must be three numbers other than 0"),
        ({"mean": ["a", 0, 0]}, "mean must be three numbers"),
        ({"kind": "class"}, "kind must be"),
        ({"channels": []}, "channels must be whole numbers"),
        ({"channels": [4]}, "see its manifest's channels"),
        ({"output": "other"}, "no output 'other'; it has mask"),
        ({"size": [9, 9]}, "m.onnx"),
    ],
)
def test_what_does_not_fit_is_said(tmp_path: Path, changes: dict[str, Any], words: str) -> None:
    path = network(tmp_path / "m.onnx")
    write_manifest(path, **changes)
    with pytest.raises(Exception, match=words) as raised:
        open_mask(str(path))
    assert isinstance(raised.value, (BundleError, RuntimeError))
    assert "\n" not in str(raised.value)


def test_files_that_are_none(tmp_path: Path) -> None:
    path = network(tmp_path / "m.onnx", inputs=2)
    with pytest.raises(BundleError, match="has 2 inputs"):
        open_mask(str(path))
    path.with_suffix(".json").write_text("{")
    with pytest.raises(BundleError, match="not JSON"):
        open_mask(str(path))
    path.with_suffix(".json").unlink()
    with pytest.raises(BundleError, match="needs a manifest beside it"):
        open_mask(str(path))
    path.write_bytes(b"no network")
    write_manifest(path)
    with pytest.raises(BundleError, match="not a network that ONNX Runtime runs"):
        open_mask(str(path))
