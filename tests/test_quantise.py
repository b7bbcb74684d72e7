"""Graphs in 8 bits: what is in them, what OpenVINO makes of them, and the frames that they are calibrated on."""

from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest

from export.calibration import FRAMES, from_clips, from_references
from export.gate import mean_squared
from export.quantise import Layers, quantised
from jokr_rt.bundle import Arrays, Bundle
from tests.process import jokr
from tests.quantised import compile_graph, layer_precisions, write_clip


@pytest.fixture(scope="module")
def tiny_feeds(bundle: Bundle) -> list[Arrays]:
    """Of the tiny model's generator."""
    random = np.random.default_rng(0)
    shape = (1, bundle.config.keypoints, 32, 32)
    return [{"warped": random.random(shape, np.float32) ** 8, "appearance": bundle.appearance("b")} for _ in range(6)]


@pytest.fixture(scope="module")
def tiny_generator(bundle: Bundle, tiny_feeds: list[Arrays]) -> tuple[onnx.ModelProto, onnx.ModelProto]:
    """In float32, and in 8 bits."""
    original = onnx.load(bundle.graph_path("generator"))
    return original, quantised(original, tiny_feeds)


def compute(graph: onnx.ModelProto, inputs: Arrays, level: int = 99) -> np.ndarray:
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel(level)
    return ort.InferenceSession(graph.SerializeToString(), options).run(None, inputs)[0]


def test_all_convolutions_are_in_8_bits_and_what_is_moved_between_them_too(
    tiny_generator: tuple[onnx.ModelProto, onnx.ModelProto],
) -> None:
    original, result = tiny_generator
    kinds = Counter(node.op_type for node in original.graph.node)
    compiled = compile_graph(result)
    assert layer_precisions(compiled, "Convolution") == {"u8": kinds["Conv"]}
    assert layer_precisions(compiled, "Concatenation").keys() == {"u8"}
    before_convolutions = 5  # levels of the generator: what is enlarged after them is the picture
    assert layer_precisions(compiled, "DepthToSpace")["u8"] >= before_convolutions
    assert layer_precisions(compiled, "Pad")["u8"] >= before_convolutions


def test_weights_are_stored_in_8_bits_and_ports_and_properties_stay(
    tiny_generator: tuple[onnx.ModelProto, onnx.ModelProto],
) -> None:
    original, result = tiny_generator
    stored = {tensor.name: tensor for tensor in result.graph.initializer}
    sources = {output: node for node in result.graph.node for output in node.output}
    for node in result.graph.node:
        if node.op_type == "Conv":
            weight = stored[sources[node.input[1]].input[0]]
            assert weight.data_type == onnx.TensorProto.INT8
            assert 2 * 255 * np.abs(onnx.numpy_helper.to_array(weight).astype(int)).max() < 2**15  # pairs fit
            assert not {f"{name}.weight" for name in Layers(original, result).names} & stored.keys()
        if node.op_type == "QuantizeLinear":
            assert stored[node.input[2]].data_type == onnx.TensorProto.UINT8  # of activations
    assert (result.graph.input, result.graph.output) == (original.graph.input, original.graph.output)
    assert result.metadata_props == original.metadata_props
    assert result.opset_import == original.opset_import


def test_openvino_computes_the_quantised_graph_that_onnxruntime_does(
    tiny_generator: tuple[onnx.ModelProto, onnx.ModelProto], tiny_feeds: list[Arrays]
) -> None:
    """With int8 for uint8 it does not: see `export.quantise`. Nor would it without VNNI, had weights all 8 bits."""
    original, result = tiny_generator
    request = compile_graph(result).create_infer_request()
    for inputs in tiny_feeds[:2]:
        found, expected, exact = request.infer(inputs)["image"], compute(result, inputs, 0), compute(original, inputs)
        assert mean_squared(found, expected) < 0.3 * mean_squared(expected, exact)


def test_layers_left_out_are_as_they_were(
    tiny_generator: tuple[onnx.ModelProto, onnx.ModelProto], tiny_feeds: list[Arrays]
) -> None:
    original, result = tiny_generator
    layers = Layers(original, result)
    assert len(layers.names) == sum(node.op_type == "Conv" for node in original.graph.node)
    restored = layers.without(layers.names)
    assert not {"QuantizeLinear", "DequantizeLinear"} & {node.op_type for node in restored.graph.node}
    assert np.array_equal(compute(restored, tiny_feeds[0]), compute(original, tiny_feeds[0]))
    assert layers.without([]).graph.node == result.graph.node
    stored = {tensor.name: tensor for tensor in original.graph.initializer}
    errors = []
    for name in layers.names:
        one = layers.without([name])
        onnx.checker.check_model(one, full_check=True)
        kept = {tensor.name: tensor for tensor in one.graph.initializer}
        assert kept[f"{name}.weight"] == stored[f"{name}.weight"]
        assert layer_precisions(compile_graph(one), "Convolution") == {"u8": len(layers.names) - 1, "f32": 1}
        errors.append(mean_squared(compute(one, tiny_feeds[0], 0), compute(original, tiny_feeds[0])))
    assert len(set(errors)) == len(errors)  # each of them matters
    assert min(errors) < mean_squared(compute(result, tiny_feeds[0], 0), compute(original, tiny_feeds[0]))


def test_work_of_a_layer_is_its_multiply_adds(tiny_generator: tuple[onnx.ModelProto, onnx.ModelProto]) -> None:
    work = Layers(*tiny_generator).work()
    first = next(iter(work))
    assert work[first] == 4 * 16 * 16 * (10 + 3) * 4 * 4  # width 1/16 of 64; 16 x 16 cells; kernel 4


@pytest.mark.parametrize(("count", "kept"), [(16, 16), (FRAMES, FRAMES), (FRAMES + 1, 17), (100, 25)])
def test_a_clips_frames_are_spread_over_it_and_split(tmp_path: Path, count: int, kept: int) -> None:
    frames = [np.full((64, 64, 3), index, np.uint8) for index in range(count)]
    clip = write_clip(tmp_path / "clip", frames)
    made = from_clips([clip, clip], 64)
    for domain in "ab":
        seen, held_out = ({int(frame.max()) for frame in part[domain]} for part in (made.seen, made.held_out))
        assert not seen & held_out
        assert len(seen | held_out) == kept
        assert len(held_out) == pytest.approx(kept / 4, abs=1)
        gaps = np.diff(sorted(seen | held_out))
        assert set(gaps) == {gaps[0]}  # evenly apart
        assert count - max(seen | held_out) <= gaps[0]  # to its end


def test_references_calibrate_without_those_that_measure() -> None:
    frames = np.arange(8, dtype=np.uint8).reshape(8, 1, 1, 1)
    made = from_references({"a": frames, "b": frames[:3]})
    assert sorted([*made.seen["a"].flat, *made.held_out["a"].flat]) == [1, 2, 3, 4, 5, 6]
    assert len(made.held_out["a"]) == 1
    assert (made.seen["b"].tolist(), len(made.held_out["b"])) == ([[[[1]]]], 0)


def test_quantising_tells_nobody(tmp_path: Path) -> None:
    """NNCF would send what it does to its makers; a library that sends nothing has no session to start."""
    done = jokr("--version", prelude=(
        "from export.quantise import load_nncf\nload_nncf()\nfrom nncf.telemetry import telemetry\n"
        "print(type(telemetry).__module__)"
    ))  # fmt: skip
    assert done.stdout.splitlines()[0] == "unittest.mock"
