"""The custom operator's ONNX body against torch's own sampling."""

import json

import numpy as np
import onnx
import onnx.parser
import onnxruntime as ort
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from export.op import ATTRIBUTES, function_body
from jokr_rt.training.networks import affine_grid_sample
from tests import tolerances
from tests.tiny import max_error


def sampler(align_corners: int, kind: str = "float") -> ort.InferenceSession:
    """A graph of nothing but the operator, every side dynamic."""
    attributes = ATTRIBUTES | {"align_corners": align_corners}
    listed = ", ".join(f"{name} = {json.dumps(value)}" for name, value in attributes.items())
    proto = onnx.parser.parse_model(
        f"""<ir_version: 10, opset_import: ["" : 20, "jokr" : 1]>
        sampler ({kind}[N, C, H, W] heatmaps, float[N, 2, 3] theta) => ({kind}[N, C, H, W] sampled)
        {{ sampled = jokr.AffineGridSample <{listed}> (heatmaps, theta) }}"""
    )
    proto.functions.append(function_body())
    onnx.checker.check_model(proto, full_check=True)
    return ort.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])


SAMPLERS = {align_corners: sampler(align_corners) for align_corners in (0, 1)}


@settings(max_examples=100, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    batch=st.integers(1, 3),
    channels=st.integers(1, 4),
    height=st.integers(2, 33),
    width=st.integers(2, 33),
    reach=st.sampled_from([0.0, 0.3, 1.0, 4.0]),
    align_corners=st.sampled_from([0, 1]),
)
def test_operators_body_samples_as_torch_does(
    seed: int, batch: int, channels: int, height: int, width: int, reach: float, align_corners: int
) -> None:
    """From the identity (reach 0) to maps that look mostly outside (reach 4), on odd and even sizes."""
    random = np.random.default_rng(seed)
    heatmaps = random.random((batch, channels, height, width), np.float32)
    theta = (np.eye(2, 3) + reach * random.standard_normal((batch, 2, 3))).astype(np.float32)
    (found,) = SAMPLERS[align_corners].run(None, {"heatmaps": heatmaps, "theta": theta})
    aligned = bool(align_corners)
    grid = F.affine_grid(torch.from_numpy(theta), [batch, channels, height, width], align_corners=aligned)
    expected = F.grid_sample(torch.from_numpy(heatmaps), grid, align_corners=aligned)
    assert max_error(found, expected) <= tolerances.FP32
    if not aligned:
        assert torch.equal(affine_grid_sample(torch.from_numpy(heatmaps), torch.from_numpy(theta)), expected)


def test_operators_body_is_zero_where_it_looks_outside() -> None:
    theta = np.array([[[1, 0, 5], [0, 1, 0]]], np.float32)
    (found,) = SAMPLERS[0].run(None, {"heatmaps": np.ones((1, 2, 7, 9), np.float32), "theta": theta})
    assert np.array_equal(found, np.zeros((1, 2, 7, 9), np.float32))


def test_operators_body_samples_16_bit_heatmaps_on_a_32_bit_grid() -> None:
    """A grid rounded to 16 bits would be off by ten times the tolerance."""
    random = np.random.default_rng(0)
    heatmaps = random.random((2, 3, 128, 128), np.float32)
    theta = (np.eye(2, 3) + 0.2 * random.standard_normal((2, 2, 3))).astype(np.float32)
    (found,) = sampler(0, "float16").run(None, {"heatmaps": heatmaps.astype(np.float16), "theta": theta})
    assert found.dtype == np.float16
    expected = affine_grid_sample(torch.from_numpy(heatmaps), torch.from_numpy(theta))
    assert max_error(found, expected) <= tolerances.FP16
