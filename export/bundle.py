"""A checkpoint's graphs, the targets' looks and parity samples as one folder, which appears whole or not at all."""

import json
import os
import tempfile
from collections.abc import Callable, Collection
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from export.graphs import OPSET, export_graph
from export.parity import reference_samples
from export.subpixel import rewritten
from jokr_rt.bundle import FP32, MANIFEST, Bundle, Graph, StoredFile, open_bundle, stored_file
from jokr_rt.errors import OutputError, UsageError
from jokr_rt.parity import require_parity, verify_bundle
from jokr_rt.training.appearance import choose_appearance
from jokr_rt.training.checkpoint import Checkpoint, load_checkpoint
from jokr_rt.training.half import halved
from jokr_rt.training.networks import Model
from jokr_rt.training.stages import stages

REWRITES: dict[str, Callable[[Model], Model]] = {FP32: lambda model: model, "fp16": halved}
"""What makes a model compute in each precision."""

SAMPLES = "samples.npz"


def export_bundle(
    checkpoint_path: str | Path,
    output: str | Path,
    *,
    precisions: Collection[str] = (),
    overwrite: bool = False,
    progress: Callable[[str], None] | None = None,
) -> Bundle:
    """Export a checkpoint to the bundle folder `output`, and measure it against PyTorch with ONNX Runtime.

    precisions: those of the graphs, keys of `REWRITES`, beside "fp32". overwrite: replace a bundle that is there; the
    old one stays until the new one has passed. progress is told, in words, what is being done. Returns the opened
    bundle, its `parity` filled in. Raises UsageError, CheckpointError, OutputError, ParityError where a graph's results
    differ from PyTorch's, and EngineError.
    """
    for precision in precisions:
        if precision not in REWRITES:
            raise UsageError(f"unknown precision {precision!r}; choose from {', '.join(REWRITES)}")
    output = Path(os.path.abspath(output))
    tell = progress or (lambda _: None)
    _check_output(output, overwrite)
    checkpoint = load_checkpoint(checkpoint_path)
    try:
        with tempfile.TemporaryDirectory(prefix=f".{output.name}.", dir=output.parent) as work:
            staging = Path(work, "new")
            staging.mkdir()  # with the usual permissions, unlike the temporary folder
            bundle = _write(checkpoint, dict.fromkeys([FP32, *precisions]), staging, tell)
            tell("comparing with PyTorch")
            figures = verify_bundle(bundle, "onnxruntime")
            require_parity(figures)
            _write_manifest(replace(bundle, parity=tuple(figures)))
            _publish(staging, output, Path(work, "old"))
    except OSError as error:
        raise OutputError(f"{output}: cannot be written: {error}") from None
    return open_bundle(output)


def _check_output(output: Path, overwrite: bool) -> None:
    if not output.parent.is_dir():
        raise OutputError(f"{output.parent}: no such folder; create it first")
    if not os.path.lexists(output):
        return
    if not (output / MANIFEST).is_file():
        raise OutputError(f"{output}: exists and is not a bundle; choose another name")
    if not overwrite:
        raise OutputError(f"{output}: exists; choose another name, or replace it with --overwrite")


def _write(checkpoint: Checkpoint, precisions: Collection[str], folder: Path, tell: Callable[[str], None]) -> Bundle:
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


def _write_manifest(bundle: Bundle) -> None:
    text = json.dumps(bundle.to_json(), indent=1, ensure_ascii=False, allow_nan=False)
    (bundle.root / MANIFEST).write_text(text + "\n", encoding="utf-8")


def _publish(staging: Path, output: Path, old: Path) -> None:
    """Rename the finished folder to its name; a bundle that has it goes aside first, and comes back on failure."""
    replaced = output.exists()
    if replaced:
        os.rename(output, old)
    try:
        os.rename(staging, output)
    except BaseException:
        if replaced:
            os.rename(old, output)
        raise
