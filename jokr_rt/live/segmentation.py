"""Masks by a segmentation network: any ONNX file with one input and a manifest beside it.

The manifest of MODEL.onnx is MODEL.json:

    {"sha256": "...",                       of the ONNX file
     "size": [320, 320],                    (height, width) that the network is given, pixels
     "layout": "nchw",                      or "nhwc"
     "mean": [0.485, 0.456, 0.406],         of the network's input for RGB in [0, 1]: (rgb - mean) / std
     "std": [0.229, 0.224, 0.225],
     "output": "mask",                      the output's name; (1, H, W), (1, C, H, W) or, with nhwc, (1, H, W, C)
     "kind": "probability",                 or "logit" (of one channel: sigmoid, of more: softmax)
     "channels": [0]}                       which of the output's channels are the creature; they are added
"""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from jokr_rt.errors import BundleError, EngineError, EngineMissingError
from jokr_rt.live.compose import Matte, Picture
from jokr_rt.video.resize import Resizer

_KEYS = ("sha256", "size", "layout", "mean", "std", "output", "kind", "channels")


@dataclass(frozen=True)
class Manifest:
    """See the top of this file."""

    sha256: str
    size: tuple[int, int]
    layout: str
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    output: str
    kind: str
    channels: tuple[int, ...]


class SegmentationModel:
    """Called with a frame, it returns the creature's opacity; see `jokr_rt.live.masks`. On ONNX Runtime.

    Raises BundleError for a manifest or network that cannot be used, EngineMissingError, EngineError.
    """

    def __init__(self, path: Path) -> None:
        self._manifest = _read_manifest(path)
        self._session = _session(path)
        self._path, self._resizer = path, Resizer()
        inputs = self._session.get_inputs()
        outputs = [output.name for output in self._session.get_outputs()]
        if len(inputs) != 1:
            raise BundleError(f"{path}: has {len(inputs)} inputs, and a mask needs a network with one")
        if self._manifest.output not in outputs:
            raise BundleError(f"{path}: no output {self._manifest.output!r}; it has {', '.join(outputs)}")
        self._input = inputs[0].name
        self(np.zeros((*self._manifest.size, 3), np.uint8), None, 0.0)

    def __call__(self, rgb: Picture, alpha: NDArray[np.uint8] | None, seconds: float) -> Matte:
        manifest = self._manifest
        height, width = manifest.size
        small = self._resizer.resize(rgb, width, height).astype(np.float32) / 255
        mean, std = (np.array(values, np.float32) for values in (manifest.mean, manifest.std))
        given = (small - mean) / std
        batch = (given if manifest.layout == "nhwc" else given.transpose(2, 0, 1))[None]
        try:
            (found,) = self._session.run([manifest.output], {self._input: np.ascontiguousarray(batch)})
        except Exception as error:  # its own exceptions have no common base
            raise EngineError(f"{self._path}: {str(error).splitlines()[0]}") from error
        matte = np.rint(255 * self._opacity(np.asarray(found, np.float32))).astype(np.uint8)
        return np.divide(self._resizer.resize(matte, rgb.shape[1], rgb.shape[0]), 255, dtype=np.float32)

    def _opacity(self, found: NDArray[np.float32]) -> Matte:
        manifest = self._manifest
        maps = found[0] if found.ndim > 2 and len(found) == 1 else found
        if maps.ndim == 3 and manifest.layout == "nhwc":
            maps = maps.transpose(2, 0, 1)
        if maps.ndim == 2:
            maps = maps[None]
        if maps.ndim != 3 or max(manifest.channels) >= len(maps):
            raise BundleError(f"{self._path}: output {manifest.output} is {found.shape}; see its manifest's channels")
        if manifest.kind == "logit" and len(maps) == 1:
            maps = 1 / (1 + np.exp(-maps))
        elif manifest.kind == "logit":
            raised = np.exp(maps - maps.max(axis=0))
            maps = raised / raised.sum(axis=0)
        opacity: Matte = maps[list(manifest.channels)].sum(axis=0).clip(0, 1)
        return opacity


def _read_manifest(path: Path) -> Manifest:
    where = path.with_suffix(".json")
    try:
        values = json.loads(where.read_text(encoding="utf-8"))
    except OSError as error:
        raise BundleError(f"{where}: {error.strerror}; a mask's network needs a manifest beside it") from None
    except ValueError as error:
        raise BundleError(f"{where}: not JSON: {error}") from None
    if not isinstance(values, dict) or set(values) != set(_KEYS):
        raise BundleError(f"{where}: needs exactly the keys {', '.join(_KEYS)}")
    fields: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value for key, value in values.items()}
    manifest = Manifest(**fields)
    for wrong, what in _faults(manifest):
        if wrong:
            raise BundleError(f"{where}: {what}")
    if hashlib.sha256(path.read_bytes()).hexdigest() != manifest.sha256:
        raise BundleError(f"{path}: is not the file that {where.name} names (SHA-256 differs)")
    return manifest


def _faults(manifest: Manifest) -> list[tuple[bool, str]]:
    return [
        (not _are(manifest.size, int, 2) or min(manifest.size) < 1, "size must be two whole numbers, height and width"),
        (manifest.layout not in ("nchw", "nhwc"), 'layout must be "nchw" or "nhwc"'),
        (not _are(manifest.mean, (int, float), 3), "mean must be three numbers"),
        (not _are(manifest.std, (int, float), 3) or 0 in manifest.std, "std must be three numbers other than 0"),
        (manifest.kind not in ("probability", "logit"), 'kind must be "probability" or "logit"'),
        (not _are(manifest.channels, int, None) or min(manifest.channels) < 0, "channels must be whole numbers from 0"),
    ]


def _are(values: object, kinds: Any, count: int | None) -> bool:
    if not isinstance(values, tuple) or not values or count not in (None, len(values)):
        return False
    return all(isinstance(value, kinds) and not isinstance(value, bool) for value in values)


def _session(path: Path) -> Any:
    try:
        import onnxruntime
    except ImportError:
        raise EngineMissingError(f"mask {path}: needs ONNX Runtime: pip install 'jokr-rt[cpu]'") from None
    options = onnxruntime.SessionOptions()
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 3
    try:
        return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    except Exception as error:
        raise BundleError(f"{path}: not a network that ONNX Runtime runs: {str(error).splitlines()[0]}") from error
