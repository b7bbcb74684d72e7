"""What pip is given: the wheel's files and metadata, and what its extras bring."""

import email
import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from email.message import Message
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from jokr_rt import __version__
from tests.process import ROOT

BUILD = "import sys, setuptools.build_meta as backend; print(getattr(backend, sys.argv[1])(sys.argv[2]))"
NVIDIA = re.compile("nvidia-|cuda-|triton|tensorrt|onnxruntime-gpu")


@dataclass(frozen=True)
class Package:
    """sdist, wheel: the names in them. licence, metadata: the wheel's."""

    sdist: frozenset[str]
    wheel: frozenset[str]
    licence: bytes
    metadata: Message


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Package:
    """An sdist, and the wheel that is made of it, without network."""
    work = tmp_path_factory.mktemp("package")
    source = work / "source"
    ignored = shutil.ignore_patterns(".*", "__pycache__", "*.egg-info", "build", "demo", "*.jokr")
    shutil.copytree(ROOT, source, ignore=ignored)
    with tarfile.open(work / _build("build_sdist", source, work)) as archive:
        archive.extractall(work, filter="data")
        sdist = frozenset(name.partition("/")[2] for name in archive.getnames())
    with zipfile.ZipFile(work / _build("build_wheel", work / f"jokr_rt-{__version__}", work)) as wheel:
        about = f"jokr_rt-{__version__}.dist-info"
        metadata = email.message_from_bytes(wheel.read(f"{about}/METADATA"))
        licence = wheel.read(f"{about}/licenses/LICENSE")
        return Package(sdist, frozenset(wheel.namelist()), licence, metadata)


def _build(step: str, source: Path, output: Path) -> str:
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    command = [sys.executable, "-c", BUILD, step, str(output)]
    done = subprocess.run(command, cwd=source, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()[-1]


def test_the_wheel_holds_our_packages_whole_and_nothing_else(package: Package) -> None:
    about = f"jokr_rt-{__version__}.dist-info/"
    ours = {
        str(path.relative_to(ROOT))
        for folder in ("jokr_rt", "export", "trt_plugins")
        for path in (ROOT / folder).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert {name for name in package.wheel if not name.startswith(about)} == ours
    assert {"LICENSE", "README.md", *ours} <= package.sdist


def test_the_metadata_says_who_made_it_and_on_what_terms(package: Package) -> None:
    assert package.licence == (ROOT / "LICENSE").read_bytes()
    assert package.licence.startswith(b"MIT License\n\nCopyright (c) 2026 The JOKR-RT authors\n")
    fields = ("Name", "Version", "Author", "License", "License-File", "Project-URL")
    assert [package.metadata[field] for field in fields] == [
        *("jokr-rt", __version__, "The JOKR-RT authors", "MIT", "LICENSE"),
        "Method, https://arxiv.org/abs/2106.09679",
    ]


def test_the_description_has_no_link_into_a_repository(package: Package) -> None:
    text = package.metadata.get_payload()
    assert text.startswith("# JOKR-RT\n")
    assert re.findall(r"\]\(([^)]*)\)", text) == ["https://arxiv.org/abs/2106.09679"]
    assert "*Rows:" not in text
    assert "[puppets.toml]" not in text
    assert "puppets.toml for the demo's puppets, cat-fox.toml for" in text


@pytest.mark.parametrize("extra", ["cpu", "live", "int8", "evaluate", "studio", "train"])
def test_no_extra_for_a_processor_brings_packages_of_nvidia(package: Package, extra: str) -> None:
    brought = dict(_brought(package.metadata.get_all("Requires-Dist"), {extra}, "jokr-rt", set()))
    assert ("torch" in brought) == (extra == "train")
    # The build of PyTorch was chosen before: one for CUDA brings its own.
    chosen = () if distribution("torch").version.endswith("+cpu") else ("torch",)
    assert {name: by for name, by in brought.items() if NVIDIA.match(name) and not by.startswith(chosen)} == {}
    assert "numpy" in brought  # it does follow requirements


def test_what_the_gpu_needs_is_found_by_the_same_search(package: Package) -> None:
    for extra, expected in (("gpu", "onnxruntime-gpu"), ("tensorrt", "nvidia-cuda-nvrtc")):
        brought = dict(_brought(package.metadata.get_all("Requires-Dist"), {extra}, "jokr-rt", set()))
        assert brought[expected] == "jokr-rt"


def _brought(
    requirements: Collection[str] | None, extras: Collection[str], by: str, seen: set[tuple[str, str]]
) -> Iterator[tuple[str, str]]:
    """What these requirements bring, and theirs as far as they are installed: each name, and by what path."""
    for requirement in map(Requirement, requirements or ()):
        name = canonicalize_name(requirement.name)
        marker = requirement.marker
        if marker and not any(marker.evaluate({"extra": extra}) for extra in ("", *extras)):
            continue
        yield name, by
        wanted = [(name, extra) for extra in ("", *requirement.extras)]
        if set(wanted) <= seen:
            continue
        seen.update(wanted)
        try:
            theirs = distribution(name).requires
        except PackageNotFoundError:
            continue
        path = name if by == "jokr-rt" else f"{by} > {name}"
        yield from _brought(theirs, requirement.extras, path, seen)
