"""Bundles that are not as they were exported are refused, in one line that says what to do."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from jokr_rt.bundle import FORMAT_VERSION, Parity, Quantisation, TensorSpec, open_bundle, stored_file
from jokr_rt.errors import BundleError, UsageError
from tests.tiny import TINY

Values = dict[str, Any]


def edit(root: Path, change: Callable[[Values], Any]) -> None:
    """Change the manifest of a bundle in place."""
    manifest = root / "manifest.json"
    values = json.loads(manifest.read_text())
    change(values)
    manifest.write_text(json.dumps(values))


def refusal(root: Path) -> str:
    """The one line that opening this bundle ends in."""
    with pytest.raises(BundleError) as caught:
        open_bundle(root)
    message = str(caught.value)
    assert "\n" not in message
    assert str(root) in message
    return message


def test_an_opened_bundle_has_what_was_exported(tiny_bundle: Path) -> None:
    bundle = open_bundle(str(tiny_bundle))
    assert bundle.config == TINY
    assert bundle.domains == {"a": "cat", "b": "fox"}
    assert bundle.directions == ("a2b", "b2a")
    assert bundle.precisions == ("fp32",)
    assert [graph.name for graph in bundle.graphs] == ["extractor", "stn-a2b", "stn-b2a", "generator"]
    assert bundle.graph_path("stn-a2b") == tiny_bundle / "stn-a2b.onnx"
    assert bundle.appearance("a").shape == (1, 3, 32, 32)
    assert bundle.to_json() == json.loads((tiny_bundle / "manifest.json").read_text()) | {
        "graphs": bundle.to_json()["graphs"]  # where a tuple became a list
    }
    with pytest.raises(UsageError, match="no graph stn-a2b in int8; it has fp32"):
        bundle.graph_path("stn-a2b", "int8")


def test_a_hint_is_a_precision_once_it_is_measured_and_runs_the_graphs_of_another(bundle_copy: Path) -> None:
    bundle = open_bundle(bundle_copy)
    assert bundle.graph_path("generator", "bf16") == bundle.graph_path("generator")
    assert bundle.precisions == ("fp32",)

    def measure(values: Values) -> None:
        values["parity"] += [figure | {"precision": "bf16"} for figure in values["parity"]]

    edit(bundle_copy, measure)
    assert open_bundle(bundle_copy).precisions == ("fp32", "bf16")


QUANTISATION = {"calibration": "cats", "frames": 24, "held_out": 8, "psnr_db": 44.5, "truth_loss_db": None,
                "float_layers": ["generator head"]}  # fmt: skip


def test_how_int8_was_made_is_part_of_the_manifest(bundle_copy: Path) -> None:
    assert open_bundle(bundle_copy).quantisation is None
    edit(bundle_copy, lambda values: values.pop("quantisation"))  # as bundles of before int8 have none
    assert open_bundle(bundle_copy).quantisation is None
    edit(bundle_copy, lambda values: values.update(quantisation=QUANTISATION))
    assert open_bundle(bundle_copy).quantisation == Quantisation(**QUANTISATION)  # type: ignore[arg-type]
    assert open_bundle(bundle_copy).to_json()["quantisation"] == QUANTISATION


@pytest.mark.parametrize(
    ("error", "psnr_db", "tolerance", "floor", "passes"),
    [
        (0.1, 30.0, 0.2, None, True),
        (0.3, 30.0, 0.2, None, False),
        (float("nan"), float("nan"), 0.2, None, False),
        (9.9, 42.0, None, 42.0, True),
        (0.1, 41.9, None, 42.0, False),
        (0.0, None, None, 42.0, True),
        (float("nan"), float("nan"), None, 42.0, False),
    ],
)
def test_a_figure_passes_by_its_error_or_by_its_psnr(
    error: float, psnr_db: float | None, tolerance: float | None, floor: float | None, passes: bool
) -> None:
    assert Parity("a2b", "int8", "openvino", "image", error, error, psnr_db, tolerance, floor).passed is passes


def test_a_folder_that_is_no_bundle(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("x")
    assert refusal(file) == f"{file}: a file, and a bundle is a folder; `jokr export` writes one"
    for path in (tmp_path, tmp_path / "nowhere"):
        assert "no bundle here (manifest.json is missing); make one with `jokr export`" in refusal(path)


@pytest.mark.parametrize(
    "garbage",
    [b"", b"{", b"\x00\xff\xfe", b"not json", b"[" * 100_000, b"[]", b"7", b"null", b"{}", b'{"format_version": "1"}'],
)
def test_a_manifest_of_garbage(bundle_copy: Path, garbage: bytes) -> None:
    (bundle_copy / "manifest.json").write_bytes(garbage)
    assert "manifest.json: " in refusal(bundle_copy)


@pytest.mark.parametrize("version", [0, 2, 99, None, "one"])
def test_an_unknown_format_version(bundle_copy: Path, version: object) -> None:
    edit(bundle_copy, lambda values: values.update(format_version=version))
    assert f"format version {version!r}; this program reads {FORMAT_VERSION}" in refusal(bundle_copy)


FILES = ["extractor.onnx", "stn-a2b.onnx", "stn-b2a.onnx", "generator.onnx", "appearance/b.npy", "samples.npz"]


@pytest.mark.parametrize("file", FILES)
def test_a_missing_file(bundle_copy: Path, file: str) -> None:
    (bundle_copy / file).unlink()
    assert f"{file}: missing; copy the whole bundle folder" in refusal(bundle_copy)


@pytest.mark.parametrize("file", FILES)
def test_a_file_of_another_hash(bundle_copy: Path, file: str) -> None:
    content = bytearray((bundle_copy / file).read_bytes())
    content[len(content) // 2] ^= 1
    (bundle_copy / file).write_bytes(content)
    assert f"{file}: its SHA-256 differs from the manifest's" in refusal(bundle_copy)


def test_a_truncated_file(bundle_copy: Path) -> None:
    path = bundle_copy / "generator.onnx"
    path.write_bytes(path.read_bytes()[:-100])
    assert "generator.onnx: its SHA-256 differs" in refusal(bundle_copy)


def test_a_folder_in_place_of_a_file(bundle_copy: Path) -> None:
    (bundle_copy / "samples.npz").unlink()
    (bundle_copy / "samples.npz").mkdir()
    assert "samples.npz: missing" in refusal(bundle_copy)


PLACES: list[Callable[[Values, str], Any]] = [
    lambda values, file: values["graphs"][0].update(file=file),
    lambda values, file: values["appearance"]["a"].update(file=file),
    lambda values, file: values["samples"].update(file=file),
]


@pytest.mark.parametrize("place", PLACES, ids=["graph", "appearance", "samples"])
@pytest.mark.parametrize("kind", ["absolute", "parent", "back again", "zero byte"])
def test_a_path_outside_the_folder(bundle_copy: Path, place: Callable[[Values, str], Any], kind: str) -> None:
    outside = bundle_copy.parent / "secret"
    shutil.copy(bundle_copy / "extractor.onnx", outside)
    back = f"../{bundle_copy.name}/samples.npz"
    file = {"absolute": str(outside), "parent": "../secret", "back again": back, "zero byte": "a\0b"}[kind]
    edit(bundle_copy, lambda values: place(values, file))
    assert f"manifest.json names {file!r}, which is outside the bundle" in refusal(bundle_copy)


@pytest.mark.parametrize("file", ["extractor.onnx", "appearance/a.npy", "samples.npz"])
def test_a_symbolic_link_out_of_the_folder(bundle_copy: Path, file: str) -> None:
    outside = bundle_copy.parent / "elsewhere"
    os.rename(bundle_copy / file, outside)
    (bundle_copy / file).symlink_to(outside)
    assert f"names {file!r}, which is outside the bundle" in refusal(bundle_copy)


def test_a_linked_folder_out_of_the_folder(bundle_copy: Path) -> None:
    os.rename(bundle_copy / "appearance", bundle_copy.parent / "appearance")
    (bundle_copy / "appearance").symlink_to(bundle_copy.parent / "appearance")
    assert "names 'appearance/a.npy', which is outside the bundle" in refusal(bundle_copy)


def test_links_in_a_circle(bundle_copy: Path) -> None:
    (bundle_copy / "samples.npz").unlink()
    (bundle_copy / "samples.npz").symlink_to("samples.npz")
    assert "samples.npz: " in refusal(bundle_copy)


def test_a_bundle_reached_by_a_link_opens(bundle_copy: Path) -> None:
    link = bundle_copy.parent / "link"
    link.symlink_to(bundle_copy)
    assert open_bundle(link).config == TINY


@pytest.mark.parametrize(
    "change",
    [
        lambda values: values["graphs"][0]["inputs"][0].update(shape=["N", 128, 128, 3]),
        lambda values: values["graphs"][0]["outputs"][1].update(dtype="float16"),
        lambda values: values["graphs"][0]["outputs"][0].update(name="joints"),
        lambda values: values["graphs"][0]["outputs"].pop(),
        lambda values: values["config"].update(keypoints=11),
        lambda values: values["config"].update(size=128),
    ],
)
def test_a_wrong_shape(bundle_copy: Path, change: Callable[[Values], Any]) -> None:
    edit(bundle_copy, change)
    assert "graph extractor has shapes that do not follow from the model config" in refusal(bundle_copy)


def test_a_graph_too_few_or_unknown(bundle_copy: Path) -> None:
    edit(bundle_copy, lambda values: values["graphs"].pop(1))
    assert "the manifest lacks the graph stn-a2b" in refusal(bundle_copy)
    edit(bundle_copy, lambda values: values["graphs"][0].update(name="discriminator"))
    assert "unknown graph 'discriminator'" in refusal(bundle_copy)


@pytest.mark.parametrize(
    "change",
    [
        lambda values: values.pop("config"),
        lambda values: values["config"].update(size=65),
        lambda values: values["config"].update(width="wide"),
        lambda values: values.update(graphs=None),
        lambda values: values.update(graphs=[3]),
        lambda values: values["graphs"][0].pop("sha256"),
        lambda values: values["graphs"][0].update(file=7),
        lambda values: values["graphs"][0].update(precision=None),
        lambda values: values["graphs"][0].update(opset="twenty"),
        lambda values: values["graphs"][0].update(name=["extractor"]),
        lambda values: values.update(domains="cat"),
        lambda values: values["appearance"].pop("b"),
        lambda values: values["appearance"].update(b="appearance/b.npy"),
        lambda values: values.update(samples={"file": "samples.npz"}),
        lambda values: values["parity"][0].pop("max_abs"),
        lambda values: values["parity"][0].update(max_abs="small"),
        lambda values: values.update(quantisation=QUANTISATION | {"frames": "many"}),
        lambda values: values.update(quantisation=QUANTISATION | {"layers": 3}),
        lambda values: values.update(quantisation=[1]),
    ],
)
def test_a_damaged_manifest(bundle_copy: Path, change: Callable[[Values], Any]) -> None:
    edit(bundle_copy, change)
    assert "manifest.json: damaged manifest: " in refusal(bundle_copy)


def restamp(root: Path, kind: str) -> None:
    """Make the manifest's hash of appearance "a" or of the samples fit the changed file."""

    def change(values: Values) -> None:
        entry = values["appearance"]["a"] if kind == "appearance" else values["samples"]
        entry["sha256"] = stored_file(root, entry["file"]).sha256

    edit(root, change)


@pytest.mark.parametrize(
    "array", [np.zeros((1, 3, 16, 16), np.float32), np.zeros((1, 3, 32, 32)), np.array([{"a": 1}], dtype=object), None]
)
def test_an_appearance_of_another_kind(bundle_copy: Path, array: np.ndarray | None) -> None:
    path = bundle_copy / "appearance" / "a.npy"
    if array is None:
        path.write_bytes((bundle_copy / "samples.npz").read_bytes())
    else:
        np.save(path, array)
    restamp(bundle_copy, "appearance")
    with pytest.raises(BundleError, match=r"a\.npy: not an appearance: .*; export the bundle again"):
        open_bundle(bundle_copy).appearance("a")


@pytest.mark.parametrize("damage", ["not an archive", "an array", "one tensor less", "another shape", "unknown graph"])
def test_samples_of_another_kind(bundle_copy: Path, damage: str) -> None:
    path = bundle_copy / "samples.npz"
    with np.load(path) as arrays:
        tensors = dict(arrays)
    if damage == "not an archive":
        path.write_bytes(b"PK\x03\x04 but no more")
    elif damage == "an array":
        path.write_bytes((bundle_copy / "appearance" / "b.npy").read_bytes())
    else:
        if damage == "one tensor less":
            del tensors["stn-a2b.warped"]
        elif damage == "another shape":
            tensors["extractor.keypoints"] = tensors["extractor.keypoints"][..., :1]
        else:
            tensors["critic.scores"] = np.zeros(3)
        np.savez(path, **tensors)
    restamp(bundle_copy, "samples")
    with pytest.raises(BundleError, match=r"samples\.npz: not parity samples: .*; export the bundle again"):
        open_bundle(bundle_copy).samples()


def test_a_tensor_spec_fits_any_batch_and_nothing_else() -> None:
    spec = TensorSpec("keypoints", ("N", 10, 2), "float32", -1, 1)
    for batch in (1, 5):
        spec.check(np.zeros((batch, 10, 2), np.float32))
    for array in (np.zeros((10, 2), np.float32), np.zeros((1, 9, 2), np.float32), np.zeros((1, 10, 2)), np.float32(0)):
        with pytest.raises(ValueError, match="keypoints is"):
            spec.check(array)
