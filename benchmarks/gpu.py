"""How fast is this on an NVIDIA GPU? The sampling kernel alone, and whole frames, on whatever engines are installed.

It needs PyTorch for CUDA and cuda-bindings; what else is absent (Triton, ONNX Runtime, TensorRT) is skipped, and said
so. Whole frames are of the preset `full`, 256 x 256, untrained and seeded: weights do not change the speed, and quality
is not measured here. Prints Markdown, and writes JSON beside it.

    python benchmarks/gpu.py [--only kernel|frames] [--frames 2000] [--out benchmarks/results/DEVICE.json]
"""

import argparse
import json
import platform
import re
import sys
import time
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks")]  # a source tree is enough

from gpu_report import bar_table, frame_bars, kernel_bars, markdown  # noqa: E402

from jokr_rt.bench.figures import Bar  # noqa: E402
from jokr_rt.config import PRESETS  # noqa: E402
from jokr_rt.errors import EngineMissingError, JokrError  # noqa: E402

RESULTS = ROOT / "benchmarks" / "results"
PACKAGES = (
    "torch", "triton", "cuda-bindings", "nvidia-cuda-nvrtc", "onnxruntime-gpu", "onnxruntime", "tensorrt", "numpy",
)  # fmt: skip
KERNEL_COLUMNS = (
    "dtype", "batch", "max_error", "right", "depth", "launched_ms", "eager_ms", "compiled_ms", "graph_ms",
    "eager_graph_ms", "compiled_graph_ms", "copy_ms", "gb_per_s", "of_copy",
)  # fmt: skip
FRAME_COLUMNS = ("engine", "precision", "p50", "p95", "p99", "fps", "max_levels")
GIBIBYTE = 1 << 30


def main(arguments: list[str] | None = None) -> int:
    options = _options(arguments)
    try:
        found = measure(options.only, options.frames, lambda words: print(words, file=sys.stderr))
    except JokrError as error:
        print(f"error: {' '.join(str(error).splitlines())}", file=sys.stderr)
        return error.exit_code
    print(report(found))
    out = options.out or RESULTS / f"{slug(found['device']['name'])}.json"
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    print(f"written: {out}", file=sys.stderr)
    return 0


def measure(only: str | None, count: int, tell: Callable[[str], None]) -> dict[str, Any]:
    """Everything, as it is written. Raises EngineMissingError without a GPU, or what runs it."""
    torch = _torch()
    from gpu_kernel import measure_kernel

    from jokr_rt.engines.cuda import Device

    with Device(torch.cuda.current_device()) as device:
        found: dict[str, Any] = {"date": time.strftime("%Y-%m-%d"), "device": about(device), "versions": versions()}
        tell("peaks")
        found["peaks"] = peaks = measure_peaks()
        bars: list[Bar] = []
        if only != "frames":
            found["kernel"] = measure_kernel(device, tell)
            bars += kernel_bars(found["kernel"])
        if only != "kernel":
            from gpu_frames import floor, measure_frames

            config = PRESETS["full"]
            found["model"] = "preset full, untrained, seed 0"
            found["frames"] = measure_frames(config, count, tell)
            floors = {name: floor(config, name, peaks[name], peaks["bandwidth"]) for name in ("fp32", "fp16")}
            found["floors_ms"] = {name: each.to_json() | {"ms": each.ms} for name, each in floors.items()}
            bars += frame_bars(found["frames"])
        found["bars"] = [bar.to_json() for bar in bars]
    return found


def report(found: dict[str, Any]) -> str:
    """In Markdown."""
    device, peaks = found["device"], found["peaks"]
    parts = [
        f"# {device['name']}, driver for CUDA {device['driver']}",
        ", ".join(f"{name} {number}" for name, number in found["versions"].items()),
        f"Measured here: {peaks['fp32'] / 1e12:.1f} TFLOP/s in fp32, {peaks['fp16'] / 1e12:.1f} in fp16, "
        f"{peaks['bandwidth'] / 1e9:.0f} GB/s of copy (read and written).",
    ]
    if "kernel" in found:
        parts += ["## Kernel, milliseconds", markdown(KERNEL_COLUMNS, found["kernel"])]
        if "compiled_ms" not in found["kernel"][0]:
            parts.append("Compiled by PyTorch: skipped, triton is not installed.")
    if "frames" in found:
        parts += [f"## Whole frame, milliseconds ({found['model']})", markdown(FRAME_COLUMNS, found["frames"])]
        for name, each in found["floors_ms"].items():
            words = f"{each['flops'] / 1e9:.1f} GFLOP {each['compute_ms']:.3f} ms, "
            parts.append(f"Floor in {name}: {words}{each['bytes'] / 1e6:.1f} MB {each['memory_ms']:.3f} ms.")
    parts += ["## Bars", bar_table(found["bars"])]
    return "\n\n".join(parts)


def measure_peaks() -> dict[str, float]:
    """FLOP/s of a large matrix product by precision, and bytes/s, read and written, of a large copy on the device."""
    import torch
    from gpu_kernel import timed

    peaks = {}
    for name, dtype in (("fp32", torch.float32), ("fp16", torch.float16)):
        left, right = (torch.randn(8192, 8192, device="cuda", dtype=dtype) for _ in range(2))
        peaks[name] = 2 * 8192**3 / (timed(lambda left=left, right=right: left @ right) / 1e3)
    source = torch.empty(GIBIBYTE, dtype=torch.uint8, device="cuda")
    target = torch.empty_like(source)
    peaks["bandwidth"] = 2 * GIBIBYTE / (timed(lambda: target.copy_(source)) / 1e3)
    return peaks


def about(device: Any) -> dict[str, Any]:
    return {
        "name": device.name,
        "compute_capability": ".".join(map(str, device.compute_capability)),
        "driver": device.driver_version,
        "memory_bytes": device.memory[1],
    }


def versions() -> dict[str, str]:
    """Of Python and of those of `PACKAGES` that are installed."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def slug(name: str) -> str:
    """A device's name as a file's."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")


def _torch() -> Any:
    try:
        import torch
    except ImportError as error:
        raise EngineMissingError(f"PyTorch is not installed ({error}); get its CUDA build: pytorch.org") from None
    if not torch.cuda.is_available():
        raise EngineMissingError(
            f"PyTorch {torch.__version__} finds no NVIDIA GPU here; this needs one with its driver, and a CUDA build"
        )
    return torch


def _options(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=("kernel", "frames"), help="Leave the other part out.")
    parser.add_argument("--frames", type=int, default=2000, help="Of each engine.  [default: 2000]")
    parser.add_argument("--out", type=Path, help="JSON to write.  [default: benchmarks/results/DEVICE.json]")
    options = parser.parse_args(arguments)
    if options.frames < 1:
        parser.error(f"--frames {options.frames}: give 1 or more")
    return options


if __name__ == "__main__":
    sys.exit(main())
