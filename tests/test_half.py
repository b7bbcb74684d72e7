"""Graphs in fp16: where they keep 32 bits, how near they stay to PyTorch, and that a bundle holds both precisions."""

import json
import shutil
from collections import Counter
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from click.testing import CliRunner

import export.checkpoint
from export import export_bundle
from jokr_rt.bundle import Bundle, open_bundle
from jokr_rt.cli import main
from jokr_rt.engines import KINDS, load_engine
from jokr_rt.errors import BundleError, ParityError, UsageError
from jokr_rt.frame import Frame
from jokr_rt.parity import TOLERANCES, compare, require_parity, verify_bundle
from jokr_rt.training.checkpoint import Checkpoint, save_checkpoint
from jokr_rt.training.half import halved
from jokr_rt.training.stages import stages
from jokr_rt.video import write_video
from tests import tolerances
from tests.tiny import TINY, creature_frames, make_checkpoint, max_error, perturbed

GRAPHS = ("extractor", "stn-a2b", "stn-b2a", "generator")
FLOAT, HALF, BYTE = onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16, onnx.TensorProto.UINT8


@pytest.fixture(scope="module")
def checkpoint() -> Checkpoint:
    """As tame as a trained one: the logits of `make_checkpoint` have several peaks far apart, between which the
    smallest error decides, and its pictures are of the harshest contrasts."""
    made = make_checkpoint(TINY)
    with torch.no_grad():
        made.model.extractor.keypoint_head.weight.mul_(0.1)
        made.model.generator.head.weight.mul_(0.3)
        for weight in made.model.extractor.looks.head.parameters():
            weight.mul_(0.03)
    return made


@pytest.fixture(scope="module")
def half_checkpoint(checkpoint: Checkpoint, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("half") / "tiny.safetensors"
    save_checkpoint(path, checkpoint)
    return path


@pytest.fixture(scope="module")
def exported(half_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """A bundle in fp32 and fp16, not to be changed, and what the command that made it told."""
    out = tmp_path_factory.mktemp("half") / "tiny.jokr"
    precisions = ["--precision", "fp16", "--precision", "fp32"]
    told = call("export", half_checkpoint, "-o", out, *precisions, "--json")
    return out, json.loads(told)


@pytest.fixture(scope="module")
def half_bundle(exported: tuple[Path, dict[str, Any]]) -> Bundle:
    return open_bundle(exported[0])


@pytest.fixture
def half_copy(half_bundle: Bundle, tmp_path: Path) -> Path:
    return Path(shutil.copytree(half_bundle.root, tmp_path / "copy.jokr"))


def call(*arguments: str | Path) -> str:
    """What a command of `jokr` prints on stdout."""
    result = CliRunner().invoke(main, list(map(str, arguments)))
    assert result.exit_code == 0, result.output
    return result.stdout


def dtypes(proto: onnx.ModelProto) -> dict[str, int]:
    """Of every tensor of a graph."""
    inferred = onnx.shape_inference.infer_shapes(proto, strict_mode=True).graph
    values = (*inferred.value_info, *inferred.input, *inferred.output)
    found = {value.name: value.type.tensor_type.elem_type for value in values}
    return found | {tensor.name: tensor.data_type for tensor in inferred.initializer}


def test_a_bundle_holds_both_precisions_with_hashes_and_figures(half_bundle: Bundle) -> None:
    assert half_bundle.precisions == ("fp32", "fp16")
    assert [(graph.precision, graph.file) for graph in half_bundle.graphs] == [
        *(("fp32", f"{name}.onnx") for name in GRAPHS),
        *(("fp16", f"fp16/{name}.onnx") for name in GRAPHS),
    ]
    for name in GRAPHS:
        graph = half_bundle.graph(name, "fp16")
        path = half_bundle.graph_path(name, "fp16")
        assert path == half_bundle.root / "fp16" / f"{name}.onnx"
        assert (graph.name, graph.precision, graph.opset) == (name, "fp16", 20)
        if not name.startswith("stn-"):  # a transformer has six numbers, and stays as long
            assert path.stat().st_size < half_bundle.graph_path(name).stat().st_size
    figures = {(figure.precision, figure.graph, figure.output): figure for figure in half_bundle.parity}
    assert len(figures) == len(half_bundle.parity) == 2 * 10
    for (precision, graph, output), figure in figures.items():
        assert figure.passed
        if precision == "fp16" and output not in ("image", "theta"):  # it is not fp32 under another name
            assert figure.max_abs > figures["fp32", graph, output].max_abs


@pytest.mark.parametrize("name", GRAPHS)
def test_ports_are_those_of_fp32(half_bundle: Bundle, name: str) -> None:
    half, single = (onnx.load(half_bundle.graph_path(name, precision)) for precision in ("fp16", "fp32"))
    onnx.checker.check_model(half, full_check=True)
    assert list(half.graph.input) == list(single.graph.input)
    assert list(half.graph.output) == list(single.graph.output)


@pytest.mark.parametrize("name", GRAPHS)
def test_every_cast_is_explicit(half_bundle: Bundle, name: str) -> None:
    """Strongly typed: no node mixes floats but the sampler, whose heatmaps have 16 bits and whose theta 32."""
    proto = onnx.load(half_bundle.graph_path(name, "fp16"))
    types = dtypes(proto)
    for node in proto.graph.node:
        floats = [types[value] for value in (*node.input, *node.output) if types.get(value) in (FLOAT, HALF)]
        if node.op_type == "AffineGridSample":
            assert floats == [HALF, FLOAT, HALF]
        elif node.op_type != "Cast":
            assert len(set(floats)) <= 1, node


ISLANDS = {"Softmax", "ReduceSum", "ReduceMean", "Exp", "Pow", "Gemm", "Tanh", "Sigmoid", "Clip", "Round", "Div", "Sub"}
"""Expectations, distances, Gaussians, theta and the last levels."""


@pytest.mark.parametrize("name", GRAPHS)
def test_convolutions_have_16_bits_and_islands_32(half_bundle: Bundle, name: str) -> None:
    proto = onnx.load(half_bundle.graph_path(name, "fp16"))
    types, kinds = dtypes(proto), Counter()
    for node in proto.graph.node:
        kind = types[node.output[0]]
        if node.op_type == "Conv":
            kinds[kind] += 1
        if kind == HALF:
            assert node.op_type not in ISLANDS, node
    weights = [tensor.data_type for tensor in proto.graph.initializer if "weight" in tensor.name]
    single = {"extractor": ["keypoint_head", "looks.head"]}.get(name, [])
    assert kinds[HALF] == {"extractor": 13, "generator": 12}.get(name, 0)
    assert kinds[FLOAT] == (1 if name == "extractor" else 0)
    assert weights.count(FLOAT) == len(single)
    assert [types[each] for each in types if each.endswith("transformer.theta")] == [FLOAT] * name.startswith("stn")
    for part in single:
        (weight,) = [tensor for tensor in proto.graph.initializer if tensor.name.endswith(f"{part}.1.weight")
                     or tensor.name.endswith(f"{part}.weight")]  # fmt: skip
        assert weight.data_type == FLOAT


def test_fp32_graphs_have_no_16_bits(half_bundle: Bundle) -> None:
    for name in GRAPHS:
        assert HALF not in dtypes(onnx.load(half_bundle.graph_path(name))).values()


def test_graphs_compute_what_the_halved_model_computes(half_bundle: Bundle, checkpoint: Checkpoint) -> None:
    """On frames that the export has not seen, where the untrained model's numbers are larger; against PyTorch in
    float16 and in float32."""
    engine = load_engine("onnxruntime", half_bundle, "fp16")
    assert (engine.name, engine.precision) == ("onnxruntime", "fp16")
    frames = creature_frames(3, TINY.size, seed=9)
    models = {"float16": stages(halved(checkpoint.model)), "float32": stages(checkpoint.model)}
    looks = torch.from_numpy(half_bundle.appearance("b")).expand(3, -1, -1, -1)
    with torch.no_grad():
        keypoints, _, _ = models["float32"]["extractor"](torch.from_numpy(frames))
        _, warped = models["float32"]["stn-a2b"](keypoints)
        inputs = {"extractor": [torch.from_numpy(frames)], "stn-a2b": [keypoints], "generator": [warped, looks]}
        for graph, tensors in inputs.items():
            names = [spec.name for spec in half_bundle.signatures[graph].inputs]
            found = engine.run(graph, {name: tensor.numpy() for name, tensor in zip(names, tensors, strict=True)})
            for model in models.values():
                for (name, array), expected in zip(found.items(), model[graph](*tensors), strict=True):
                    scale = max(1.0, float(expected.abs().max()))
                    tolerance = tolerances.FP16_LEVELS if name == "image" else 2 * tolerances.FP16 * scale
                    assert max_error(array, expected) <= tolerance


def test_halved_is_a_copy_and_takes_bf16(checkpoint: Checkpoint) -> None:
    before = checkpoint.model.generator.head.weight.clone()
    frames = torch.from_numpy(creature_frames(1, TINY.size, seed=3))
    with torch.no_grad():
        exact = stages(checkpoint.model)["extractor"](frames)[0]
        errors = {
            dtype: float((stages(halved(checkpoint.model, dtype))["extractor"](frames)[0] - exact).abs().max())
            for dtype in (torch.float32, torch.float16, torch.bfloat16)
        }
    assert checkpoint.model.generator.head.weight.dtype == torch.float32
    assert torch.equal(checkpoint.model.generator.head.weight, before)
    assert errors[torch.float32] <= tolerances.REWRITE
    assert errors[torch.float32] < errors[torch.float16] < errors[torch.bfloat16] < 8 * tolerances.FP16


@pytest.mark.parametrize(
    ("graph", "weight", "value"), [("stn-a2b", "transformer.theta", 0.01), ("generator", "colours.0.bias", np.inf)]
)
def test_the_gate_refuses_a_broken_graph_in_fp16(
    half_checkpoint: Path, half_bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    graph: str, weight: str, value: float,
) -> None:  # fmt: skip
    given = iter([onnx.load(half_bundle.graph_path(entry.name, entry.precision)) for entry in half_bundle.graphs])
    turns: Counter[str] = Counter()

    def export_graph(name: str, *_: object) -> onnx.ModelProto:
        turns[name] += 1
        proto = next(given)
        return perturbed(proto, weight, value) if (name, turns[name]) == (graph, 2) else proto

    monkeypatch.setattr(export.checkpoint, "export_graph", export_graph)
    with pytest.raises(ParityError, match=rf"^{graph} \(onnxruntime, fp16\): \w+ differs from PyTorch's by"):
        export_bundle(half_checkpoint, tmp_path / "broken.jokr", precisions=["fp16"])
    assert list(tmp_path.iterdir()) == []


def test_floats_are_measured_against_an_outputs_largest_value(half_bundle: Bundle) -> None:
    """As floats are rounded; levels are levels."""
    assert (TOLERANCES["fp16"].floats, TOLERANCES["fp32"].floats) == (tolerances.FP16, tolerances.FP32)
    signature = half_bundle.signatures["extractor"]
    expected = {
        "keypoints": np.full((1, 10, 2), -0.5, np.float32),
        "confidence": np.zeros((1, 10), np.float32),
        "appearance": np.full((1, 3, 32, 32), -4, np.float32),
    }
    found = {precision: compare("extractor", "e", signature, expected, expected, precision)
             for precision in ("fp32", "fp16")}  # fmt: skip
    for precision, share in (("fp32", tolerances.FP32), ("fp16", tolerances.FP16)):
        assert [figure.tolerance for figure in found[precision]] == [share, share, 4 * share]
    images = {"image": np.zeros((1, 64, 64, 3), np.uint8)}
    (image,) = compare("generator", "e", half_bundle.signatures["generator"], images, images, "fp16")
    assert image.tolerance == tolerances.FP16_LEVELS


def test_unknown_precisions_are_refused_before_anything_is_done(half_checkpoint: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="unknown precision 'fp8'; choose from fp32, bf16, fp16, int8"):
        export_bundle(half_checkpoint, tmp_path / "x.jokr", precisions=["fp16", "fp8"])
    assert list(tmp_path.iterdir()) == []


def test_an_engine_says_which_precisions_it_has(half_bundle: Bundle, bundle: Bundle) -> None:
    assert {name: kind.precisions for name, kind in KINDS.items()} == {
        "openvino": ("int8", "bf16", "fp32"),
        "onnxruntime": ("fp32", "fp16"),
        "tensorrt": ("fp16", "fp32"),
        "onnxruntime-cuda": ("fp16", "fp32"),
    }
    assert load_engine("openvino", half_bundle).precision == "fp32"
    assert load_engine("onnxruntime", half_bundle).precision == "fp32"  # what is fastest on a processor
    with pytest.raises(UsageError, match="engine openvino runs int8, bf16 and fp32, not 'fp16'"):
        load_engine("openvino", half_bundle, "fp16")
    with pytest.raises(UsageError, match=r"tiny.jokr: has fp32, not fp16; `jokr export --precision fp16` adds it"):
        load_engine("onnxruntime", bundle, "fp16")


def test_verify_compares_every_precision_that_an_engine_runs(half_bundle: Bundle) -> None:
    figures = verify_bundle(half_bundle, "onnxruntime")
    require_parity(figures)
    assert [figure.precision for figure in figures] == ["fp32"] * 10 + ["fp16"] * 10
    assert {figure.precision for figure in verify_bundle(half_bundle, "openvino")} == {"fp32"}


def edit(root: Path, change: object) -> None:
    manifest = root / "manifest.json"
    values = json.loads(manifest.read_text())
    change(values)  # type: ignore[operator]
    manifest.write_text(json.dumps(values))


def test_a_precision_is_whole_or_refused(half_copy: Path) -> None:
    edit(half_copy, lambda values: values["graphs"].pop())
    with pytest.raises(BundleError, match="the manifest lacks the graph generator in fp16; export again"):
        open_bundle(half_copy)


def test_fp32_is_always_there(half_copy: Path) -> None:
    edit(half_copy, lambda values: values.update(graphs=values["graphs"][4:]))
    with pytest.raises(BundleError, match="the manifest lacks the graph extractor in fp32; export again"):
        open_bundle(half_copy)


def test_a_graph_is_there_once(half_copy: Path) -> None:
    edit(half_copy, lambda values: values["graphs"].append(values["graphs"][5]))
    with pytest.raises(BundleError, match="the manifest repeats the graph stn-a2b in fp16; export again"):
        open_bundle(half_copy)


def test_hashes_of_fp16_graphs_are_checked(half_copy: Path) -> None:
    path = half_copy / "fp16" / "stn-b2a.onnx"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(BundleError, match="fp16/stn-b2a.onnx: its SHA-256 differs"):
        open_bundle(half_copy)


def test_the_command_line_shows_and_verifies_both(exported: tuple[Path, dict[str, Any]]) -> None:
    out, told = exported
    assert [figure["precision"] for figure in told["parity"]] == ["fp32"] * 10 + ["fp16"] * 10
    assert json.loads(call("info", out, "--json"))["precisions"] == ["fp32", "fp16"]
    shown = call("info", out)
    assert "fp32, fp16" in shown
    assert shown.split().count("fp16") == 1 + 4 + 10
    rows = json.loads(call("verify", out, "--json"))["parity"]
    assert {(row["engine"], row["precision"]) for row in rows} == {
        ("openvino", "fp32"), ("onnxruntime", "fp32"), ("onnxruntime", "fp16"),
    }  # fmt: skip
    only = CliRunner().invoke(main, ["verify", str(out), "--engine", "openvino"])
    assert only.stderr == "fp16: not compared, for openvino cannot run it\n"


def test_run_and_evaluate_take_a_precision(exported: tuple[Path, dict[str, Any]], tmp_path: Path) -> None:
    clip, made = tmp_path / "clip.mp4", tmp_path / "out.mp4"
    frames = creature_frames(3, TINY.size, seed=1)
    write_video(clip, [Frame(rgb, index, Fraction(1, 10)) for index, rgb in enumerate(frames)])
    options = ["run", exported[0], clip, "-o", made, "--engine", "onnxruntime", "--overwrite", "--json"]
    told = {precision: json.loads(call(*options, *more)) for precision, more in
            {"fp32": [], "fp16": ["--precision", "fp16"]}.items()}  # fmt: skip
    assert {precision: (run["precision"], run["frames"]) for precision, run in told.items()} == {
        "fp32": ("fp32", 3),
        "fp16": ("fp16", 3),
    }
    for command in (options[:5], ["evaluate", exported[0], "--data", "puppets"]):
        refused = CliRunner().invoke(main, [*map(str, command), "--engine", "openvino", "--precision", "fp16"])
        assert refused.exit_code == 2
        runs = "engine openvino runs int8, bf16 and fp32, not 'fp16'"
        assert refused.stderr == f"jokr: error: {runs}; choose another --precision\n"
