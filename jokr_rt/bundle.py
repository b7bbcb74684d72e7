"""A model folder on disk: the contract between export and run.

`manifest.json` names every other file with its SHA-256. Opening a bundle checks version, paths, hashes and shapes,
so that what an engine is given is what was exported.
"""

import hashlib
import json
import zipfile
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from jokr_rt.config import ModelConfig
from jokr_rt.errors import BundleError, UsageError

FORMAT_VERSION = 1
MANIFEST = "manifest.json"
FP32, BF16, FP16, INT8 = "fp32", "bf16", "fp16", "int8"
HINTS = {BF16: FP32}
"""Precisions that an engine computes in of its own accord, and those of the graphs it does so with."""
DIRECTIONS = {"a2b": ("a", "b"), "b2a": ("b", "a")}  # direction: whose motion, whose looks

Arrays = dict[str, NDArray[Any]]
Record = TypeVar("Record")


@dataclass(frozen=True)
class TensorSpec:
    """A graph's input or output. shape: "N" is the batch; dtype: numpy's name; low, high: range of values."""

    name: str
    shape: tuple[int | str, ...]
    dtype: str
    low: float
    high: float

    def check(self, array: NDArray[Any]) -> None:
        """Raises ValueError where an array has another dtype or shape; every batch size fits."""
        if array.dtype != self.dtype or ("N", *array.shape[1:]) != self.shape:
            raise ValueError(f"{self.name} is {array.dtype} {array.shape} instead of {self.dtype} {self.shape}")


@dataclass(frozen=True)
class Signature:
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]


def signatures(config: ModelConfig) -> dict[str, Signature]:
    """Names, shapes, dtypes and ranges of every graph of a model of this config, in the order a frame passes them."""
    k, size, half = config.keypoints, config.size, config.heatmap_size
    inf = float(np.finfo(np.float32).max)
    frame = TensorSpec("frame", ("N", size, size, 3), "uint8", 0, 255)
    keypoints = TensorSpec("keypoints", ("N", k, 2), "float32", -1, 1)
    confidence = TensorSpec("confidence", ("N", k), "float32", 0, 1)
    appearance = TensorSpec("appearance", ("N", 3, half, half), "float32", -inf, inf)
    theta = TensorSpec("theta", ("N", 2, 3), "float32", -inf, inf)
    warped = TensorSpec("warped", ("N", k, half, half), "float32", 0, 1)
    image = TensorSpec("image", ("N", size, size, 3), "uint8", 0, 255)
    stn = Signature((keypoints,), (theta, warped))
    return {
        "extractor": Signature((frame,), (keypoints, confidence, appearance)),
        "stn-a2b": stn,
        "stn-b2a": stn,
        "generator": Signature((warped, appearance), (image,)),
    }


@dataclass(frozen=True)
class StoredFile:
    """A file of the bundle: its path below the folder, with forward slashes, and its SHA-256 in hex."""

    file: str
    sha256: str


@dataclass(frozen=True)
class Graph(StoredFile):
    """An ONNX graph of the bundle; name is a key of `signatures`."""

    name: str
    precision: str
    opset: int


@dataclass(frozen=True)
class Parity:
    """How far one output is from PyTorch's on real frames, measured with `engine`.

    graph: a graph's name, or "a2b" or "b2a" for all of them in a row, each fed by the one before. max_abs, mean_abs: in
    the output's own units (levels for uint8). psnr_db: over the range of the expected values, or all of uint8's; None
    where they are equal. tolerance: the largest max_abs that passes, in the same units, or None where it is min_psnr_db
    that decides.
    """

    graph: str
    precision: str
    engine: str
    output: str
    max_abs: float
    mean_abs: float
    psnr_db: float | None
    tolerance: float | None
    min_psnr_db: float | None = None

    @property
    def passed(self) -> bool:
        is_close = self.tolerance is None or self.max_abs <= self.tolerance  # false for NaN
        return is_close and (self.min_psnr_db is None or self.psnr_db is None or self.psnr_db >= self.min_psnr_db)


@dataclass(frozen=True)
class Quantisation:
    """How the graphs in int8 were made, and what they lose.

    calibration: what ranges were read off, `frames` of it; `held_out` more were drawn to measure. psnr_db: of those
    against fp32, in the worse direction. truth_loss_db: lost against ground truth, likewise; None if not measured.
    float_layers: those left in higher precision, as "graph layer".
    """

    calibration: str
    frames: int
    held_out: int
    psnr_db: float
    truth_loss_db: float | None
    float_layers: list  # of str


@dataclass(frozen=True)
class Bundle:
    """An opened bundle. domains: the two videos' names for people, of "a" and "b".

    recipe: the hyperparameters that it was trained with; empty in a bundle of before they were kept.
    """

    root: Path
    config: ModelConfig
    domains: dict[str, str]
    graphs: tuple[Graph, ...]
    appearance_files: dict[str, StoredFile]
    samples_file: StoredFile
    parity: tuple[Parity, ...]
    quantisation: Quantisation | None = None
    recipe: dict[str, Any] = field(default_factory=dict)

    @property
    def directions(self) -> tuple[str, ...]:
        return tuple(DIRECTIONS)

    @property
    def precisions(self) -> tuple[str, ...]:
        """Those of its graphs, "fp32" first, and such of `HINTS` as its parity has figures for."""
        hints = (figure.precision for figure in self.parity if figure.precision in HINTS)
        return tuple(dict.fromkeys([*(graph.precision for graph in self.graphs), *hints]))

    @property
    def signatures(self) -> dict[str, Signature]:
        return signatures(self.config)

    def graph(self, name: str, precision: str = FP32) -> Graph:
        """The one to run in a precision, which for a hint is another's. Raises UsageError where the bundle has none."""
        for graph in self.graphs:
            if (graph.name, graph.precision) == (name, HINTS.get(precision, precision)):
                return graph
        raise UsageError(f"{self.root}: no graph {name} in {precision}; it has {', '.join(self.precisions)}")

    def graph_path(self, name: str, precision: str = FP32) -> Path:
        """The ONNX file of a graph, whose hash was right when the bundle was opened. Raises as `graph` does."""
        return self.root / self.graph(name, precision).file

    def appearance(self, domain: str) -> NDArray[np.float32]:
        """Appearance (1, 3, size/2, size/2) float32 of domain "a" or "b"."""
        path = self.root / self.appearance_files[domain].file
        half = self.config.heatmap_size
        try:
            array = np.load(path, allow_pickle=False)
            if array.shape != (1, 3, half, half) or array.dtype != np.float32:
                raise ValueError(f"{array.dtype} {array.shape} instead of float32 {(1, 3, half, half)}")
        except (OSError, EOFError, ValueError, AttributeError) as error:
            raise BundleError(f"{path}: not an appearance: {error}; export the bundle again") from None
        return array

    def samples(self) -> dict[str, Arrays]:
        """Per graph, inputs from real frames and PyTorch's outputs, by tensor name: what parity is measured on.

        The file holds each tensor once, as "graph.tensor". The generator's inputs are not among them: they are what
        the spatial transformers gave, with the target's appearance.
        """
        path = self.root / self.samples_file.file
        per_graph: dict[str, Arrays] = {name: {} for name in self.signatures}
        try:
            with np.load(path, allow_pickle=False) as arrays:
                for key in arrays.files:
                    graph, _, tensor = key.partition(".")
                    per_graph[graph][tensor] = arrays[key]
            warped = [per_graph[f"stn-{direction}"]["warped"] for direction in DIRECTIONS]
            looks = [self.appearance(target) for _, target in DIRECTIONS.values()]
            per_graph["generator"] |= {
                "warped": np.concatenate(warped),
                "appearance": np.repeat(np.concatenate(looks), [len(heatmaps) for heatmaps in warped], axis=0),
            }
            for name, signature in self.signatures.items():
                for spec in (*signature.inputs, *signature.outputs):
                    spec.check(per_graph[name][spec.name])
        except (OSError, EOFError, ValueError, KeyError, AttributeError, TypeError, zipfile.BadZipFile) as error:
            raise BundleError(f"{path}: not parity samples: {error}; export the bundle again") from None
        return per_graph

    def to_json(self) -> dict[str, Any]:
        return {
            "format_version": FORMAT_VERSION,
            "config": self.config.to_json(),
            "domains": self.domains,
            "directions": list(self.directions),
            "graphs": [asdict(graph) | asdict(self.signatures[graph.name]) for graph in self.graphs],
            "appearance": {domain: asdict(stored) for domain, stored in self.appearance_files.items()},
            "samples": asdict(self.samples_file),
            "parity": [asdict(figure) for figure in self.parity],
            "quantisation": self.quantisation and asdict(self.quantisation),
            "recipe": self.recipe,
        }


def stored_file(root: Path, file: str) -> StoredFile:
    """Name and hash a file that lies in `root`, for the manifest."""
    return StoredFile(file, hashlib.sha256((root / file).read_bytes()).hexdigest())


def is_bundle(path: str | Path) -> bool:
    """Whether it looks like one, whole or not."""
    return (Path(path) / MANIFEST).is_file()


def open_bundle(path: str | Path) -> Bundle:
    """Open a bundle folder. Raises BundleError, in one line, for anything that is not as it was exported."""
    root = Path(path)
    manifest = root / MANIFEST
    try:
        values = json.loads(manifest.read_text(encoding="utf-8"))
    except NotADirectoryError:
        raise BundleError(f"{root}: a file, and a bundle is a folder; `jokr export` writes one") from None
    except FileNotFoundError:
        raise BundleError(f"{root}: no bundle here ({MANIFEST} is missing); make one with `jokr export`") from None
    except (OSError, ValueError, RecursionError) as error:
        raise BundleError(f"{manifest}: cannot be read: {error}; copy the bundle again or export again") from None
    version = values.get("format_version") if isinstance(values, dict) else None
    if version != FORMAT_VERSION:
        raise BundleError(f"{manifest}: format version {version!r}; this program reads {FORMAT_VERSION}: export again")
    try:
        bundle = _parse(root, values)
    except (KeyError, TypeError, AttributeError, UsageError) as error:
        raise BundleError(f"{manifest}: damaged manifest: {type(error).__name__}: {error}; export again") from None
    for stored in (*bundle.graphs, *bundle.appearance_files.values(), bundle.samples_file):
        _check_file(root, stored)
    return bundle


def _parse(root: Path, values: dict[str, Any]) -> Bundle:
    config = ModelConfig.from_json(values["config"])
    graphs = tuple(_parse_graph(root, entry, signatures(config)) for entry in values["graphs"])
    found = [(graph.precision, graph.name) for graph in graphs]
    for precision in dict.fromkeys([FP32, *(precision for precision, _ in found)]):
        for name in signatures(config):
            if (count := found.count((precision, name))) != 1:
                has = "lacks" if count == 0 else "repeats"
                raise BundleError(f"{root}: the manifest {has} the graph {name} in {precision}; export again")
    return Bundle(
        root=root,
        config=config,
        domains={domain: str(values["domains"][domain]) for domain in ("a", "b")},
        graphs=graphs,
        appearance_files={domain: _record(StoredFile, values["appearance"][domain]) for domain in ("a", "b")},
        samples_file=_record(StoredFile, values["samples"]),
        parity=tuple(_record(Parity, figure) for figure in values["parity"]),
        quantisation=_record(Quantisation, values["quantisation"]) if values.get("quantisation") else None,
        recipe=dict(values.get("recipe", {})),
    )


def _record(kind: type[Record], values: dict[str, Any]) -> Record:
    """A dataclass from its JSON. Raises TypeError for missing, unknown and wrongly typed values."""
    types = {field.name: field.type for field in fields(kind)}  # type: ignore[arg-type]
    for name, value in values.items():
        if not isinstance(value, types[name]):  # type: ignore[arg-type]
            raise TypeError(f"{name} cannot be {value!r}")
    return kind(**values)


def _parse_graph(root: Path, entry: dict[str, Any], expected: dict[str, Signature]) -> Graph:
    name = entry["name"]
    if name not in expected:
        raise BundleError(f"{root}: the manifest has an unknown graph {name!r}; export again")
    if json.loads(json.dumps(asdict(expected[name]))) != {key: entry[key] for key in ("inputs", "outputs")}:
        raise BundleError(f"{root}: graph {name} has shapes that do not follow from the model config; export again")
    return _record(Graph, {field.name: entry[field.name] for field in fields(Graph)})


def _check_file(root: Path, stored: StoredFile) -> None:
    relative = PurePosixPath(stored.file)
    path = root / relative
    try:
        confined = not relative.is_absolute() and ".." not in relative.parts and "\0" not in stored.file
        if not confined or not path.resolve().is_relative_to(root.resolve()):
            raise BundleError(f"{root}: {MANIFEST} names {stored.file!r}, which is outside the bundle; do not use it")
        if not path.is_file():
            raise BundleError(f"{path}: missing; copy the whole bundle folder or export again")
        if stored_file(root, stored.file).sha256 != stored.sha256:
            raise BundleError(f"{path}: its SHA-256 differs from the manifest's; copy the bundle again or export again")
    except (OSError, RuntimeError) as error:  # unreadable, or symbolic links in a circle
        raise BundleError(f"{path}: cannot be read: {error}; copy the bundle again or export again") from None
