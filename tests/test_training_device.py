"""Training on a device that is not the processor, where there is none: PyTorch's "meta" stands for it.

Its tensors have a place and a shape and no values, so that a whole run can be followed: whatever computes with tensors
of both places at once, which a GPU refuses, fails here too.
"""

from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from jokr_rt.config import ModelConfig
from jokr_rt.training import train
from jokr_rt.training.auto import measure_pace
from jokr_rt.training.checkpoint import load_checkpoint
from jokr_rt.training.losses import LossWeights
from jokr_rt.training.options import TrainOptions
from jokr_rt.training.train import CHECKPOINT, Training
from jokr_rt.training.views import _Loader
from tests.tiny import creature_clips

DEVICE = torch.device("meta")
OPTIONS = TrainOptions(
    ModelConfig(4, 128, 1 / 16, 64), steps=4, geometry=0.5, coarse=0.5, batch=2, sheet_every=100, save_every=100,
    precision="bf16", weights=LossWeights(temporal=1.0),
)  # fmt: skip
HEALTHY = [[1.0, 1.0]] * 4  # as a step's sights


class OnePlace(TorchDispatchMode):
    """Refuses what computes with tensors of two devices, as a GPU does; single numbers may come from anywhere."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is not torch.ops.aten.copy_.default:
            tensors = (value for value in tree_leaves((args, kwargs)) if isinstance(value, Tensor))
            places = {tensor.device for tensor in tensors if tensor.dim() > 0}
            assert len(places) < 2, f"{func} of tensors on {places}"
        return func(*args, **kwargs)


class Generator(torch.Generator):
    """Of the processor; says that it is on the device, which has none."""

    device = DEVICE

    def __new__(cls, device: object = None) -> "Generator":
        return super().__new__(cls)


def _or(stand_in: object, known: Callable[[Tensor], object]) -> Callable[[Tensor], object]:
    return lambda tensor: stand_in if tensor.is_meta else known(tensor)


@pytest.fixture(autouse=True)
def values(monkeypatch: pytest.MonkeyPatch) -> None:
    """What has no value is a healthy one where a run looks."""
    monkeypatch.setattr(torch, "Generator", Generator)
    monkeypatch.setattr(torch, "autocast", lambda *args, **options: nullcontext())  # knows no "meta", moves nothing
    stand_ins = {"__bool__": True, "__float__": 0.5, "item": 0.5, "tolist": HEALTHY}
    for name, stand_in in stand_ins.items():
        monkeypatch.setattr(Tensor, name, _or(stand_in, getattr(Tensor, name)))
    off_device = Tensor.cpu
    monkeypatch.setattr(
        Tensor, "cpu", lambda tensor: torch.zeros_like(tensor, device="cpu") if tensor.is_meta else off_device(tensor)
    )
    monkeypatch.setattr(train, "STATISTICS_BATCHES", 1)
    monkeypatch.setattr(_Loader, "batch", _Loader.make)  # in this thread, which is the one that is watched


def test_the_watch_refuses_what_a_gpu_refuses() -> None:
    with OnePlace(), pytest.raises(AssertionError, match=r"aten\.add\.Tensor of tensors on "):
        torch.ones(2) + torch.ones(2, device=DEVICE)
    with OnePlace():
        assert (torch.ones(2, device=DEVICE) * torch.tensor(2.0)).to("meta").device == DEVICE


def test_a_whole_run_keeps_to_its_device(tmp_path: Path) -> None:
    """Both stages, each with its sheet."""
    with OnePlace():
        training = Training(creature_clips(4, OPTIONS.config.size), OPTIONS, tmp_path, DEVICE)
        checkpoint = training.run(lambda *about: None)
    assert {tensor.device for tensor in checkpoint.model.state_dict().values()} == {DEVICE}
    assert load_checkpoint(tmp_path / CHECKPOINT).step == 4
    assert sorted(path.name for path in tmp_path.glob("sheet-*.png")) == ["sheet-000002.png", "sheet-000004.png"]


@pytest.mark.filterwarnings("ignore:.*meta parameter in the current model:UserWarning")
@pytest.mark.parametrize("begun", [1, 3])
def test_a_resumed_run_keeps_to_its_device(tmp_path: Path, begun: int) -> None:
    clips = creature_clips(4, OPTIONS.config.size)
    with OnePlace():
        training = Training(clips, OPTIONS, tmp_path, DEVICE)
        while training.step < begun:
            training._advance()
            if training.stage_step == training.stage_steps:
                training._begin_texture()
        training.save()
        again = Training(clips, OPTIONS, tmp_path, DEVICE)
        again.resume()
        assert (again.step, again.in_geometry) == (begun, begun < 2)
        again._advance()


def test_the_pace_is_measured_on_the_device() -> None:
    with OnePlace():
        pace = measure_pace(OPTIONS, DEVICE)
    assert min(pace.geometry, pace.coarse, pace.texture) > 0
