"""The looks of a target, and the bundle's folder: whole, or not there at all."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
import torch.nn.functional as F
from torch import nn

import export.bundle
import export.checkpoint
from export import export_bundle
from jokr_rt.bundle import Bundle, open_bundle
from jokr_rt.errors import CheckpointError, OutputError, ParityError
from jokr_rt.training.appearance import choose_appearance
from jokr_rt.training.checkpoint import load_checkpoint, save_checkpoint
from tests import tolerances
from tests.tiny import TINY, perturbed

GRAPHS = ("extractor", "stn-a2b", "stn-b2a", "generator")


class LooksAreFrames(nn.Module):
    """A model whose appearance is the frame itself, and whose drawing is its appearance."""

    config = TINY

    def extractor(self, frames: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return torch.zeros(len(frames), TINY.keypoints, 4, 4), F.avg_pool2d(frames, 2)

    def generator(self, warped: torch.Tensor, appearance: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return F.interpolate(appearance, scale_factor=2), warped


@pytest.mark.parametrize(("levels", "best"), [([250, 90, 0], 90), ([0, 10, 20, 30, 255], 20), ([77], 77)])
def test_appearance_is_the_one_that_redraws_the_other_frames_best(levels: list[int], best: int) -> None:
    references = np.stack([np.full((TINY.size, TINY.size, 3), level, np.uint8) for level in levels])
    found = choose_appearance(LooksAreFrames(), references)  # type: ignore[arg-type]
    assert found.shape == (1, 3, TINY.heatmap_size, TINY.heatmap_size)
    assert found.dtype == np.float32
    assert np.abs(found - (best / 127.5 - 1)).max() <= tolerances.REWRITE


def test_stored_appearance_is_read_off_a_reference_frame(bundle: Bundle, tiny_checkpoint: Path) -> None:
    checkpoint = load_checkpoint(tiny_checkpoint)
    for domain, frames in checkpoint.references.items():
        with torch.no_grad():
            _, looks = checkpoint.model.extractor(torch.from_numpy(frames).permute(0, 3, 1, 2) / 127.5 - 1)
        distances = np.abs(looks.numpy() - bundle.appearance(domain)).max((1, 2, 3))
        assert distances.min() <= tolerances.REWRITE
        assert distances.max() > 0.1  # the frames do look different


@pytest.fixture
def stored_graphs(monkeypatch: pytest.MonkeyPatch, bundle: Bundle) -> dict[str, onnx.ModelProto]:
    """The graphs of `tiny_bundle`, given out instead of exported again: a test may damage one of them first."""
    graphs = {name: onnx.load(bundle.graph_path(name)) for name in GRAPHS}
    monkeypatch.setattr(export.checkpoint, "export_graph", lambda name, stage, config: graphs[name])
    return graphs


def content(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()}


def test_bundle_holds_these_files(tiny_bundle: Path) -> None:
    graphs = [f"{name}.onnx" for name in GRAPHS]
    others = ["appearance/a.npy", "appearance/b.npy", "manifest.json", "samples.npz"]
    assert sorted(content(tiny_bundle)) == sorted(graphs + others)
    assert {path.name for path in tiny_bundle.parent.iterdir()} == {tiny_bundle.name}  # nothing temporary is left


@pytest.mark.usefixtures("stored_graphs")
def test_export_tells_its_progress(tiny_checkpoint: Path, tiny_bundle: Path, tmp_path: Path) -> None:
    told: list[str] = []
    bundle = export_bundle(tiny_checkpoint, tmp_path / "again.jokr", progress=told.append)
    assert told == [
        *(f"exporting {name} in fp32" for name in GRAPHS),
        "choosing the looks of cat",
        "choosing the looks of fox",
        "comparing fp32 with PyTorch",
    ]
    assert {(graph.precision, graph.opset) for graph in bundle.graphs} == {("fp32", 20)}
    first, second = content(tiny_bundle), content(tmp_path / "again.jokr")
    assert first.keys() == second.keys()
    assert all(first[name] == second[name] for name in first if name.endswith(".npy"))


@pytest.mark.usefixtures("stored_graphs")
def test_only_overwrite_replaces_a_bundle(tiny_checkpoint: Path, bundle_copy: Path, tmp_path: Path) -> None:
    checkpoint = tmp_path / "other.safetensors"
    save_checkpoint(checkpoint, replace(load_checkpoint(tiny_checkpoint), domains={"a": "dog", "b": "frög"}))
    with pytest.raises(OutputError, match="copy.jokr: exists; .*--overwrite"):
        export_bundle(checkpoint, bundle_copy)
    assert open_bundle(bundle_copy).domains == {"a": "cat", "b": "fox"}
    (bundle_copy / "left-over").write_text("of the old bundle")
    bundle = export_bundle(checkpoint, bundle_copy, overwrite=True)
    assert bundle.domains == open_bundle(bundle_copy).domains == {"a": "dog", "b": "frög"}
    assert not (bundle_copy / "left-over").exists()
    assert {path.name for path in tmp_path.iterdir()} == {checkpoint.name, bundle_copy.name}


@pytest.mark.parametrize("exists", [False, True])
def test_failed_parity_leaves_nothing_behind_and_what_was_there_intact(
    tiny_checkpoint: Path, bundle_copy: Path, stored_graphs: dict[str, onnx.ModelProto], exists: bool
) -> None:
    perturbed(stored_graphs["stn-a2b"], "transformer.theta", 0.01)
    before = content(bundle_copy)
    if not exists:
        shutil.rmtree(bundle_copy)
    with pytest.raises(ParityError, match=r"stn-a2b \(onnxruntime, fp32\): theta differs from PyTorch's by 0.01, more"):
        export_bundle(tiny_checkpoint, bundle_copy, overwrite=True)
    assert {path.name for path in bundle_copy.parent.iterdir()} == ({bundle_copy.name} if exists else set())
    if exists:
        assert content(bundle_copy) == before


@pytest.mark.usefixtures("stored_graphs")
def test_a_bundle_that_cannot_be_renamed_leaves_the_old_one(
    tiny_checkpoint: Path, bundle_copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, rename = content(bundle_copy), export.bundle.os.rename

    def refuse_new(source: Path, target: Path) -> None:
        if Path(source).name == "new":
            raise PermissionError(13, "Permission denied", str(target))
        rename(source, target)

    monkeypatch.setattr(export.bundle.os, "rename", refuse_new)
    with pytest.raises(OutputError, match="copy.jokr: cannot be written: .*Permission denied"):
        export_bundle(tiny_checkpoint, bundle_copy, overwrite=True)
    assert content(bundle_copy) == before
    assert {path.name for path in bundle_copy.parent.iterdir()} == {bundle_copy.name}


def test_overwrite_never_replaces_what_is_not_a_bundle(tiny_checkpoint: Path, tmp_path: Path) -> None:
    folder, file = tmp_path / "photos", tmp_path / "notes.txt"
    folder.mkdir()
    (folder / "cat.jpg").write_bytes(b"cat")
    file.write_text("mine")
    for output in (folder, file):
        with pytest.raises(OutputError, match="exists and is not a bundle; choose another name"):
            export_bundle(tiny_checkpoint, output, overwrite=True)
    assert (folder / "cat.jpg").read_bytes() == b"cat"
    assert file.read_text() == "mine"


def test_output_in_a_missing_folder(tiny_checkpoint: Path, tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="nowhere: no such folder; create it first"):
        export_bundle(tiny_checkpoint, tmp_path / "nowhere" / "x.jokr")
    assert list(tmp_path.iterdir()) == []


def test_a_checkpoint_that_is_none_leaves_nothing_behind(tmp_path: Path) -> None:
    pickled = tmp_path / "model.pt"
    torch.save({"weights": torch.zeros(3)}, pickled)
    with pytest.raises(CheckpointError, match="model.pt"):
        export_bundle(pickled, tmp_path / "x.jokr")
    assert list(tmp_path.iterdir()) == [pickled]
