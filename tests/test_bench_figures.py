"""The arithmetic of `jokr bench`: on known numbers, and of a model's layers against PyTorch's own counting."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from jokr_rt.bench import cost
from jokr_rt.bench.figures import PSNR_CAP, Bar, Floor, percentiles, psnr_db, ratio
from jokr_rt.bench.results import Peaks, Subject, results, rows
from jokr_rt.bench.tables import benchmark_tables, skipped
from jokr_rt.bench.variants import Variant, choose_variants
from jokr_rt.bundle import open_bundle
from jokr_rt.config import PRESETS, ModelConfig
from jokr_rt.errors import UsageError
from jokr_rt.training.networks import Model
from tests.tiny import TINY

CONFIGS = [*PRESETS.values(), TINY, ModelConfig(keypoints=20, size=128, width=0.25, extractor_size=64)]


@pytest.mark.parametrize("config", CONFIGS, ids=str)
def test_flops_and_weights_are_those_that_pytorch_counts(config: ModelConfig) -> None:
    with torch.device("meta"):
        model = Model(config).eval()
        frame = torch.zeros(1, 3, config.size, config.size)
        maps, looks = (torch.zeros(1, count, *[config.heatmap_size] * 2) for count in (config.keypoints, 3))
    calls = {
        "extractor": lambda: model.extractor.find(frame),
        "generator": lambda: model.generator(maps, looks),
    }
    counted = {}
    for stage, call in calls.items():
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            call()
        counted[stage] = counter.get_total_flops()
    assert cost.flops(config) == counted
    parts = (model.extractor.encoder, model.extractor.decoder, model.extractor.keypoint_head, model.generator)
    kernels = [parameter for part in parts for parameter in part.parameters() if parameter.dim() > 1]
    assert cost.weights(config) == sum(kernel.numel() for kernel in kernels)


@pytest.mark.parametrize(("preset", "gflop"), [("full", 6.21), ("realtime", 1.63), ("small", 0.47)])
def test_a_preset_costs_what_the_readme_says(preset: str, gflop: float) -> None:
    assert sum(cost.flops(PRESETS[preset]).values()) == pytest.approx(gflop * 1e9, rel=0.005)


def test_percentiles_are_measured_values() -> None:
    assert percentiles([float(value) for value in range(2000, 0, -1)]) == {"p50": 1000, "p95": 1900, "p99": 1980}
    assert percentiles([3.0]) == {"p50": 3, "p95": 3, "p99": 3}
    assert percentiles([1.0, 2.0, 9.0]) == {"p50": 2, "p95": 9, "p99": 9}


def test_the_floor_is_the_slower_of_arithmetic_and_memory() -> None:
    by_memory = Floor(flops=13.5e9, nbytes=80e6, peak=800e12, bandwidth=3e12)
    assert by_memory.compute_ms == pytest.approx(0.016875)
    assert by_memory.ms == by_memory.memory_ms == pytest.approx(0.0266667, rel=1e-5)
    by_compute = Floor(flops=13.5e9, nbytes=80e6, peak=50e12, bandwidth=3e12)
    assert by_compute.ms == by_compute.compute_ms == pytest.approx(0.27)
    assert by_compute.to_json() == {
        "flops": 13.5e9,
        "bytes": 80e6,
        "compute_ms": by_compute.compute_ms,
        "memory_ms": by_compute.memory_ms,
    }


def test_psnr_is_of_all_pixels_together() -> None:
    one, other = np.zeros((2, 4, 4, 3), np.uint8), np.zeros((2, 4, 4, 3), np.uint8)
    assert psnr_db(one, other) == PSNR_CAP == 100
    other[1] = 255  # one picture of two
    assert psnr_db(one, other) == pytest.approx(10 * np.log10(2))
    other[1] = 2
    assert psnr_db(one, other) == psnr_db(other, one) == pytest.approx(10 * np.log10(255**2 / 2))


def test_a_ratio_needs_both_and_a_bar_its_value() -> None:
    assert (ratio(6, 2), ratio(None, 2), ratio(6, None)) == (3, None, None)
    bars = [
        Bar("a", 6, 5, "fps"),
        Bar("b", 6, 5, "MB", is_lower_better=True),
        Bar("c", 5, 5, ""),
        Bar("d", None, 5, ""),
    ]
    assert [bar.verdict for bar in bars] == ["met", "missed", "met", "not measured"]


def measured(engine: str, precision: str, mode: str, milliseconds: list[float], fps: list[float]) -> Variant:
    return Variant(engine, precision, mode, milliseconds={"frame": milliseconds}, fps=fps)


def test_rows_are_ratios_of_medians() -> None:
    eager = measured("torch", "fp32", "latency", [30.0, 10.0, 20.0], [50.0, 51.0, 99.0])
    eager.runs = [{"seconds": 96 / 5, "first_frame_s": None, "peak_bytes": 3, "frames": 96}]
    single = measured("openvino", "int8", "latency", [4.0, 4.0, 9.0], [1.0, 1.0, 1.0])
    several = measured("openvino", "int8", "throughput", [8.0, 8.0, 9.0], [400.0, 500.0, 100.0])
    several.psnr_db = 45.0
    runs = zip((40.0, 20.0, 30.0), (1.0, 0.5, None), (7, 9, 8), strict=True)
    several.runs = [
        {"seconds": 96 / fps, "first_frame_s": first, "peak_bytes": peak, "frames": 96} for fps, first, peak in runs
    ]
    other = measured("onnxruntime", "fp16", "latency", [40.0], [1.0])
    one, two, three, four = rows([eager, single, several, other], {"int8": Floor(2e9, 0, 1e12, 1e9)})
    assert [row["ms"] for row in (one, two, three, four)] == [20, 4, 2.5, 40]
    assert [row["inference_fps"] for row in (one, two, three, four)] == [50, 250, 400, 25]
    assert [row["ratio_to_eager"] for row in (one, two, three, four)] == [1, 5, 8, 0.5]
    assert [row["ratio_to_floor"] for row in (one, two, three, four)] == [None, 2, 1.25, None]
    assert [row["repeats"] for row in (one, two, three, four)] == [3, 3, 3, 1]
    assert two["latency_ms"] == {"frame": {"p50": 4, "p95": 9, "p99": 9}}
    assert "end_to_end_fps" not in two
    assert (three["end_to_end_fps"], three["end_to_end_fps_range"], three["end_to_end_ratio"]) == (30, [20, 40], 6)
    assert (three["first_frame_s"], three["peak_bytes"], three["frames"]) == (0.75, 9, 96)
    assert (one["first_frame_s"], one["end_to_end_ratio"]) == (None, 1)


def test_what_did_not_run_is_a_row_with_the_reason() -> None:
    both = [Variant("openvino", "int8", mode, reason="no int8") for mode in ("latency", "throughput")]
    crashed = Variant("openvino", "fp32", "throughput", reason="crashed")
    found = rows([*both, measured("openvino", "fp32", "latency", [1.0], [1.0]), crashed], {})
    assert found[0] == {"engine": "openvino", "precision": "int8", "mode": None, "skipped": "no int8"}
    assert [row["precision"] for row in found] == ["int8", "fp32", "fp32"]
    assert found[1]["ratio_to_eager"] is None
    assert found[2] == {"engine": "openvino", "precision": "fp32", "mode": "throughput", "skipped": "crashed"}


def test_peaks_are_of_the_layer_that_is_fastest_in_the_median_turn() -> None:
    peaks = Peaks()
    for one, other, read in ((1e11, 3e11, 1e9), (2e11, 1e11, 3e9), (9e11, 2e11, 2e9)):
        peaks.add({"flops_per_s": {"fp32": {"one": one, "other": other}}, "read_bytes_per_s": read})
    assert peaks.flops_per_s == {"fp32": 2e11}
    assert peaks.read_bytes_per_s == 2e9
    floor = peaks.floors(TINY)["fp32"]
    assert floor.flops == sum(cost.flops(TINY).values())
    assert floor.nbytes == 4 * cost.weights(TINY) + 2 * 64 * 64 * 3
    assert floor.compute_ms == pytest.approx(floor.flops / 2e11 * 1e3)


def test_a_report_without_a_floor_says_why(tiny_bundle: Path) -> None:
    subject, variant = (
        Subject("tiny", open_bundle(tiny_bundle)),
        measured("torch", "fp32", "latency", [1.234567], [1.0]),
    )
    found = results({}, subject, [variant], Peaks("no openvino"))
    assert found["floor"] == {"skipped": "no openvino"}
    assert found["variants"][0]["ms"] == 1.2346
    assert skipped(found) == [("the machine's floor", "no openvino")]
    assert [table.title for table in benchmark_tables(found)] == ["tiny: 64 x 64, 0.00444 GFLOP a frame", "Latency"]


def test_all_variants_and_the_baselines_first() -> None:
    every = [str(variant) for variant in choose_variants(["all"], [])]
    assert every[:3] == ["torch fp32 latency", "openvino fp32 latency", "openvino fp32 throughput"]
    assert len(every) == len(set(every)) == 1 + 2 * 4 * 2
    some = [str(variant) for variant in choose_variants(["onnxruntime", "torch"], ["int8", "int8"])]
    modes = ("latency", "throughput")
    assert some == [
        "torch fp32 latency",
        *(f"onnxruntime {each} {mode}" for each in ("fp32", "int8") for mode in modes),
    ]


@pytest.mark.parametrize(("engines", "precisions", "words"), [
    (["cuda"], [], "unknown engine 'cuda'; choose all, torch, openvino"),
    ([], ["int4"], "unknown precision 'int4'; choose all, fp32, bf16, fp16, int8"),
])  # fmt: skip
def test_names_that_there_are_none_of(engines: list[str], precisions: list[str], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        choose_variants(engines, precisions)
