"""The exported graphs: what they are made of, and that they compute what PyTorch computes."""

from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import onnx.inliner
import onnxruntime as ort
import pytest
import torch
from torch import nn

import export.graphs
from export.graphs import export_graph
from export.subpixel import rewritten
from jokr_rt.bundle import Bundle
from jokr_rt.config import ModelConfig
from jokr_rt.engines import Engine, load_engine
from jokr_rt.errors import ParityError
from jokr_rt.training.networks import Model, soft_argmax
from jokr_rt.training.stages import stages
from tests import tolerances
from tests.tiny import TINY, creature_frames, make_checkpoint, max_error

GRAPHS = ("extractor", "stn-a2b", "stn-b2a", "generator")
STNS = ("stn-a2b", "stn-b2a")


@pytest.fixture(scope="module")
def engine(bundle: Bundle) -> Engine:
    return load_engine("onnxruntime", bundle)


@pytest.mark.parametrize("name", GRAPHS)
def test_graph_has_the_contracts_names_shapes_dtypes_and_opset(bundle: Bundle, name: str) -> None:
    proto = onnx.load(bundle.graph_path(name))
    onnx.checker.check_model(proto, full_check=True)
    opsets = {entry.domain: entry.version for entry in proto.opset_import}
    assert opsets == ({"": 20, "jokr": 1} if name in STNS else {"": 20})
    for specs, values in (
        (bundle.signatures[name].inputs, proto.graph.input),
        (bundle.signatures[name].outputs, proto.graph.output),
    ):
        found = [
            (
                value.name,
                tuple(side.dim_param or side.dim_value for side in value.type.tensor_type.shape.dim),
                onnx.helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type).name,
            )
            for value in values
        ]
        assert found == [(spec.name, spec.shape, spec.dtype) for spec in specs]
    assert {prop.key: prop.value for prop in proto.metadata_props} == {"jokr.graph": name, "jokr.format_version": "1"}


@pytest.mark.parametrize("name", GRAPHS)
def test_graph_holds_its_weights_and_nothing_low_precision_kernels_are_slow_at(bundle: Bundle, name: str) -> None:
    proto = onnx.load(bundle.graph_path(name))
    kinds = Counter(node.op_type for node in proto.graph.node)
    assert not {"ConvTranspose", "BatchNormalization", "AffineGrid", "GridSample"} & set(kinds)
    shuffles = [node for node in proto.graph.node if node.op_type == "DepthToSpace"]
    assert len(shuffles) == {"extractor": 4, "generator": 6}.get(name, 0)
    assert all(onnx.helper.get_node_attr_value(node, "mode") == b"DCR" for node in shuffles)
    assert all(tensor.data_location == onnx.TensorProto.DEFAULT for tensor in proto.graph.initializer)
    assert sorted(path.name for path in bundle.root.glob("*.onnx*")) == sorted(f"{graph}.onnx" for graph in GRAPHS)


@pytest.mark.parametrize("name", GRAPHS)
def test_graph_tells_nothing_of_the_machine_it_was_exported_on(bundle: Bundle, name: str) -> None:
    content = bundle.graph_path(name).read_bytes()
    for path in (Path(torch.__file__).parents[1], Path(export.graphs.__file__).parents[1], Path.home()):
        assert str(path).encode() not in content


@pytest.mark.parametrize("name", STNS)
def test_stn_keeps_the_custom_operator_and_its_body(bundle: Bundle, name: str) -> None:
    proto = onnx.load(bundle.graph_path(name))
    nodes = [node for node in proto.graph.node if node.op_type == "AffineGridSample"]
    assert [node.domain for node in nodes] == ["jokr"]
    attributes = {entry.name: onnx.helper.get_attribute_value(entry) for entry in nodes[0].attribute}
    assert attributes == {"align_corners": 0, "plugin_namespace": b"jokr", "plugin_version": b"1", "aot": 1}
    assert [(function.domain, function.name) for function in proto.functions] == [("jokr", "AffineGridSample")]
    body = {node.op_type for node in proto.functions[0].node}
    assert "GridSample" in body
    assert "AffineGrid" not in body
    inlined = {node.op_type for node in onnx.inliner.inline_local_functions(proto).graph.node}
    assert "GridSample" in inlined
    assert "AffineGridSample" not in inlined


def test_graphs_draw_what_the_model_draws(bundle: Bundle, engine: Engine, model: Model) -> None:
    """End to end on frames that the export has not seen, each stage fed by the engine's own stage before."""
    frames = creature_frames(5, TINY.size, seed=9)
    with torch.no_grad():
        logits, appearance = model.extractor(torch.from_numpy(frames).permute(0, 3, 1, 2) / 127.5 - 1)
        keypoints, confidence, _ = soft_argmax(logits)
        theta, warped = model.stn_b2a(keypoints)
        looks = bundle.appearance("a")
        image, _ = model.generator(warped, torch.from_numpy(looks).expand(5, -1, -1, -1))
    seen = engine.run("extractor", {"frame": frames})
    assert max_error(seen["keypoints"], keypoints) <= tolerances.FP32
    assert max_error(seen["confidence"], confidence) <= tolerances.FP32
    assert max_error(seen["appearance"], appearance) <= tolerances.FP32
    moved = engine.run("stn-b2a", {"keypoints": seen["keypoints"]})
    assert max_error(moved["theta"], theta) <= tolerances.FP32
    assert max_error(moved["warped"], warped) <= tolerances.FP32
    drawn = engine.run("generator", {"warped": moved["warped"], "appearance": np.repeat(looks, 5, axis=0)})["image"]
    expected = ((image + 1) * 127.5).permute(0, 2, 3, 1)
    assert drawn.dtype == np.uint8
    assert drawn.min() == 0
    assert drawn.max() > 200
    assert max_error(drawn, expected) <= 0.5 + tolerances.LEVELS / 10  # rounded to the nearest level


def test_a_frames_result_does_not_depend_on_its_neighbours(bundle: Bundle, engine: Engine) -> None:
    samples = bundle.samples()
    for graph, signature in bundle.signatures.items():
        inputs = {spec.name: samples[graph][spec.name] for spec in signature.inputs}
        inputs = {name: np.concatenate([array, array])[:3] for name, array in inputs.items()}
        together = engine.run(graph, inputs)
        for index in range(3):
            alone = engine.run(graph, {name: array[index : index + 1] for name, array in inputs.items()})
            for spec in signature.outputs:
                tolerance = tolerances.LEVELS if spec.dtype == "uint8" else tolerances.FP32 / 10
                difference = np.abs(together[spec.name][index] - alone[spec.name][0].astype(np.float64))
                assert difference.max() <= tolerance, (graph, spec.name)


def test_export_refuses_a_graph_of_another_shape() -> None:
    class Echo(nn.Module):
        def forward(self, keypoints: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            return keypoints * 2, keypoints * 3

    with pytest.raises(ParityError, match=r"^stn-a2b: .*'theta', \('N', 10, 2\), 'float32'.* instead of .*'N', 2, 3"):
        export_graph("stn-a2b", Echo(), TINY)


def test_graphs_of_an_extractor_that_looks_at_a_smaller_frame() -> None:
    """As in preset `realtime`: the frame is averaged down and the appearance brought up; heatmaps of two sizes."""
    config = ModelConfig(size=128, width=1 / 16, extractor_size=64, keypoints=4)
    model = make_checkpoint(config, seed=5).model
    frames = torch.from_numpy(creature_frames(3, config.size, seed=2))
    inputs = {"extractor": frames, "stn-b2a": torch.rand(3, 4, 2, generator=torch.Generator().manual_seed(0)) * 2 - 1}
    expected, changed = stages(model), stages(rewritten(model))
    for name, tensor in inputs.items():
        session = ort.InferenceSession(export_graph(name, changed[name], config).SerializeToString())
        found = session.run(None, {session.get_inputs()[0].name: tensor.numpy()})
        with torch.no_grad():
            for array, wanted in zip(found, expected[name](tensor), strict=True):
                assert max_error(array, wanted) <= tolerances.FP32


def test_exporting_a_graph_is_reproducible_and_prints_nothing(
    bundle: Bundle, model: Model, capfd: pytest.CaptureFixture[str]
) -> None:
    proto = export_graph("stn-a2b", stages(rewritten(model))["stn-a2b"], TINY)
    assert proto.SerializeToString() == bundle.graph_path("stn-a2b").read_bytes()
    assert capfd.readouterr() == ("", "")
