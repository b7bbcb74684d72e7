"""Building TensorRT plans, on doubles of TensorRT and CUDA: what the builder is asked, when, what is kept and said."""

import hashlib
import json
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import pytest

from jokr_rt.bundle import open_bundle, stored_file
from jokr_rt.engines import Monitor, engine_module
from jokr_rt.engines.tensorrt_cache import BuildOptions
from jokr_rt.errors import EngineError, EngineMissingError, OutputError
from tests.cuda_double import CudaDouble
from tests.tensorrt_double import Double, ParserFault

GRAPHS = ["extractor", "stn-a2b", "stn-b2a", "generator"]
FIRST = "tensorrt: building extractor, stn-a2b, stn-b2a, generator in fp32 for Double of a GPU: not built yet"

pytestmark = pytest.mark.usefixtures("gpu")


class Heard(Monitor):
    def __init__(self) -> None:
        self.words: list[str] = []
        self.steps: dict[str, list[tuple[int, int]]] = {}

    def say(self, words: str) -> None:
        self.words.append(words)

    def step(self, task: str, done: int, total: int) -> None:
        self.steps.setdefault(task, []).append((done, total))


def build(
    root: Path, monitor: Monitor | None = None, with_layers: bool = False, **options: Any
) -> list[dict[str, Any]]:
    plans: list[dict[str, Any]] = engine_module("tensorrt").build_plans(
        open_bundle(root), "fp32", BuildOptions(**options), monitor or Heard(), with_layers
    )
    assert [plan["graph"] for plan in plans] == GRAPHS
    return plans


def built(plans: list[dict[str, Any]]) -> list[str]:
    return [plan["graph"] for plan in plans if plan["built"]]


def said(root: Path, **options: Any) -> list[str]:
    monitor = Heard()
    build(root, monitor, **options)
    return monitor.words


def refusal(root: Path, cuda: CudaDouble, **options: Any) -> str:
    with pytest.raises(EngineError) as caught:
        build(root, **options)
    assert "\n" not in str(caught.value)
    assert cuda.alive() == []
    return str(caught.value)


def plan_of(root: Path, graph: str) -> Path:
    return root / "engines" / f"{graph}-fp32.plan"


def change_graph(root: Path, graph: str, change: Callable[[onnx.ModelProto], object]) -> None:
    """And put its hash in the manifest right."""
    path, manifest = root / f"{graph}.onnx", root / "manifest.json"
    model, before = onnx.load(path), stored_file(root, path.name).sha256
    change(model)
    onnx.save(model, path)
    manifest.write_text(manifest.read_text().replace(before, stored_file(root, path.name).sha256))


def sampler_node(model: onnx.ModelProto) -> onnx.NodeProto:
    (node,) = [node for node in model.graph.node if node.op_type == "AffineGridSample"]
    return node


def hide_plugin(model: onnx.ModelProto) -> None:
    """Without this attribute TensorRT takes the node's function, and says nothing."""
    node = sampler_node(model)
    (attribute,) = [attribute for attribute in node.attribute if attribute.name == "plugin_namespace"]
    node.attribute.remove(attribute)


def test_what_the_builder_is_asked_for(bundle_copy: Path, tensorrt_double: Double) -> None:
    trt = engine_module("tensorrt").trt
    build(bundle_copy, max_batch=3, workspace=256, optimization_level=5, sampler="native")
    asked = tensorrt_double.arguments
    strongly_typed = 1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED)
    assert asked("Builder.create_network") == [{"flags": strongly_typed}] * 4
    workspace = {"pool": trt.MemoryPoolType.WORKSPACE, "pool_size": 256 << 20}
    assert asked("IBuilderConfig.set_memory_pool_limit") == [workspace] * 4
    assert asked("IBuilderConfig.clear_flag") == [{"flag": trt.BuilderFlag.TF32}] * 4
    assert asked("IBuilderConfig.set_flag") == []
    assert asked("IBuilderConfig.builder_optimization_level=") == [{"value": 5}] * 4
    assert asked("IBuilderConfig.max_aux_streams=") == [{"value": 0}] * 4
    assert asked("IBuilderConfig.profiling_verbosity=") == [{"value": trt.ProfilingVerbosity.DETAILED}] * 4
    assert len(asked("IBuilderConfig.add_optimization_profile")) == 4
    shapes = [
        (profile["input"], [tuple(profile[kind]) for kind in ("min", "opt", "max")])
        for profile in asked("IOptimizationProfile.set_shape")
    ]
    keypoints = ("keypoints", [(1, 10, 2), (1, 10, 2), (3, 10, 2)])
    assert shapes == [
        ("frame", [(1, 64, 64, 3), (1, 64, 64, 3), (3, 64, 64, 3)]),
        keypoints,
        keypoints,
        ("warped", [(1, 10, 32, 32), (1, 10, 32, 32), (3, 10, 32, 32)]),
        ("appearance", [(1, 3, 32, 32), (1, 3, 32, 32), (3, 3, 32, 32)]),
    ]


def test_plans_are_built_once(bundle_copy: Path, tensorrt_double: Double, gpu: CudaDouble) -> None:
    first = Heard()
    plans = build(bundle_copy, first)
    assert built(plans) == GRAPHS
    assert first.words == [FIRST]
    files = sorted(path.name for path in (bundle_copy / "engines").iterdir())
    assert files == sorted([*(f"{graph}-fp32.plan" for graph in GRAPHS), "manifest.json", "timing.cache"])
    for plan in plans:
        content = Path(plan["file"]).read_bytes()
        entry = json.loads((bundle_copy / "engines" / "manifest.json").read_text())["plans"][Path(plan["file"]).name]
        assert (entry["sha256"], plan["bytes"]) == (hashlib.sha256(content).hexdigest(), len(content))
        assert entry["key"] == plan["key"]
    tensorrt_double.calls.clear()
    again = Heard()
    assert built(build(bundle_copy, again)) == again.words == []
    assert "Builder" not in {call.name for call in tensorrt_double.calls}
    assert gpu.alive() == []
    tensorrt_double.calls.clear()  # they hold what they returned
    assert [tensorrt_double.alive(kind) for kind in ("Builder", "INetworkDefinition", "Runtime", "ICudaEngine")] == [
        0
    ] * 4


def test_progress_never_goes_back_and_ends(bundle_copy: Path, tensorrt_double: Double) -> None:
    tensorrt_double.phases = (("Building", 4), ("Tactics", 3), ("Timing", 2))
    monitor = Heard()
    build(bundle_copy, monitor)
    assert list(monitor.steps) == [f"building {graph}" for graph in GRAPHS]
    for steps in monitor.steps.values():
        done = [step for step, _ in steps]
        assert {total for _, total in steps} == {1000}
        assert done == sorted(done)
        # Half of a timing phase is half of the first tactic, of three in the first of four steps.
        assert done[:2] == [1000 // 24, 1000 // 12]
        assert done[-1] == 1000


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"max_batch": 2}, "profile was batch 1 to 8, tuned for 1, is batch 1 to 2, tuned for 1"),
        ({"workspace": 99}, "workspace was 1024 MiB, is 99 MiB"),
        ({"optimization_level": 0}, "optimization level was 3, is 0"),
    ],
)
def test_other_options_build_all_anew(bundle_copy: Path, options: dict[str, Any], words: str) -> None:
    build(bundle_copy)
    assert said(bundle_copy, **options) == [FIRST.replace("not built yet", words)]
    assert said(bundle_copy, **options) == []


def test_another_sampler_builds_only_what_samples(bundle_copy: Path) -> None:
    before = {plan["graph"]: Path(plan["file"]).read_bytes() for plan in build(bundle_copy)}
    plans = build(bundle_copy, sampler="native")
    assert built(plans) == ["stn-a2b", "stn-b2a"]
    assert {plan["reason"] for plan in plans if plan["built"]} == {"sampler was auto, is native"}
    assert plan_of(bundle_copy, "stn-a2b").read_bytes() != before["stn-a2b"]


def test_another_machine_builds_all_anew(bundle_copy: Path, gpu: CudaDouble, monkeypatch: pytest.MonkeyPatch) -> None:
    build(bundle_copy)
    trt = engine_module("tensorrt").trt
    changes: dict[str, Callable[[], object]] = {
        "GPU was Double of a GPU, is NVIDIA L4": lambda: setattr(gpu, "name", "NVIDIA L4"),
        "compute capability was 9.0, is 8.9": lambda: setattr(gpu, "capability", (8, 9)),
        "driver was CUDA 13.0, is CUDA 12.8": lambda: setattr(gpu, "version", 12080),
        f"TensorRT was {trt.__version__}, is 10.9.0.34": lambda: monkeypatch.setattr(trt, "__version__", "10.9.0.34"),
    }
    for reason, change in changes.items():
        change()
        words = said(bundle_copy)
        assert words == [f"{FIRST.split(' for ')[0]} for {gpu.name}: {reason}"]
        assert said(bundle_copy) == []


def test_another_kernel_builds_what_samples_and_drops_the_timing_cache(
    bundle_copy: Path, tensorrt_double: Double, monkeypatch: pytest.MonkeyPatch
) -> None:
    """TensorRT's timing cache does not know a plugin's kernel: it would give the old one's times to the new one."""
    build(bundle_copy)
    given = [
        call["serialized_timing_cache"] for call in tensorrt_double.arguments("IBuilderConfig.create_timing_cache")
    ]
    assert given[0] == b""
    assert all(len(later) > len(earlier) for earlier, later in zip(given, given[1:], strict=False))  # each adds to it
    kept = (bundle_copy / "engines" / "timing.cache").read_bytes()
    tensorrt_double.calls.clear()
    build(bundle_copy, max_batch=1)
    given = [
        call["serialized_timing_cache"] for call in tensorrt_double.arguments("IBuilderConfig.create_timing_cache")
    ]
    assert given[0] == kept

    tensorrt_double.calls.clear()
    monkeypatch.setattr("jokr_rt.engines.tensorrt_machine._kernel_hash", lambda: "cd" * 32)
    words = said(bundle_copy, max_batch=1)
    assert words[0].startswith("tensorrt: building stn-a2b, stn-b2a in fp32 for Double of a GPU: kernel was ")
    assert words[0].endswith(", is cdcdcdcdcdcd")
    given = [
        call["serialized_timing_cache"] for call in tensorrt_double.arguments("IBuilderConfig.create_timing_cache")
    ]
    assert given[0] == b""


def test_a_timing_cache_that_tensorrt_refuses_is_left_out(bundle_copy: Path, tensorrt_double: Double) -> None:
    tensorrt_double.timing_cache = ["of another device"]
    build(bundle_copy)
    asked = tensorrt_double.arguments("IBuilderConfig.set_timing_cache")
    assert [call["ignore_mismatch"] for call in asked] == [False] * 5
    given = [
        call["serialized_timing_cache"] for call in tensorrt_double.arguments("IBuilderConfig.create_timing_cache")
    ]
    assert given[:2] == [b"", b""]


def test_a_changed_graph_is_built_anew(bundle_copy: Path) -> None:
    build(bundle_copy)
    change_graph(bundle_copy, "generator", lambda model: onnx.helper.set_model_props(model, {"jokr.graph": "new"}))
    plans = build(bundle_copy)
    assert built(plans) == ["generator"]
    assert plans[3]["reason"].startswith("graph was ")


def test_a_plan_whose_hash_differs_is_never_loaded(bundle_copy: Path, tensorrt_double: Double) -> None:
    build(bundle_copy)
    plan_of(bundle_copy, "stn-a2b").write_bytes(b"somebody else's machine code")
    tensorrt_double.calls.clear()
    words = said(bundle_copy)
    assert words == [
        "tensorrt: building stn-a2b in fp32 for Double of a GPU: the SHA-256 of stn-a2b-fp32.plan is not the manifest's"
    ]
    loaded = [call["serialized_engine"] for call in tensorrt_double.arguments("Runtime.deserialize_cuda_engine")]
    assert len(loaded) == 4
    assert b"somebody else's machine code" not in loaded


def test_a_plan_that_does_not_deserialise_is_built_anew(bundle_copy: Path, tensorrt_double: Double) -> None:
    build(bundle_copy)
    tensorrt_double.deserialize = ["Error Code 1: Serialization (Version tag does not match)"]
    plans = build(bundle_copy)
    assert built(plans) == ["extractor"]
    assert plans[0]["reason"] == (
        "extractor-fp32.plan cannot be deserialised: Error Code 1: Serialization (Version tag does not match)"
    )


def test_a_new_plan_that_does_not_deserialise_is_an_error(
    bundle_copy: Path, tensorrt_double: Double, gpu: CudaDouble
) -> None:
    tensorrt_double.deserialize = ["no such GPU"]
    assert refusal(bundle_copy, gpu) == (
        "tensorrt: extractor was built, and cannot be used: extractor-fp32.plan cannot be deserialised: no such GPU"
    )


def test_a_parser_error_names_node_operator_and_message(
    bundle_copy: Path, tensorrt_double: Double, gpu: CudaDouble
) -> None:
    fault = ParserFault("Unsupported\n padding", "/conv1/Conv", "Conv", ("inner", "outer"))
    tensorrt_double.parser = [fault, ParserFault("and more"), ParserFault("and more")]
    assert refusal(bundle_copy, gpu) == (
        "tensorrt: extractor cannot be parsed: Conv '/conv1/Conv' in inner in outer: Unsupported padding "
        "(and 2 more errors)"
    )
    tensorrt_double.parser = [ParserFault("the protobuf cannot be decoded")]
    assert refusal(bundle_copy, gpu) == ("tensorrt: extractor cannot be parsed: model: the protobuf cannot be decoded")
    assert not list((bundle_copy / "engines").glob("*.plan"))


def test_out_of_memory_says_what_to_do_and_keeps_what_was_built(
    bundle_copy: Path, tensorrt_double: Double, gpu: CudaDouble
) -> None:
    class Third(Heard):
        def step(self, task: str, done: int, total: int) -> None:
            if task == "building stn-a2b" and done == total:
                tensorrt_double.build = ["Error Code 2: OutOfMemory (Requested size was 4294967296 bytes.)"]

    with pytest.raises(EngineError) as caught:
        build(bundle_copy, Third())
    assert str(caught.value) == (
        "tensorrt: stn-b2a in fp32 cannot be built: Error Code 2: OutOfMemory (Requested size was 4294967296 bytes.); "
        "free some on the GPU, or build with a smaller --workspace or --max-batch"
    )
    assert gpu.alive() == []
    assert built(build(bundle_copy)) == ["stn-b2a", "generator"]


def test_a_build_that_fails_for_no_reason_given(bundle_copy: Path, tensorrt_double: Double, gpu: CudaDouble) -> None:
    tensorrt_double.phases = ()
    tensorrt_double.build = [""]
    assert refusal(bundle_copy, gpu).startswith("tensorrt: extractor in fp32 cannot be built: ")


def test_ctrl_c_ends_a_build_and_keeps_what_was_built(bundle_copy: Path, gpu: CudaDouble) -> None:
    class Interrupting(Heard):
        def step(self, task: str, done: int, total: int) -> None:
            super().step(task, done, total)
            if task == "building stn-b2a":
                signal.raise_signal(signal.SIGINT)

    monitor = Interrupting()
    with pytest.raises(KeyboardInterrupt):
        build(bundle_copy, monitor)
    assert len(monitor.steps["building stn-b2a"]) == 1  # TensorRT was told to stop at once
    assert "building generator" not in monitor.steps
    assert gpu.alive() == []
    assert built(build(bundle_copy)) == ["stn-b2a", "generator"]


def test_the_plugin_is_taken_and_counted(bundle_copy: Path) -> None:
    for sampler in ("auto", "plugin"):
        plans = build(bundle_copy, with_layers=True, sampler=sampler)
        assert [plan["sampler"] for plan in plans] == ["none", "plugin", "plugin", "none"]
        kinds = [[layer["LayerType"] for layer in plan["layers"]] for plan in plans]
        assert [layers.count("PluginV3") for layers in kinds] == [0, 1, 1, 0]
        assert not any("GridSample" in layers for layers in kinds)
    assert [plan["sampler"] for plan in build(bundle_copy, sampler="plugin")] == ["none", "plugin", "plugin", "none"]


def test_native_has_the_body_in_tensorrts_own_layers(bundle_copy: Path, tensorrt_double: Double) -> None:
    plans = build(bundle_copy, with_layers=True, sampler="native")
    assert [plan["sampler"] for plan in plans] == ["none", "native", "native", "none"]
    kinds = [[layer["LayerType"] for layer in plan["layers"]] for plan in plans]
    assert [layers.count("GridSample") for layers in kinds] == [0, 1, 1, 0]
    assert not any("PluginV3" in layers for layers in kinds)
    for call in tensorrt_double.arguments("OnnxParser.parse"):
        model = onnx.load_model_from_string(call["model"])
        assert not model.functions
        assert {node.domain for node in model.graph.node} <= {"", "ai.onnx"}


def test_a_silent_decomposition_is_an_error_or_announced(bundle_copy: Path, gpu: CudaDouble) -> None:
    change_graph(bundle_copy, "stn-a2b", hide_plugin)
    reason = "TensorRT's parser made 0 plugin layers of 1 AffineGridSample nodes; use --sampler native"
    message = refusal(bundle_copy, gpu, sampler="plugin")
    assert message == f"tensorrt: stn-a2b cannot have the sampler plugin: {reason}"
    monitor = Heard()
    plans = build(bundle_copy, monitor)
    assert [plan["sampler"] for plan in plans] == ["none", "native", "plugin", "none"]
    assert monitor.words[-1] == f"tensorrt: stn-a2b gets the sampler native instead of plugin: {reason}"


def test_no_kernel_for_this_gpu(bundle_copy: Path, gpu: CudaDouble) -> None:
    """With the real NVRTC, which knows no GPU that old."""
    gpu.capability = (3, 5)
    message = refusal(bundle_copy, gpu, sampler="plugin")
    assert message.startswith(
        "tensorrt: stn-a2b cannot have the sampler plugin: no kernel for a GPU of compute capability"
    )
    words = said(bundle_copy)
    assert [line.split(": no kernel")[0] for line in words[1:]] == [
        "tensorrt: stn-a2b gets the sampler native instead of plugin",
        "tensorrt: stn-b2a gets the sampler native instead of plugin",
    ]
    assert said(bundle_copy, sampler="native")[1:] == []  # it was asked for


@pytest.mark.parametrize("version", ["10.8.0.43", "8.6.1", "12.0.0.1"])
def test_a_tensorrt_of_another_time(
    bundle_copy: Path, gpu: CudaDouble, monkeypatch: pytest.MonkeyPatch, version: str
) -> None:
    monkeypatch.setattr(engine_module("tensorrt").trt, "__version__", version)
    assert refusal(bundle_copy, gpu) == (
        f"TensorRT {version} is not one of 10.9 to 11.x: pip install 'jokr-rt[tensorrt]'"
    )


def test_where_plans_cannot_be_kept_nothing_is_built(
    bundle_copy: Path, tensorrt_double: Double, gpu: CudaDouble
) -> None:
    (bundle_copy / "engines").write_text("a file")
    with pytest.raises(
        OutputError, match=r"engines: engines cannot be kept there \(File exists\); make it writable, or"
    ):
        build(bundle_copy)
    assert "Builder" not in {call.name for call in tensorrt_double.calls}
    assert gpu.alive() == []


def test_a_graph_that_changed_since_the_bundle_was_opened(bundle_copy: Path, gpu: CudaDouble) -> None:
    opened = open_bundle(bundle_copy)
    with (bundle_copy / "stn-a2b.onnx").open("ab") as file:
        file.write(b"\0")
    with pytest.raises(ValueError, match=r"stn-a2b\.onnx: changed since the bundle was opened; run it again"):
        engine_module("tensorrt").build_plans(opened, "fp32", BuildOptions(), Heard())
    assert gpu.alive() == []


def test_what_tensorrt_prints_is_no_output_of_a_command(capfd: pytest.CaptureFixture[str]) -> None:
    from jokr_rt.engines.tensorrt_callbacks import stdout_to_stderr

    with stdout_to_stderr():
        os.write(1, b"[TRT] [W] experimental\n")
    os.write(1, b"{}\n")
    assert capfd.readouterr() == ("{}\n", "[TRT] [W] experimental\n")


def test_a_build_without_onnx(bundle_copy: Path, gpu: CudaDouble, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was built runs without it."""
    build(bundle_copy)
    monkeypatch.setitem(sys.modules, "onnx.inliner", None)
    assert said(bundle_copy) == []
    for sampler in ("plugin", "native"):
        message = refusal(bundle_copy, gpu, sampler=sampler)
        assert "building needs the package onnx, which cannot be imported (" in message
        assert message.endswith("): pip install 'jokr-rt[tensorrt]'")


def test_no_gpu(bundle_copy: Path, gpu: CudaDouble) -> None:
    gpu.fail("cuInit", "CUDA_ERROR_NO_DEVICE")
    with pytest.raises(EngineMissingError, match="no NVIDIA GPU 0 here"):
        build(bundle_copy)
    assert not (bundle_copy / "engines").exists()
