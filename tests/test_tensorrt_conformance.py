"""Our use of TensorRT against its real bindings: the newest, the last of version 10, and, but for plugins, the oldest.

Each version is loaded in a process of its own. Nothing here needs a GPU or libnvinfer: see tests/tensorrt_bindings.py.
"""

import inspect
import re
import shutil
from itertools import product
from pathlib import Path
from typing import Any

import onnx
import pytest

from jokr_rt.bundle import Bundle
from tests import tensorrt_bindings, tensorrt_names
from tests.tensorrt_bindings import NEWEST, VERSIONS, WITH_REGISTRY
from tests.tensorrt_double import DOUBLED, Double
from tests.tensorrt_signatures import bind, signatures
from trt_plugins.kernel import DEPTHS, kernel_name, launch

# Attributes that TensorRT's objects have too, but that our sources take of others.
OF_OTHERS = {"dtype", "engine", "log", "nbytes", "node"}

USED = {path.name: tensorrt_names.names(path.read_text()) for path in tensorrt_names.sources()}


@pytest.fixture(scope="module", params=WITH_REGISTRY)
def built(request: pytest.FixtureRequest) -> Any:
    """What tests.tensorrt_aot finds of the plugin in a version."""
    return tensorrt_bindings.run(request.param, "tests.tensorrt_aot")


@pytest.fixture(scope="module", params=VERSIONS)
def driven(request: pytest.FixtureRequest, tiny_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """What tests.tensorrt_drive finds of our engine in a version."""
    copy = shutil.copytree(tiny_bundle, tmp_path_factory.mktemp(request.param) / "driven.jokr")
    return tensorrt_bindings.run(request.param, "tests.tensorrt_drive", str(copy))


@pytest.mark.parametrize("version", VERSIONS)
def test_every_name_we_use_exists(version: str) -> None:
    assert {"tensorrt_build.py", "tensorrt.py", "plugin.py"} <= USED.keys()
    assert {"tensorrt.MemoryPoolType.WORKSPACE", "tensorrt.plugin.aot_impl"} <= set().union(*USED.values())
    wrong = {f"{name}.no_such_member" for name in ("tensorrt", "tensorrt.BuilderFlag", "tensorrt.plugin")}
    wrong |= {"tensorrt.BuilderFlag.FP16"} if version == NEWEST else {"tensorrt.IBuilderConfig.build_route"}
    lacking = tensorrt_bindings.run(version, "tests.tensorrt_names", *set().union(*USED.values()), *wrong)
    assert set(lacking) == wrong


def test_the_sweep_sees_every_way_to_a_name() -> None:
    source = """
import tensorrt as t, tensorrt.plugin as p, tensorrt.other
from tensorrt import Builder as B
from tensorrt.plugin import register
def f(x: t.A) -> None:
    t.B.c(p.d.e, tensorrt.f, B.g, x.h.i, [t][0].j)
"""
    assert tensorrt_names.names(source) >= {
        "tensorrt.A", "tensorrt.B.c", "tensorrt.plugin.d.e", "tensorrt.f", "tensorrt.Builder.g",
        "tensorrt.plugin.register", "tensorrt.plugin",
    }  # fmt: skip
    assert not any("h" in name.split(".") for name in tensorrt_names.names(source))
    assert {"h", "i", "j"} <= tensorrt_names.attributes(source)


@pytest.mark.parametrize(
    ("dtype", "kind", "align"), [*product(["float32"], ["FLOAT"], [0, 1]), *product(["float16"], ["HALF"], [0, 1])]
)
def test_the_registry_makes_the_plugin_ahead_of_time(built: Any, dtype: str, kind: str, align: int) -> None:
    tactics = built[f"{kind} {align}"]
    assert [entry["tactic"] for entry in tactics] == list(DEPTHS)
    for entry in tactics:
        assert entry["plugin"] == "_TemplateAOTPlugin"
        assert entry["types"] == [kind]  # as the heatmaps
        assert entry["offered"] == ["FLOAT", "FLOAT", "FLOAT", "HALF", "FLOAT", "HALF"]  # theta stays float32
        assert entry["kernel"] == kernel_name(dtype, align)


@pytest.mark.parametrize("kind", ["FLOAT", "HALF"])
def test_ptx_has_the_kernel_with_inputs_extras_and_output(built: Any, kind: str) -> None:
    for entry in built[f"{kind} 0"]:
        assert ".target sm_90" in entry["ptx"]  # of the last registration
        (parameters,) = re.findall(rf"\.visible \.entry {entry['kernel']}\((.*?)\)", entry["ptx"], re.DOTALL)
        assert re.findall(r"\.param \.(\w+)", parameters) == ["u64", "u64", "u32", "u32", "u32", "u64"]


@pytest.mark.parametrize("kind", ["FLOAT", "HALF"])
def test_symbolic_launch_parameters_are_those_of_numbers(built: Any, kind: str) -> None:
    for entry in built[f"{kind} 0"]:
        for sizes in entry["sizes"]:
            batch, channels, height, width = shape = sizes["input"]
            grid, block = launch(shape, entry["tactic"])
            assert sizes["launch"] == [*grid, *block]
            assert sizes["shared"] == 0
            assert sizes["output"] == shape
            assert sizes["extras"] == [channels, height, width]
            assert sizes["extra_types"] == ["INT32"] * 3
            assert grid[0] * block[0] >= width > (grid[0] - 1) * block[0]
            assert grid[1] * block[1] >= height > (grid[1] - 1) * block[1]
            assert grid[2] == batch


def test_the_engine_calls_each_version_as_it_can_be_called(driven: Any) -> None:
    assert driven["error"] == "tensorrt: extractor cannot be parsed: Warp 'node_7' in outer: no importer"
    assert {"Builder.build_serialized_network", "IExecutionContext.execute_async_v3"} <= set(driven["names"])
    assert len(driven["differences"]) > 10
    assert max(driven["differences"]) == 0  # both sides compute with ONNX Runtime
    assert driven["left"] == []  # on the device, or in pinned memory


def test_the_engine_has_the_sampler_that_was_asked_for(driven: Any) -> None:
    samplers = {"PluginV3", "GridSample"} & set(driven["layers"]["stn-a2b"])
    assert samplers == {"PluginV3" if driven["version"] in WITH_REGISTRY else "GridSample"}


def test_every_attribute_we_use_of_an_object_of_tensorrt_was_used(driven: Any, tensorrt_double: Double) -> None:
    """What runs on no path here is checked against no signature."""
    members = {name for kind in DOUBLED for name in dir(getattr(tensorrt_bindings.load(NEWEST), kind.__name__))}
    used = set().union(*(tensorrt_names.attributes(path.read_text()) for path in tensorrt_names.sources()))
    driven_here = {name.rstrip("=").split(".")[-1] for name in driven["names"]}
    assert {name for name in used & members if not name.startswith("_")} - driven_here <= OF_OTHERS
    assert not OF_OTHERS & driven_here


@pytest.mark.parametrize("graph", ["extractor", "generator"])
def test_uint8_is_cast_at_the_border_and_nowhere_else(bundle: Bundle, graph: str) -> None:
    """TensorRT has uint8 for inputs and outputs only, cast from and to float32 and float16: see trt.DataType."""
    inferred = onnx.shape_inference.infer_shapes(onnx.load(bundle.graph_path(graph))).graph
    values = [*inferred.input, *inferred.output, *inferred.value_info]
    types = {value.name: value.type.tensor_type.elem_type for value in values}
    outside = {value.name for value in (*inferred.input, *inferred.output)}
    bytes_ = {name for name, kind in types.items() if kind == onnx.TensorProto.UINT8}
    assert bytes_
    assert bytes_ <= outside
    for node in inferred.node:
        if bytes_ & {*node.input, *node.output}:
            assert node.op_type == "Cast"
            (other,) = {*node.input, *node.output} - bytes_
            assert types[other] in (onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16)


@pytest.mark.parametrize(
    ("args", "kwargs"),
    [
        (("ERROR", "text"), {}),
        (("ERROR",), {"msg": "text"}),
        ((), {"msg": "text", "severity": "ERROR"}),
        (("ERROR",), {"message": "text"}),
        (("ERROR", "text", "more"), {}),
        (("ERROR",), {}),
        ((2, "text"), {}),
        (("ERROR", 2), {}),
    ],
)
def test_the_double_accepts_what_pybind11_accepts(tensorrt_double: Double, args: Any, kwargs: Any) -> None:
    import tensorrt as trt

    def severity(value: Any) -> Any:
        return trt.ILogger.Severity.VERBOSE if value == "ERROR" else value

    args, kwargs = tuple(map(severity, args)), {key: severity(value) for key, value in kwargs.items()}
    logger = trt.Logger()
    try:
        logger.log(*args, **kwargs)
        accepted = True
    except TypeError:
        accepted = False
    try:
        bind("log", signatures(trt.Logger.log), (logger, *args), kwargs, trt)
        allowed = True
    except TypeError:
        allowed = False
    assert allowed == accepted


def test_the_double_converts_dims_as_pybind11_does(tensorrt_double: Double) -> None:
    import numpy as np
    import tensorrt as trt

    setter = signatures(trt.PluginTensorDesc.dims.fset)
    desc = trt.PluginTensorDesc()
    for value in (
        (1, 2),
        [3],
        trt.Dims([4, 5]),
        trt.Dims4(1, 2, 3, 4),
        (np.int64(6),),
        (),
        "12",
        7,
        (1.5,),
        ("a",),
        [0] * 9,
        None,
    ):
        try:
            desc.dims = value
            accepted = True
        except (TypeError, ValueError):
            accepted = False
        try:
            bind("dims", setter, (desc, value), {}, trt)
            allowed = True
        except TypeError:
            allowed = False
        assert allowed == accepted, value


def test_the_double_refuses_what_the_bindings_lack(tensorrt_double: Double) -> None:
    import tensorrt as trt

    config = trt.Builder(trt.Logger()).create_builder_config()
    with pytest.raises(AttributeError, match="'tensorrt.IBuilderConfig' object has no attribute 'set_flagg'"):
        config.set_flagg(trt.BuilderFlag.TF32)
    with pytest.raises(AttributeError, match="FP16"):
        config.set_flag(trt.BuilderFlag.FP16)  # gone in version 11
    with pytest.raises(AttributeError, match="max_workspace_size"):
        config.max_workspace_size = 1 << 30
    with pytest.raises(AttributeError, match="num_optimization_profiles"):
        config.num_optimization_profiles = 1
    for call in (
        lambda: config.set_flag(),
        lambda: config.set_flag(1),
        lambda: config.set_flag(trt.BuilderFlag.TF32, True),
        lambda: config.set_flag(name=trt.BuilderFlag.TF32),
        lambda: config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, "1 GiB"),
        lambda: config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, 1.5),
        lambda: setattr(config, "max_aux_streams", "none"),
        lambda: trt.Builder(),
        lambda: trt.Runtime("log"),
        lambda: trt.IBuilderConfig(),
    ):
        with pytest.raises(TypeError):
            call()
    with pytest.raises(NotImplementedError, match="does not simulate IBuilderConfig.reset"):
        config.reset()
    assert tensorrt_double.arguments("IBuilderConfig.set_flag") == []


@pytest.mark.parametrize("behaviour", DOUBLED, ids=lambda kind: kind.__name__)
def test_the_double_simulates_nothing_else_than_the_newest_bindings(behaviour: type, tensorrt_double: Double) -> None:
    real = getattr(tensorrt_bindings.load(NEWEST), behaviour.__name__)
    for name, member in vars(behaviour).items():
        if name.startswith("_") and name != "__init__":
            continue
        if isinstance(member, property):
            assert isinstance(getattr(real, name), property), name
            continue
        theirs = {parameter for overload in signatures(getattr(real, name)) for parameter in overload.parameters}
        assert set(inspect.signature(member).parameters) <= theirs, name


def test_absent_bindings_say_how_to_get_them() -> None:
    with pytest.raises(
        pytest.fail.Exception, match=r"no TensorRT 0\.0 bindings in \.venv/tensorrt-0\.0: `make test` sets"
    ):
        tensorrt_bindings.folder("0.0")
