"""A checkpoint's graphs, the targets' looks and parity samples. The one part of an export that needs PyTorch."""

from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from export.graphs import OPSET, export_graph
from export.parity import reference_samples
from export.subpixel import rewritten
from jokr_rt.bundle import FP16, FP32, Bundle, Graph, StoredFile, stored_file
from jokr_rt.training.appearance import choose_appearance
from jokr_rt.training.checkpoint import Checkpoint
from jokr_rt.training.half import halved
from jokr_rt.training.networks import Model
from jokr_rt.training.stages import stages

REWRITES: dict[str, Callable[[Model], Model]] = {FP32: lambda model: model, FP16: halved}
"""What makes a model compute in each precision."""

SAMPLES = "samples.npz"


def write_checkpoint(
    checkpoint: Checkpoint, precisions: Collection[str], folder: Path, tell: Callable[[str], None]
) -> Bundle:
    """All files of a bundle but its manifest. precisions: keys of `REWRITES`. Raises ParityError."""
    model = checkpoint.model
    graphs = [graph for precision in precisions for graph in _write_graphs(model, precision, folder, tell)]
    looks, appearance_files = {}, {}
    (folder / "appearance").mkdir()
    for domain, frames in checkpoint.references.items():
        tell(f"choosing the looks of {checkpoint.domains[domain]}")
        looks[domain] = choose_appearance(model, frames)
        appearance_files[domain] = _save(folder, f"appearance/{domain}.npy", looks[domain])
    samples: dict[str, Any] = reference_samples(model, checkpoint.references, looks)
    np.savez_compressed(folder / SAMPLES, **samples)
    return Bundle(
        root=folder,
        config=model.config,
        domains=checkpoint.domains,
        recipe=checkpoint.recipe,
        graphs=tuple(graphs),
        appearance_files=appearance_files,
        samples_file=stored_file(folder, SAMPLES),
        parity=(),
    )


def _write_graphs(model: Model, precision: str, folder: Path, tell: Callable[[str], None]) -> list[Graph]:
    """Those in fp32 into the folder itself, others into one of their precision's name."""
    graphs = []
    inside = "" if precision == FP32 else f"{precision}/"
    (folder / inside).mkdir(exist_ok=True)
    for name, stage in stages(REWRITES[precision](rewritten(model))).items():
        tell(f"exporting {name} in {precision}")
        file = f"{inside}{name}.onnx"
        (folder / file).write_bytes(export_graph(name, stage, model.config).SerializeToString())
        stored = stored_file(folder, file)
        graphs.append(Graph(stored.file, stored.sha256, name=name, precision=precision, opset=OPSET))
    return graphs


def _save(folder: Path, file: str, array: NDArray[np.float32]) -> StoredFile:
    np.save(folder / file, array, allow_pickle=False)
    return stored_file(folder, file)
