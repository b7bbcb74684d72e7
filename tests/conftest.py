"""A tiny model with non-trivial weights, as checkpoint and as exported bundle: made once, shared by all tests.

Tests read `tiny_checkpoint` and `tiny_bundle`; one that damages or replaces something takes `bundle_copy`.
"""

import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from hypothesis import settings

from export import export_bundle
from jokr_rt.bundle import Bundle, open_bundle
from jokr_rt.cli import main
from jokr_rt.engines import load_engine
from jokr_rt.retarget import Retargeter
from jokr_rt.training.checkpoint import load_checkpoint, save_checkpoint
from jokr_rt.training.networks import Model
from tests import cuda_double as cuda_doubles
from tests import tensorrt_double as doubles
from tests.process import Call
from tests.quantised import add_int8
from tests.threads import note_threads
from tests.tiny import TINY, make_checkpoint

torch.set_num_threads(1)  # beside the codecs' and engines' threads more of them wait, spinning, for a core
# What runs the tests may have set Ctrl-C to be ignored, as shells do for commands in the background. It is inherited.
signal.signal(signal.SIGINT, signal.default_int_handler)
settings.register_profile("jokr", deadline=None)  # no test depends on wall time
settings.load_profile("jokr")


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Tests marked `gpu` are skipped without one, unless the environment says that there must be one."""
    if item.get_closest_marker("gpu") and not torch.cuda.is_available():
        reason = f"PyTorch {torch.__version__} finds no NVIDIA GPU"
        if os.environ.get("JOKR_REQUIRE_GPU"):
            pytest.fail(f"{reason}, and JOKR_REQUIRE_GPU is set", pytrace=False)
        pytest.skip(reason)


@pytest.fixture(autouse=True)
def threads_before() -> None:
    note_threads()


@pytest.fixture(scope="session", autouse=True)
def cache_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The user's cache directory, of this run's own; also of the processes that tests start."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(path := tmp_path_factory.mktemp("cache")))
        yield path


@pytest.fixture(scope="session")
def tiny_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint file of the model `TINY`. Not to be changed."""
    path = tmp_path_factory.mktemp("checkpoint") / "tiny.safetensors"
    save_checkpoint(path, make_checkpoint(TINY))
    return path


@pytest.fixture(scope="session")
def tiny_bundle(tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The bundle exported from `tiny_checkpoint`. Not to be changed; a test that did fails the run here."""
    path = tmp_path_factory.mktemp("bundle") / "tiny.jokr"
    export_bundle(tiny_checkpoint, path)
    manifest = (path / "manifest.json").read_bytes()
    yield path
    open_bundle(path)
    assert (path / "manifest.json").read_bytes() == manifest


@pytest.fixture
def bundle_copy(tiny_bundle: Path, tmp_path: Path) -> Path:
    """A copy of `tiny_bundle` for a test to damage."""
    return Path(shutil.copytree(tiny_bundle, tmp_path / "copy.jokr"))


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str]) -> Call:
    """Run a command in this process: exit code, stdout, stderr."""

    def run(*args: str | Path) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as ended:
            main([str(arg) for arg in args])
        printed = capsys.readouterr()
        return int(ended.value.code or 0), printed.out, printed.err

    return run


@pytest.fixture(scope="session")
def int8_bundle(tiny_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """`tiny_bundle` in 8 bits as well, whatever it loses."""
    path = Path(shutil.copytree(tiny_bundle, tmp_path_factory.mktemp("int8") / "tiny.jokr"))
    add_int8(path)
    return open_bundle(path)


@pytest.fixture
def model_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where compiled models are kept while the test runs: a directory that is not there yet."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "jokr-rt" / "openvino"


@pytest.fixture(scope="session")
def bundle(tiny_bundle: Path) -> Bundle:
    """`tiny_bundle`, opened."""
    return open_bundle(tiny_bundle)


@pytest.fixture(scope="session")
def retargeter(bundle: Bundle) -> Retargeter:
    """`bundle` from a to b, in fp32."""
    return Retargeter(bundle, "a2b", load_engine("openvino", bundle, "fp32"))


@pytest.fixture(scope="session")
def model(tiny_checkpoint: Path) -> Model:
    """The model of `tiny_checkpoint`, in eval mode. Not to be changed."""
    return load_checkpoint(tiny_checkpoint).model


@pytest.fixture
def tensorrt_double(monkeypatch: pytest.MonkeyPatch) -> doubles.Double:
    """While the test runs, `import tensorrt` is the recording double of tests/tensorrt_double.py."""
    return doubles.install(monkeypatch)


@pytest.fixture
def cuda_double(monkeypatch: pytest.MonkeyPatch) -> cuda_doubles.CudaDouble:
    """While the test runs, cuda-bindings is the double of tests/cuda_double.py."""
    return cuda_doubles.install(monkeypatch)


@pytest.fixture
def gpu(cuda_double: cuda_doubles.CudaDouble, tensorrt_double: doubles.Double) -> cuda_doubles.CudaDouble:
    """`cuda_double`, whose streams do what the double of TensorRT enqueues."""
    tensorrt_double.enqueue = lambda stream, work: cuda_double.enqueue(stream, "TensorRT", work)
    return cuda_double
