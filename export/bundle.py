"""A model in the precisions asked for as one folder, which appears whole or not at all."""

import json
import os
import shutil
import tempfile
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from jokr_rt.bundle import BF16, FP16, FP32, INT8, MANIFEST, Bundle, open_bundle
from jokr_rt.engines import KINDS, engine_module
from jokr_rt.errors import OutputError, UsageError, missing_extra
from jokr_rt.parity import require_parity, verify_bundle

if TYPE_CHECKING:
    from export.calibration import Calibration
    from jokr_rt.training.checkpoint import Checkpoint

MEASURED_WITH = {FP32: "onnxruntime", BF16: "openvino", FP16: "onnxruntime", INT8: "openvino"}
"""The precisions, and the engine in which each is compared with PyTorch."""

PUPPETS = "puppets"
Tell = Callable[[str], None]


def export_bundle(
    source: str | Path,
    output: str | Path,
    *,
    precisions: Collection[str] = (),
    calibration: Sequence[str | Path] = (),
    truth: str | None = None,
    overwrite: bool = False,
    progress: Tell | None = None,
) -> Bundle:
    """Export a checkpoint, or a bundle in further precisions, to the bundle folder `output`, measured against PyTorch.

    precisions: keys of `MEASURED_WITH`, beside "fp32" and those that a bundle given has. Only a checkpoint can give
    "fp16"; only a checkpoint needs PyTorch. calibration: for "int8", a clip of A and one of B like those the model is
    for; without, a checkpoint's reference frames serve. truth: "puppets" allows int8 to lose 0.2 dB against theirs.
    overwrite: replace a bundle that is there; the old one stays until the new one has passed. progress is told, in
    words, what is being done.

    Returns the opened bundle, its `parity` filled in. Raises UsageError, InputError, CheckpointError, BundleError,
    OutputError, ParityError where results differ from PyTorch's (QuantisationError where int8 loses too much),
    EngineError, and EngineMissingError where PyTorch, NNCF or an engine is missing.
    """
    source, output = Path(source), Path(os.path.abspath(output))
    wanted = tuple(dict.fromkeys(precisions))
    tell = progress or (lambda _: None)
    _check_options(wanted, calibration, truth)
    _check_output(output, overwrite)
    model = open_bundle(source) if source.is_dir() else _load_checkpoint(source)
    frames = _calibration(model, calibration, source) if INT8 in wanted else None
    try:
        with tempfile.TemporaryDirectory(prefix=f".{output.name}.", dir=output.parent) as work:
            staging = Path(work, "new")
            staging.mkdir()  # with the usual permissions, unlike the temporary folder
            bundle = _write(model, wanted, staging, tell)
            if frames is not None:
                bundle = _quantise(bundle, frames, truth, tell)
            _write_manifest(_measured(bundle, wanted, tell))
            _publish(staging, output, Path(work, "old"))
    except OSError as error:
        raise OutputError(f"{output}: cannot be written: {error}") from None
    return open_bundle(output)


def _check_options(wanted: Collection[str], calibration: Sequence[str | Path], truth: str | None) -> None:
    for precision in wanted:
        if precision not in MEASURED_WITH:
            raise UsageError(f"unknown precision {precision!r}; choose from {', '.join(MEASURED_WITH)}")
        engine = MEASURED_WITH[precision]
        if KINDS[engine].asks_cpu and (reason := engine_module(engine).lacks(precision)):
            raise UsageError(f"{precision} cannot be measured here, so it is not exported: {reason}")
    if truth not in (None, PUPPETS):
        raise UsageError(f"unknown truth {truth!r}; there is that of the {PUPPETS}")
    if INT8 not in wanted and (calibration or truth):
        raise UsageError(f"calibration clips and truth are for int8 alone; add --precision {INT8} or leave them out")
    if INT8 in wanted:
        try:
            from export.quantise import load_nncf
        except ImportError as error:
            raise missing_extra("int8", error, "int8") from error
        load_nncf()


def _check_output(output: Path, overwrite: bool) -> None:
    if not output.parent.is_dir():
        raise OutputError(f"{output.parent}: no such folder; create it first")
    if not os.path.lexists(output):
        return
    if not (output / MANIFEST).is_file():
        raise OutputError(f"{output}: exists and is not a bundle; choose another name")
    if not overwrite:
        raise OutputError(f"{output}: exists; choose another name, or replace it with --overwrite")


def _load_checkpoint(path: Path) -> "Checkpoint":
    try:
        from jokr_rt.training.checkpoint import load_checkpoint
    except ImportError as error:
        raise missing_extra("exporting a checkpoint", error) from error
    return load_checkpoint(path)


def _calibration(model: "Bundle | Checkpoint", clips: Sequence[str | Path], source: Path) -> "Calibration":
    from export.calibration import from_clips, from_references

    if clips:
        return from_clips(clips, (model if isinstance(model, Bundle) else model.model).config.size)
    if isinstance(model, Bundle):
        raise UsageError(f"{source}: a bundle holds too few frames to calibrate int8 on; give clips of A and of B")
    return from_references(model.references)


def _write(model: "Bundle | Checkpoint", wanted: Collection[str], folder: Path, tell: Tell) -> Bundle:
    """The files of the precisions that are made of neither frames nor hints."""
    if not isinstance(model, Bundle):
        try:
            from export.checkpoint import write_checkpoint
        except ImportError as error:
            raise missing_extra("exporting a checkpoint", error) from error
        return write_checkpoint(model, [FP32, *(precision for precision in wanted if precision == FP16)], folder, tell)
    if FP16 in wanted and FP16 not in model.precisions:
        raise UsageError(f"{model.root}: a bundle, and graphs in fp16 are made from a checkpoint; export that")
    old = model if INT8 not in wanted else _without_int8(model)
    for stored in (*old.graphs, *old.appearance_files.values(), old.samples_file):
        (folder / stored.file).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(old.root / stored.file, folder / stored.file)
    return replace(old, root=folder)


def _without_int8(bundle: Bundle) -> Bundle:
    graphs = tuple(graph for graph in bundle.graphs if graph.precision != INT8)
    parity = tuple(figure for figure in bundle.parity if figure.precision != INT8)
    return replace(bundle, graphs=graphs, parity=parity, quantisation=None)


def _quantise(bundle: Bundle, frames: "Calibration", truth: str | None, tell: Tell) -> Bundle:
    from export.gate import Quantiser

    if truth is None:
        return Quantiser(bundle, frames, tell).run()
    try:
        from export.truth import PuppetTruth
    except ImportError as error:
        raise missing_extra("comparing with a truth", error, "evaluate") from error
    return Quantiser(bundle, frames, tell).run(PuppetTruth(bundle))


def _measured(bundle: Bundle, wanted: Collection[str], tell: Tell) -> Bundle:
    """With figures of the precisions that have none yet. Raises ParityError."""
    figures = list(bundle.parity)
    for precision in dict.fromkeys([FP32, *wanted]):
        if precision not in {figure.precision for figure in bundle.parity}:
            tell(f"comparing {precision} with PyTorch")
            figures += verify_bundle(bundle, MEASURED_WITH[precision], [precision])
    require_parity(figures)
    return replace(bundle, parity=tuple(figures))


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
