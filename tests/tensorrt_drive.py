"""Takes our engine through all that it does with TensorRT, on the double of a version's bindings and on that of CUDA.

    python -m tests.tensorrt_drive MAJOR.MINOR BUNDLE     prints JSON; run by test_tensorrt_conformance.py

The folder of the bundle is changed. Both doubles take what the real ones take, and compute: the results are right too.
"""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from jokr_rt.bundle import open_bundle
from jokr_rt.engines import Monitor, engine_module, load_engine
from jokr_rt.engines.tensorrt_cache import BuildOptions
from jokr_rt.errors import EngineError
from tests import cuda_double, tensorrt_double
from tests.tensorrt_bindings import WITH_REGISTRY


def main(version: str, root: str) -> None:
    with pytest.MonkeyPatch.context() as patch:
        cuda = cuda_double.install(patch)
        double = tensorrt_double.install(patch, version)
        double.enqueue = lambda stream, work: cuda.enqueue(stream, "TensorRT", work)
        sampler = "plugin" if version in WITH_REGISTRY else "native"
        found = {
            "error": refused(Path(root), double),
            "layers": built(Path(root), sampler),
            "differences": run(Path(root)),
        }
        found |= {"names": sorted({call.name for call in double.calls}), "left": cuda.alive(), "version": version}
    print(json.dumps(found))


def refused(root: Path, double: tensorrt_double.Double) -> str:
    """What is said of a graph that the parser refuses."""
    double.parser = [tensorrt_double.ParserFault("no importer", "node_7", "Warp", ("outer",))]
    with pytest.raises(EngineError) as caught:
        built(root, "native")
    return str(caught.value)


def built(root: Path, sampler: str) -> dict[str, list[str]]:
    """The types of the layers of each plan, as TensorRT's inspector tells them."""
    options = BuildOptions(sampler=sampler, max_batch=2)
    plans = engine_module("tensorrt").build_plans(open_bundle(root), "fp32", options, Monitor(), with_layers=True)
    return {plan["graph"]: [layer["LayerType"] for layer in plan["layers"]] for plan in plans}


def run(root: Path) -> list[float]:
    """How far each output of each graph, and of whole frames, is from ONNX Runtime's; with the plans of `built`."""
    bundle = open_bundle(root)
    ours, theirs = load_engine("tensorrt", bundle, "fp32"), load_engine("onnxruntime", bundle)
    differences = []
    for graph, signature in bundle.signatures.items():
        sample = bundle.samples()[graph]
        inputs = {spec.name: np.concatenate([sample[spec.name]] * 3) for spec in signature.inputs}  # more than a batch
        found, expected = ours.run(graph, inputs), theirs.run(graph, inputs)
        differences += [_difference(found[spec.name], expected[spec.name]) for spec in signature.outputs]
    frames = bundle.samples()["extractor"]["frame"]
    looks = bundle.appearance("b")
    queue: Any = ours.frames("a2b", looks)
    for frame in (frames[:1], frames[:1] // 2, frames[:1] // 3):
        queue.enqueue(frame)
        found = queue.collect()
        keypoints = theirs.run("extractor", {"frame": frame})["keypoints"]
        warped = theirs.run("stn-a2b", {"keypoints": keypoints})["warped"]
        image = theirs.run("generator", {"warped": warped, "appearance": looks})["image"]
        differences += [_difference(found["keypoints"], keypoints), _difference(found["image"], image)]
    queue.close()
    ours.close()
    return differences


def _difference(found: np.ndarray, expected: np.ndarray) -> float:
    return float(np.abs(found.astype(float) - expected.astype(float)).max())


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
