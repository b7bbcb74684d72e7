"""A bundle with graphs in 8 bits as well, without the exporter's gate; and what an engine draws of a few frames."""

import json
from collections import Counter
from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path

import numpy as np
import onnx
import openvino as ov
from numpy.typing import NDArray

from export.quantise import quantised
from jokr_rt import Frame, Retargeter, open_bundle
from jokr_rt.bundle import Arrays, Bundle, stored_file
from jokr_rt.engines import Engine, load_engine
from jokr_rt.engines.openvino_graphs import core
from jokr_rt.retarget import Retargeted
from jokr_rt.video import write_png
from tests.tiny import TINY, creature_frames

FRAMES = [Frame(rgb, index, Fraction(1, 10)) for index, rgb in enumerate(creature_frames(5, TINY.size, seed=3))]


def add_int8(root: Path) -> None:
    """Extractor and generator in 8 bits; the transformers' entries name the files of float32."""
    bundle = open_bundle(root)
    engine = load_engine("onnxruntime", bundle)
    found = [engine.run("extractor", {"frame": frame.rgb[None]})["keypoints"] for frame in FRAMES]
    warped = [engine.run("stn-a2b", {"keypoints": each})["warped"] for each in found]
    feeds: dict[str, list[Arrays]] = {
        "extractor": [{"frame": frame.rgb[None]} for frame in FRAMES],
        "generator": [{"warped": each, "appearance": bundle.appearance("b")} for each in warped],
    }
    (root / "int8").mkdir()
    for name, fed in feeds.items():
        onnx.save(quantised(onnx.load(root / f"{name}.onnx"), fed), root / "int8" / f"{name}.onnx")
    manifest = root / "manifest.json"
    values = json.loads(manifest.read_text())
    for graph in [dict(graph) for graph in values["graphs"]]:
        file = f"int8/{graph['name']}.onnx" if graph["name"] in feeds else graph["file"]
        values["graphs"].append(graph | {"precision": "int8", "file": file, "sha256": stored_file(root, file).sha256})
    manifest.write_text(json.dumps(values))


def drawn(bundle: Bundle, engine: Engine, mode: str = "latency") -> list[Retargeted]:
    """What becomes of `FRAMES`."""
    return list(Retargeter(bundle, engine=engine, mode=mode).retarget_all((frame, None) for frame in FRAMES))


def assert_near(found: list[Retargeted], expected: list[Retargeted], floats: float, levels: float) -> None:
    """Keypoints differ by `floats` at most, pictures by `levels` on average."""
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one.keypoints, other.keypoints, rtol=0, atol=floats)
        assert np.abs(one.image.rgb.astype(int) - other.image.rgb).mean() <= levels


def compile_graph(graph: onnx.ModelProto | Path) -> ov.CompiledModel:
    """For OpenVINO on the processor, what is not in 8 bits in float32."""
    model = core().read_model(graph if isinstance(graph, Path) else graph.SerializeToString())
    return core().compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})


def layer_precisions(compiled: ov.CompiledModel, kind: str) -> Counter[str]:
    """How many layers of a kind, such as "Convolution", run in which of OpenVINO's types."""
    facts = [node.get_rt_info() for node in compiled.get_runtime_model().get_ops()]
    return Counter(fact["runtimePrecision"].value for fact in facts if fact["layerType"].value == kind)


def write_clip(folder: Path, frames: Iterable[NDArray[np.uint8]]) -> Path:
    """A folder of pictures, as a clip."""
    folder.mkdir(parents=True)
    for index, frame in enumerate(frames):
        write_png(folder / f"{index:03}.png", frame)
    return folder
