"""Rewrites before export leave every result as it is."""

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from export.subpixel import SubpixelConv, rewritten
from jokr_rt.training.networks import Model, render_heatmaps
from tests import tolerances
from tests.tiny import TINY, creature_frames, max_error


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    batch=st.integers(1, 2),
    inputs=st.integers(1, 9),
    outputs=st.integers(1, 9),
    height=st.integers(1, 9),
    width=st.integers(1, 9),
    bias=st.booleans(),
)
def test_subpixel_convolution_equals_the_transposed_one(
    seed: int, batch: int, inputs: int, outputs: int, height: int, width: int, bias: bool
) -> None:
    generator = torch.Generator().manual_seed(seed)
    transposed = nn.ConvTranspose2d(inputs, outputs, kernel_size=4, stride=2, padding=1, bias=bias)
    with torch.no_grad():
        for parameter in transposed.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) / 4)
        features = torch.randn((batch, inputs, height, width), generator=generator)
        expected = transposed(features)
        assert expected.shape == (batch, outputs, 2 * height, 2 * width)
        assert max_error(SubpixelConv(transposed)(features).numpy(), expected) <= tolerances.REWRITE
        activated = SubpixelConv(transposed, nn.ReLU())(features)
        assert max_error(activated.numpy(), expected.relu()) <= tolerances.REWRITE


@pytest.mark.parametrize(
    "geometry",
    [
        {"kernel_size": 3, "stride": 2, "padding": 1},
        {"kernel_size": 4, "stride": 1, "padding": 1},
        {"kernel_size": 4, "stride": 2, "padding": 0},
        {"kernel_size": 4, "stride": 2, "padding": 1, "output_padding": 1},
        {"kernel_size": 4, "stride": 2, "padding": 1, "groups": 2},
        {"kernel_size": 4, "stride": 2, "padding": 1, "dilation": 2},
    ],
)
def test_subpixel_convolution_refuses_other_geometry(geometry: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="only kernel 4, stride 2, padding 1"):
        SubpixelConv(nn.ConvTranspose2d(4, 4, **geometry))


def test_rewritten_model_computes_the_same_and_the_original_stays(model: Model) -> None:
    """In float64, where an exact rewrite shows no difference at all."""
    model = copy.deepcopy(model).double()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    changed = rewritten(model)
    assert not [module for module in changed.modules() if isinstance(module, nn.BatchNorm2d | nn.ConvTranspose2d)]
    assert sum(isinstance(module, SubpixelConv) for module in changed.modules()) == 9
    frames = torch.from_numpy(creature_frames(2, TINY.size, seed=3)).permute(0, 3, 1, 2).double() / 127.5 - 1
    random = torch.Generator().manual_seed(0)
    keypoints = torch.rand(2, TINY.keypoints, 2, generator=random, dtype=torch.float64) * 2 - 1
    heatmaps = render_heatmaps(keypoints, TINY.heatmap_size)
    with torch.no_grad():
        for found, expected in zip(changed.extractor(frames), model.extractor(frames), strict=True):
            assert max_error(found.numpy(), expected) <= tolerances.EXACT
        looks = model.extractor(frames)[1]
        for found, expected in zip(changed.generator(heatmaps, looks), model.generator(heatmaps, looks), strict=True):
            assert max_error(found.numpy(), expected) <= tolerances.EXACT
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
