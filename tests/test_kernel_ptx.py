"""The kernel as a user's machine gets it: compiled to PTX by the real NVRTC, and on to each GPU by the real ptxas.

That ptxas is of CUDA 12.9, older than the NVRTC: like an older driver, it refuses PTX that is too new for it.
"""

import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import pytest
from cuda.bindings import nvrtc
from cuda.pathfinder import DynamicLibNotFoundError

from jokr_rt.errors import EngineError, EngineMissingError
from trt_plugins.kernel import DEPTHS, PTX_ISA, compile_ptx, kernel_name, launch, source_hash

CAPABILITIES = [(7, 5), (8, 0), (8, 6), (8, 7), (8, 9), (9, 0), (10, 0), (10, 3), (12, 0), (12, 1)]
KERNELS = {kernel_name(dtype, align_corners) for dtype in ("float32", "float16") for align_corners in (0, 1)}
REPORT = re.compile(
    r"Compiling entry function '(?P<kernel>\w+)'.*?"
    r"(?P<stack>\d+) bytes stack frame, (?P<stores>\d+) bytes spill stores, (?P<loads>\d+) bytes spill loads.*?"
    r"Used (?P<registers>\d+) registers",
    re.DOTALL,
)


def assemble(ptx: bytes, capability: tuple[int, int], *options: str) -> subprocess.CompletedProcess[bytes]:
    package = importlib.util.find_spec("nvidia.cuda_nvcc")
    assert package is not None
    assert package.submodule_search_locations is not None
    ptxas = Path(next(iter(package.submodule_search_locations))) / "bin" / "ptxas"
    gpu = "sm_{}{}".format(*capability)
    command = [str(ptxas), "--verbose", f"--gpu-name={gpu}", *options, "--output-file=/dev/null", "/dev/stdin"]
    return subprocess.run(command, input=ptx, capture_output=True)


def resources(report: bytes) -> dict[str, dict[str, int]]:
    """Of each kernel: registers of a thread; bytes of stack, of spill stores and of spill loads."""
    found = (match.groupdict() for match in REPORT.finditer(report.decode()))
    return {kernel.pop("kernel"): {name: int(value) for name, value in kernel.items()} for kernel in found}


def spilled(report: bytes) -> list[str]:
    """The kernels that keep something in memory for want of registers."""
    return [name for name, used in resources(report).items() if used["stack"] + used["stores"] + used["loads"]]


@pytest.mark.parametrize("capability", CAPABILITIES)
def test_every_gpu_gets_all_kernels_and_none_spills(capability: tuple[int, int]) -> None:
    done = assemble(compile_ptx(capability), capability)
    assert done.returncode == 0, done.stderr.decode()
    assert resources(done.stderr).keys() == KERNELS
    assert not spilled(done.stderr)
    _, (columns, rows, deepest) = launch((1, 20, 128, 128), max(DEPTHS))
    most = max(used["registers"] for used in resources(done.stderr).values())
    assert most * columns * rows * deepest <= 65536  # a multiprocessor's registers: every block can be launched


def test_a_kernel_that_spills_would_be_found() -> None:
    """The same kernels, held to fewer registers than they need."""
    done = assemble(compile_ptx((9, 0)), (9, 0), "--maxrregcount=16")
    assert done.returncode == 0, done.stderr.decode()
    assert set(spilled(done.stderr)) == KERNELS


@pytest.mark.parametrize(("architecture", "isa"), PTX_ISA.items())
def test_ptx_is_as_old_as_its_architecture(architecture: tuple[int, int], isa: str) -> None:
    """One step older and nothing would take it; newer than a driver's, and that driver would not."""
    ptx, number = compile_ptx(architecture), b"%d%d" % architecture
    version = f".version {isa}".encode()
    assert (ptx.count(b".version"), ptx.count(version), ptx.count(b".target sm_" + number)) == (1, 1, 1)
    older = {"6.3": "6.2", "7.0": "6.5", "7.8": "7.7", "8.6": "8.5", "8.7": "8.6"}[isa]
    for other, complaint in ((older, b"does not support .target sm_" + number), ("99.0", b"Unsupported .version 99.0")):
        refused = assemble(ptx.replace(version, f".version {other}".encode()), architecture)
        assert refused.returncode != 0
        assert complaint in refused.stderr


def test_a_gpu_newer_than_nvrtc_gets_the_newest_ptx_and_an_older_one_is_refused() -> None:
    assert compile_ptx((19, 0)) == compile_ptx((12, 0))
    with pytest.raises(EngineError, match=r"capability 7\.0: NVRTC [\d.]+ can make those for 7\.5, .* and later$"):
        compile_ptx((7, 0))


def test_what_is_missing_is_said_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def find() -> None:
        raise DynamicLibNotFoundError('Failure finding "libnvrtc.so.13": No such file\nNo such folder')

    monkeypatch.setattr(nvrtc, "nvrtcVersion", find)
    with pytest.raises(EngineMissingError, match=r"^NVRTC, .* is not here \(.*No such file\): pip install '.*'$"):
        compile_ptx((9, 0))
    monkeypatch.setitem(sys.modules, "cuda.bindings", None)
    with pytest.raises(EngineMissingError, match=r"^the package cuda-bindings is not installed .*pip install '.*'$"):
        compile_ptx((9, 0))


def test_a_source_that_does_not_compile_names_the_place(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    broken = tmp_path / "broken.cu"
    broken.write_text("__global__ void kernel() { nothing; }")
    monkeypatch.setattr("trt_plugins.kernel.SOURCE", broken)
    with pytest.raises(EngineError, match=r'^NVRTC cannot compile broken\.cu .*: broken\.cu\(1\): .*"nothing"') as no:
        compile_ptx((9, 0))
    assert "\n" not in str(no.value)


def test_the_hash_is_of_the_source(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    before = source_hash()
    changed = tmp_path / "changed.cu"
    changed.write_text("__global__ void kernel() {}")
    monkeypatch.setattr("trt_plugins.kernel.SOURCE", changed)
    assert re.fullmatch("[0-9a-f]{64}", before)
    assert source_hash() != before
