"""The engines compute what PyTorch does, and refuse what they cannot run, in one line."""

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest

from jokr_rt.bundle import Arrays, Bundle, open_bundle, stored_file
from jokr_rt.engines import ENGINES, Engine, StagedEngine, installed_engines, load_engine
from jokr_rt.errors import BundleError, EngineError, EngineMissingError, UsageError
from jokr_rt.training.checkpoint import load_checkpoint
from jokr_rt.training.engine import TorchEngine
from tests.tiny import TINY, creature_frames
from tests.tolerances import EXACT, FP32, LEVELS

GRAPHS = ("extractor", "stn-a2b", "stn-b2a", "generator")


@pytest.fixture(scope="module")
def engines(tiny_bundle: Path, tiny_checkpoint: Path) -> dict[str, Engine]:
    """All three of the same model, loaded once."""
    bundle = open_bundle(tiny_bundle)
    return {
        **{name: load_engine(name, bundle) for name in ENGINES},
        "torch": TorchEngine(load_checkpoint(tiny_checkpoint)),
    }


def inputs_of(graph: str, batch: int) -> Arrays:
    """Inputs as a stream has them, the same at every call."""
    random = np.random.default_rng(batch)
    half = TINY.heatmap_size
    everything = {
        "frame": creature_frames(batch, TINY.size, seed=5),
        "keypoints": random.uniform(-1, 1, (batch, TINY.keypoints, 2)).astype(np.float32),
        "warped": random.uniform(0, 1, (batch, TINY.keypoints, half, half)).astype(np.float32),
        "appearance": random.normal(0, 1, (batch, 3, half, half)).astype(np.float32),
    }
    names = {"extractor": ["frame"], "generator": ["warped", "appearance"]}.get(graph, ["keypoints"])
    return {name: everything[name] for name in names}


def assert_agree(actual: Arrays, expected: Arrays, floats: float = FP32, levels: float = LEVELS) -> None:
    assert list(actual) == list(expected)
    for name, wanted in expected.items():
        assert actual[name].dtype == wanted.dtype
        tolerance = levels if wanted.dtype == np.uint8 else floats * max(1.0, float(np.abs(wanted).max()))
        np.testing.assert_allclose(
            actual[name].astype(float), wanted.astype(float), rtol=0, atol=tolerance, err_msg=name
        )


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("graph", GRAPHS)
@pytest.mark.parametrize("name", ENGINES)
def test_an_engine_agrees_with_pytorch(engines: dict[str, Engine], name: str, graph: str, batch: int) -> None:
    inputs = inputs_of(graph, batch)
    expected = engines["torch"].run(graph, inputs)
    assert all(
        float(np.ptp(array.astype(float))) > 0.05 for array in expected.values()
    )  # there is something to compare
    assert_agree(engines[name].run(graph, inputs), expected)


@pytest.mark.parametrize("graph", GRAPHS)
@pytest.mark.parametrize("name", [*ENGINES, "torch"])
def test_a_result_does_not_depend_on_its_neighbours(engines: dict[str, Engine], name: str, graph: str) -> None:
    together = inputs_of(graph, 3)
    alone = engines[name].run(graph, {key: array[1:2] for key, array in together.items()})
    assert_agree({key: array[1:2] for key, array in engines[name].run(graph, together).items()}, alone)


@pytest.mark.parametrize("name", [*ENGINES, "torch"])
def test_a_result_outlives_the_next_call(engines: dict[str, Engine], name: str) -> None:
    first, second = inputs_of("extractor", 1), {"frame": creature_frames(4, TINY.size, seed=9)[3:]}
    result = engines[name].run("extractor", first)
    before = {key: array.copy() for key, array in result.items()}
    other = engines[name].run("extractor", second)
    assert not np.array_equal(other["keypoints"], before["keypoints"])
    assert_agree(result, before, EXACT, EXACT)


@pytest.mark.parametrize("name", [*ENGINES, "torch"])
def test_inputs_that_do_not_fit_are_refused(engines: dict[str, Engine], name: str) -> None:
    engine = engines[name]
    keypoints = np.zeros((1, TINY.keypoints, 2), np.float32)
    warped, appearance = inputs_of("generator", 2).values()

    def refusal(graph: str, inputs: Arrays) -> str:
        with pytest.raises(EngineError) as caught:
            engine.run(graph, inputs)
        return str(caught.value)

    doubles = {"keypoints": keypoints.astype(np.float64)}
    assert "stn-a2b: keypoints is float64 (1, 10, 2) instead of float32" in refusal("stn-a2b", doubles)
    assert "stn-a2b: keypoints is float32 (1, 4, 2)" in refusal("stn-a2b", {"keypoints": keypoints[:, :4]})
    assert refusal("generator", {"warped": warped}) == "generator: inputs warped instead of warped, appearance"
    mixed = {"warped": warped, "appearance": appearance[:1]}
    assert refusal("generator", mixed) == "generator: the inputs' batch sizes differ"


def test_auto_takes_openvino_before_onnxruntime(tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bundle = open_bundle(tiny_bundle)
    assert installed_engines() == ("openvino", "onnxruntime")
    assert load_engine("auto", bundle).name == "openvino"
    monkeypatch.setitem(sys.modules, "openvino", None)
    assert installed_engines() == ("onnxruntime",)
    assert load_engine("auto", bundle).name == "onnxruntime"
    with pytest.raises(EngineMissingError, match=r"engine openvino is not installed: pip install 'jokr-rt\[cpu\]'"):
        load_engine("openvino", bundle)
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(EngineMissingError, match=r"no engine is installed .*: pip install 'jokr-rt\[cpu\]'"):
        load_engine("auto", bundle)


def test_an_engine_that_cannot_be_imported_is_not_passed_over(
    tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "openvino.py").write_text("raise ImportError('libtbb.so.12: no such file')")
    monkeypatch.syspath_prepend(tmp_path)
    for module in [name for name in sys.modules if name.partition(".")[0] == "openvino"]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.delitem(sys.modules, "jokr_rt.engines.openvino", raising=False)
    with pytest.raises(EngineError, match=r"openvino is installed, but cannot be imported: libtbb\.so\.12"):
        load_engine("auto", open_bundle(tiny_bundle))


def test_unknown_engines(tiny_bundle: Path) -> None:
    bundle = open_bundle(tiny_bundle)
    listed = "auto, openvino, onnxruntime, tensorrt, onnxruntime-cuda, or torch"
    with pytest.raises(UsageError, match=f"unknown engine 'tpu'; choose {listed}"):
        load_engine("tpu", bundle)
    for name in ("torch", "torch-cuda"):
        with pytest.raises(UsageError, match=f"engine {name} runs a checkpoint, not a bundle"):
            load_engine(name, bundle)


def tampered(root: Path, file: str, change: Callable[[Path], object]) -> Bundle:
    """The bundle after a change to one of its files for which the manifest's hash was put right."""
    change(root / file)
    manifest = root / "manifest.json"
    text = json.dumps(json.loads(manifest.read_text()))
    old = next(graph["sha256"] for graph in json.loads(text)["graphs"] if graph["file"] == file)
    manifest.write_text(text.replace(old, stored_file(root, file).sha256))
    return open_bundle(root)


def fix_batch(path: Path) -> None:
    model = onnx.load(path)
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 1
    onnx.save(model, path)


def refusal(name: str, bundle: Bundle, graph: str, kind: type[Exception]) -> str:
    """What is said when the graph is first used: alone, or as one of a direction's."""
    engine = load_engine(name, bundle)
    assert isinstance(engine, StagedEngine)
    with pytest.raises(kind) as alone:
        engine.run(graph, inputs_of(graph, 1))
    with pytest.raises(kind) as staged:
        engine.stages("b2a" if graph == "stn-b2a" else "a2b", bundle.appearance("b"), "latency")
    assert str(staged.value) == str(alone.value)
    return str(alone.value)


@pytest.mark.parametrize("name", ENGINES)
def test_a_swapped_graph_is_refused(bundle_copy: Path, name: str) -> None:
    stn = bundle_copy / "stn-a2b.onnx"
    bundle = tampered(bundle_copy, "generator.onnx", lambda path: shutil.copy(stn, path))
    assert refusal(name, bundle, "generator", BundleError) == (
        f"{bundle_copy}/generator.onnx: inputs keypoints float32 (N, 10, 2) instead of the manifest's "
        "appearance float32 (N, 3, 32, 32), warped float32 (N, 10, 32, 32); export again"
    )


@pytest.mark.parametrize("name", ENGINES)
def test_a_graph_of_another_shape_is_refused(bundle_copy: Path, name: str) -> None:
    bundle = tampered(bundle_copy, "extractor.onnx", fix_batch)
    message = refusal(name, bundle, "extractor", BundleError)
    assert re.search(r"frame uint8 \(1, 64, 64, 3\) instead of .* frame uint8 \(N, 64, 64, 3\)", message)


@pytest.mark.parametrize("name", ENGINES)
def test_a_graph_that_is_none_is_refused(bundle_copy: Path, name: str) -> None:
    bundle = tampered(bundle_copy, "stn-b2a.onnx", lambda path: path.write_bytes(b"not a graph"))
    message = refusal(name, bundle, "stn-b2a", EngineError)
    assert message.startswith(f"{name}: {bundle_copy}/stn-b2a.onnx cannot be loaded: ")
    assert "\n" not in message


@pytest.mark.parametrize("name", ENGINES)
def test_a_graph_of_an_unknown_operator_is_refused(bundle_copy: Path, name: str) -> None:
    def rename(path: Path) -> None:
        model = onnx.load(path)
        next(node for node in model.graph.node if node.domain == "jokr").op_type = "NoSuchOperator"
        onnx.save(model, path)

    bundle = tampered(bundle_copy, "stn-a2b.onnx", rename)
    message = refusal(name, bundle, "stn-a2b", EngineError)
    assert "NoSuchOperator" in message
    assert "\n" not in message


def test_ctrl_c_survives_an_openvino_engine_dropped_by_another_thread(tiny_bundle: Path) -> None:
    """In a process of its own: without the one core for all engines, this is a segmentation fault."""
    code = """if True:
        import os, signal, sys, threading
        from jokr_rt import Retargeter
        engines = [Retargeter(sys.argv[1], engine="openvino")]
        thread = threading.Thread(target=engines.clear)
        thread.start()
        thread.join()
        signal.signal(signal.SIGINT, lambda *_: print("interrupted"))
        os.kill(os.getpid(), signal.SIGINT)
    """
    done = subprocess.run([sys.executable, "-c", code, str(tiny_bundle)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "interrupted\n"), done.stderr
