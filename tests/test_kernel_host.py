"""The CUDA kernel's source, compiled as C++ for the host, against torch's affine_grid and grid_sample in float64."""

import ctypes
import math
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import example, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from tests import tolerances
from trt_plugins.kernel import DEPTHS, SOURCE, kernel_name, launch

# Beside the kernels, one whose elements count how often they are written.
PROGRAM = f"""
#include "{Path(__file__).with_name("host_cuda.h")}"
#include "{SOURCE}"
struct Counter {{
    unsigned char writes = 0;
    Counter() = default;
    Counter(const Counter&) = default;
    Counter& operator=(const Counter&) {{ ++writes; return *this; }}
}};
float to_float(Counter) {{ return 0; }}
template <> Counter from_float<Counter>(float) {{ return {{}}; }}
KERNEL(count_writes, Counter, false)
"""
Shape = tuple[int, int, int, int]
pytestmark = pytest.mark.filterwarnings("ignore:Since version 1.3.0")  # torch, of single cells with aligned corners


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    """The kernels and `launch`, compiled with checks of what C++ leaves undefined: one that fails ends the process."""
    library = tmp_path_factory.mktemp("kernel") / "kernel.so"
    checks = ["-Wall", "-Wextra", "-Werror", "-Wno-unknown-pragmas", "-fsanitize=undefined,float-cast-overflow"]
    command = ["g++", "-std=c++17", "-O2", "-shared", "-fPIC", *checks, "-fno-sanitize-recover=all", "-static-libubsan"]
    subprocess.run([*command, "-x", "c++", "-", "-o", library], input=PROGRAM, text=True, check=True)
    return ctypes.CDLL(str(library))


def run(
    host: ctypes.CDLL, kernel: str, heatmaps: NDArray, theta: NDArray, *, depth: int, fill: float = math.nan
) -> NDArray:
    """What the kernel makes of an output that held `fill`."""
    theta, heatmaps = np.ascontiguousarray(theta, np.float32), np.ascontiguousarray(heatmaps)
    sampled = np.full(heatmaps.shape, fill, heatmaps.dtype)
    grid, block = (np.array(extents, np.uint32) for extents in launch(heatmaps.shape, depth))
    arrays = (array.ctypes.data_as(ctypes.c_void_p) for array in (grid, block, heatmaps, theta))
    host.launch(getattr(host, kernel), *arrays, *heatmaps.shape[1:], sampled.ctypes.data_as(ctypes.c_void_p))
    return sampled


def reference(heatmaps: NDArray, theta: NDArray, align_corners: int) -> tuple[NDArray, NDArray, NDArray]:
    """What torch makes in float64; for each pixel, how far outside the position is, and how far off float32 may put it.

    Both in cells. Positions that are not finite count as outside: that is PyTorch on CUDA; on the CPU it gives NaN.
    """
    aligned, (height, width) = bool(align_corners), heatmaps.shape[2:]
    wide = torch.from_numpy(theta).double()
    grid = F.affine_grid(wide, list(heatmaps.shape), align_corners=aligned)
    grid = torch.where(grid.isfinite(), grid, 1e300)
    sampled = F.grid_sample(torch.from_numpy(heatmaps).double(), grid.clamp(-1e6, 1e6), align_corners=aligned)
    cells = torch.tensor([width, height]) - align_corners
    outside = ((grid.abs() - 1) * cells / 2 - 0.5 - align_corners / 2).amax(-1)
    magnitudes = wide.abs().nan_to_num(1e300, 1e300).sum(-1) + 1  # of the terms that make a coordinate; each is rounded
    error = 8 * float(np.finfo(np.float32).eps) * (magnitudes * (cells + 1)).sum(-1)
    return sampled.numpy(), outside.numpy(), error[:, None, None].expand(outside.shape).numpy()


def check(found: NDArray, heatmaps: NDArray, theta: NDArray, align_corners: int) -> None:
    expected, outside, error = reference(heatmaps, theta, align_corners)
    rounding = np.finfo(heatmaps.dtype).eps
    assert np.abs(found).max() <= np.abs(heatmaps).max() * (1 + 4 * rounding)  # an average, wherever the positions are
    assert not found.swapaxes(0, 1)[:, outside > error].any()
    known = error < 0.1
    allowed = np.where(known, 4 * error, np.inf)[:, None] + rounding  # values differ by at most 2 from cell to cell
    assert (np.abs(found - expected) <= allowed).all()


ordinary = st.floats(-3, 3, width=32)
extreme = st.floats(width=32) | st.sampled_from([0.0, math.nan, math.inf, -math.inf, 1e9, -3e9, 2.0**31, -3.4e38])
shapes = st.tuples(st.integers(1, 3), st.integers(1, 11), st.integers(1, 19), st.integers(1, 37))


@settings(max_examples=150)
@given(
    shape=shapes,
    theta=st.lists(ordinary, min_size=18, max_size=18) | st.lists(ordinary | extreme, min_size=18, max_size=18),
    dtype=st.sampled_from(["float32", "float16"]),
    align_corners=st.sampled_from([0, 1]),
    depth=st.sampled_from(DEPTHS),
    seed=st.integers(0, 2**32 - 1),
)
@example(shape=(1, 1, 1, 1), theta=[1.0, 0, 0, 0, 1, 0] * 3, dtype="float32", align_corners=1, depth=1, seed=0)
@example(shape=(2, 10, 8, 33), theta=[0.0] * 18, dtype="float16", align_corners=0, depth=2, seed=0)
@example(shape=(1, 20, 9, 5), theta=[math.nan, 0, 0, 0, 1, 0] * 3, dtype="float32", align_corners=0, depth=4, seed=0)
@example(shape=(1, 2, 9, 5), theta=[1.0, 0, math.inf, 0, 1, 0] * 3, dtype="float32", align_corners=0, depth=4, seed=0)
@example(shape=(1, 2, 9, 5), theta=[3e38, 0, 0, 0, -3e38, 0] * 3, dtype="float32", align_corners=1, depth=4, seed=0)
def test_kernel_samples_as_torch_does_for_any_map(
    host: ctypes.CDLL, shape: Shape, theta: list[float], dtype: str, align_corners: int, depth: int, seed: int
) -> None:
    """Odd sizes, single cells, maps that collapse, explode or are no numbers."""
    heatmaps = np.random.default_rng(seed).uniform(-1, 1, shape).astype(dtype)
    maps = np.array(theta, np.float32).reshape(3, 2, 3)[: shape[0]]
    check(run(host, kernel_name(dtype, align_corners), heatmaps, maps, depth=depth), heatmaps, maps, align_corners)


@pytest.mark.parametrize("align_corners", [0, 1])
@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", tolerances.FP32), ("float16", tolerances.FP16)])
def test_kernel_samples_as_torch_does_in_the_size_that_is_used(
    host: ctypes.CDLL, dtype: str, tolerance: float, align_corners: int
) -> None:
    random = np.random.default_rng(0)
    heatmaps = random.uniform(-1, 1, (2, 10, 128, 128)).astype(dtype)
    theta = (np.eye(2, 3) + 0.2 * random.standard_normal((2, 2, 3))).astype(np.float32)
    grid = F.affine_grid(torch.from_numpy(theta), [2, 10, 128, 128], align_corners=bool(align_corners))
    expected = F.grid_sample(torch.from_numpy(heatmaps).float(), grid, align_corners=bool(align_corners)).numpy()
    found = run(host, kernel_name(dtype, align_corners), heatmaps, theta, depth=2)
    assert np.abs(found - expected).max() <= tolerance


@settings(max_examples=50)
@given(
    shape=shapes,
    cells=st.tuples(st.integers(-4, 4), st.integers(-4, 4)),
    dtype=st.sampled_from(["float32", "float16"]),
    align_corners=st.sampled_from([0, 1]),
    seed=st.integers(0, 2**32 - 1),
)
def test_numbers_that_are_none_reach_just_what_they_reach_in_torch(
    host: ctypes.CDLL, shape: Shape, cells: tuple[int, int], dtype: str, align_corners: int, seed: int
) -> None:
    """NaN and infinities among the heatmaps, moved by so many and a quarter cells; zero where torch looks outside."""
    random = np.random.default_rng(seed)
    heatmaps = random.choice(np.array([0, 1, -0.5, math.nan, math.inf, -math.inf], dtype), shape)
    theta = np.tile(np.eye(2, 3, dtype=np.float32), (shape[0], 1, 1))
    extents = np.maximum(np.array(shape)[[3, 2]] - align_corners, 1)
    theta[:, :, 2] = (np.array(cells) + 0.25) * 2 / extents
    found = run(host, kernel_name(dtype, align_corners), heatmaps, theta, depth=2)
    grid = F.affine_grid(torch.from_numpy(theta), list(shape), align_corners=bool(align_corners))
    expected = F.grid_sample(torch.from_numpy(heatmaps).float(), grid, align_corners=bool(align_corners)).numpy()
    np.testing.assert_allclose(found, expected, rtol=0, atol=tolerances.FP16 if dtype == "float16" else tolerances.FP32)


def test_a_position_on_the_outermost_cells_is_inside(host: ctypes.CDLL) -> None:
    """The identity gives every cell back, the corners' too, bit by bit, where the sizes are powers of two."""
    heatmaps = np.random.default_rng(0).uniform(-1, 1, (1, 3, 16, 64)).astype(np.float32)
    found = run(host, kernel_name("float32"), heatmaps, np.eye(2, 3)[None], depth=1)
    assert np.array_equal(found, heatmaps)


@settings(max_examples=60)
@given(
    shape=st.tuples(st.integers(1, 3), st.integers(1, 23), st.integers(1, 40), st.integers(1, 70)),
    depth=st.sampled_from([*DEPTHS, 3, 7]),
)
def test_a_launch_writes_every_element_once(host: ctypes.CDLL, shape: Shape, depth: int) -> None:
    heatmaps, theta = np.zeros(shape, np.uint8), np.zeros((shape[0], 2, 3))
    assert (run(host, "count_writes", heatmaps, theta, depth=depth, fill=0) == 1).all()
