"""OpenVINO runs in the precision that is reported, and copies no frame."""

from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import openvino as ov
import pytest
import torch

from jokr_rt import Frame, Retargeter, open_bundle
from jokr_rt.bundle import Bundle
from jokr_rt.engines import choose_precision, load_engine, openvino
from jokr_rt.errors import EngineError, UsageError
from jokr_rt.training.networks import Model, affine_grid_sample, render_heatmaps
from tests.process import ROOT
from tests.quantised import FRAMES, assert_near, drawn
from tests.tiny import TINY, creature_frames
from tests.tolerances import FP32, LEVELS

needs_bf16 = pytest.mark.skipif(bool(openvino.lacks("bf16")), reason=openvino.lacks("bf16"))


def heavy_layers(compiled: ov.CompiledModel) -> set[str]:
    facts = [node.get_rt_info() for node in compiled.get_runtime_model().get_ops()]
    return {each["runtimePrecision"].value for each in facts if each["layerType"].value == "Convolution"}


@pytest.mark.parametrize(
    ("precision", "kinds"),
    [("fp32", {"f32"}), pytest.param("bf16", {"bf16"}, marks=needs_bf16), ("int8", {"u8", "i8"})],
)
def test_the_reported_precision_is_the_one_that_ran(
    int8_bundle: Bundle, model_cache: Path, precision: str, kinds: set[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Compiled anew, and out of the cache: left alone, OpenVINO imports a model of float32 in bfloat16."""
    compiled: list[ov.CompiledModel] = []
    check = openvino.OpenVinoEngine._check_precision
    monkeypatch.setattr(
        openvino.OpenVinoEngine,
        "_check_precision",
        lambda engine, what, models: compiled.extend(models) or check(engine, what, models),
    )
    for _ in range(2):
        compiled.clear()
        engine = load_engine("openvino", int8_bundle, precision)
        drawn(int8_bundle, engine)
        assert engine.precision == precision
        extract, place, paint = compiled
        assert heavy_layers(extract) <= kinds
        assert heavy_layers(paint) <= kinds
        assert openvino.lowest_precision([place]) == "fp32"
        assert openvino.lowest_precision(compiled) == precision


@pytest.mark.parametrize("precision", ["fp32", pytest.param("bf16", marks=needs_bf16), "int8"])
def test_modes_draw_the_same_in_every_precision(int8_bundle: Bundle, precision: str) -> None:
    """And not what another precision draws."""
    expected = drawn(int8_bundle, load_engine("openvino", int8_bundle, precision))
    found = drawn(int8_bundle, load_engine("openvino", int8_bundle, precision), "throughput")
    assert_near(found, expected, FP32, LEVELS / 10)
    exact = drawn(int8_bundle, load_engine("onnxruntime", int8_bundle, "fp32"))
    error = max(np.abs(one.keypoints - other.keypoints).max() for one, other in zip(found, exact, strict=True))
    low, high = {"fp32": (0, FP32), "bf16": (FP32, 0.2), "int8": (FP32, 0.5)}[precision]  # untrained, it magnifies
    assert low <= error <= high


@needs_bf16
@pytest.mark.parametrize("direction", ["a2b", "b2a"])
def test_a_trained_model_loses_little_in_bf16(direction: str) -> None:
    """With its map in bfloat16, too, it would be 47 dB."""
    bundle = open_bundle(ROOT / "examples" / "puppets.jokr")
    frames = [Frame(rgb, 0, Fraction(1)) for rgb in bundle.samples()["extractor"]["frame"]]
    low, exact = (
        np.stack([Retargeter(bundle, direction, load_engine("openvino", bundle, precision))(frame).rgb
                  for frame in frames])
        for precision in ("bf16", "fp32")
    )  # fmt: skip
    squared = np.mean((low.astype(float) - exact) ** 2)
    assert 52 < 10 * np.log10(255**2 / squared) < 80


@needs_bf16
def test_what_ran_otherwise_than_asked_is_an_error(bundle: Bundle) -> None:
    engine = load_engine("openvino", bundle, "bf16")
    engine._low = ov.Type.f32  # type: ignore[attr-defined]
    with pytest.raises(EngineError) as caught:
        Retargeter(bundle, engine=engine)
    assert str(caught.value) == "openvino: a2b was to run in bf16, and OpenVINO compiled it to fp32"
    with pytest.raises(EngineError, match="openvino: generator was to run in bf16, and OpenVINO compiled it to fp32"):
        engine.run("generator", {"warped": np.zeros((1, 10, 32, 32), np.float32), "appearance": bundle.appearance("b")})


@pytest.mark.parametrize("precision", [pytest.param("bf16", marks=needs_bf16), "int8"])
def test_where_things_are_is_computed_in_float32(int8_bundle: Bundle, model: Model, precision: str) -> None:
    """theta in bfloat16 is off by half a percent."""
    keypoints = np.random.default_rng(0).uniform(-1, 1, (3, TINY.keypoints, 2)).astype(np.float32)
    found = load_engine("openvino", int8_bundle, precision).run("stn-a2b", {"keypoints": keypoints})
    theta = model.stn_a2b.theta.detach().double().expand(3, 2, 3).contiguous()
    warped = affine_grid_sample(render_heatmaps(torch.from_numpy(keypoints).double(), TINY.heatmap_size), theta)
    assert theta.abs().max() > 1
    np.testing.assert_allclose(found["theta"], theta, rtol=0, atol=FP32)
    np.testing.assert_allclose(found["warped"], warped, rtol=0, atol=FP32)


def test_a_processor_without_bf16(int8_bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(openvino, "_has_bf16", lambda: False)
    with pytest.raises(UsageError) as caught:
        load_engine("openvino", int8_bundle, "bf16")
    assert str(caught.value) == (
        "engine openvino cannot run bf16: this processor has no bfloat16 arithmetic (AVX-512 BF16 or AMX); "
        "choose another --precision"
    )
    engine = load_engine("openvino", int8_bundle)
    drawn(int8_bundle, engine)
    assert engine.precision == "int8"


def test_the_default_is_the_fastest_that_was_measured(bundle: Bundle, int8_bundle: Bundle) -> None:
    """A hint, such as bf16, counts where the bundle has figures for it; asked for, it runs with any."""
    assert load_engine("openvino", bundle).precision == "fp32"
    assert load_engine("openvino", int8_bundle).precision == "int8"
    measured = Bundle(**{**vars(bundle), "parity": [*bundle.parity, *_as_bf16(bundle)]})
    assert choose_precision("openvino", measured, None) == "bf16"
    assert choose_precision("openvino", measured, None, lambda each: "no" if each == "bf16" else "") == "fp32"
    assert choose_precision("onnxruntime", measured, None) == "fp32"
    assert choose_precision("openvino", bundle, "bf16") == "bf16"


def _as_bf16(bundle: Bundle) -> Iterator[Any]:
    return (type(figure)(**{**vars(figure), "precision": "bf16"}) for figure in bundle.parity)


def test_onnxruntime_says_why_it_has_no_int8(int8_bundle: Bundle) -> None:
    with pytest.raises(UsageError, match="engine onnxruntime has no int8: its kernels are fast only where .* openvino"):
        load_engine("onnxruntime", int8_bundle, "int8")
    assert load_engine("onnxruntime", int8_bundle).precision == "fp32"


def test_a_frame_is_not_copied() -> None:
    frame = creature_frames(1, TINY.size, seed=0)
    assert openvino._shared(frame).data.ctypes.data == frame.ctypes.data
    frame.flags.writeable = False
    lines = np.zeros((1, 64, 80, 3), np.uint8)[:, :, :64]
    for array in (frame, lines):  # which OpenVINO refuses to share
        tensor = openvino._shared(array)
        assert np.array_equal(tensor.data, array)


def test_read_only_frames_and_such_with_a_margin_draw_the_same(bundle: Bundle) -> None:
    retargeter = Retargeter(bundle, engine="openvino")
    expected = retargeter(FRAMES[0]).rgb
    fixed = FRAMES[0].rgb.copy()
    fixed.flags.writeable = False
    wide = np.zeros((64, 80, 3), np.uint8)
    wide[:, :64] = fixed
    for rgb in (fixed, wide[:, :64]):
        assert np.array_equal(retargeter(Frame(rgb, 0, Fraction(1))).rgb, expected)


def test_results_are_the_callers(bundle: Bundle) -> None:
    for mode in ("latency", "throughput"):
        retargeter = Retargeter(bundle, engine="openvino", mode=mode)
        first = retargeter.retarget(FRAMES[0])
        kept = first.image.rgb.copy(), first.keypoints.copy(), first.confidence.copy()
        for frame in FRAMES[1:]:
            assert not np.array_equal(retargeter(frame).rgb, kept[0])
        for found, before in zip((first.image.rgb, first.keypoints, first.confidence), kept, strict=True):
            assert np.array_equal(found, before)
        first.image.rgb[:] = 0  # and may be changed
        assert np.array_equal(retargeter(FRAMES[0]).rgb, kept[0])
