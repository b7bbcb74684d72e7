"""Which plans may be used again: every part of the key counts, hashes are checked, and files are replaced whole."""

import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from jokr_rt.engines.tensorrt_cache import (
    BuildOptions,
    Key,
    NoPlanError,
    Plan,
    PlanCache,
    digest,
    plan_key,
)
from jokr_rt.errors import OutputError, UsageError

MODEL, SAMPLING_MODEL = b"an ONNX graph", b"an ONNX graph with AffineGridSample in it"
MACHINE: Key = {
    "TensorRT": "11.4.0.106",
    "kernel": "ab" * 32,
    "compute capability": "9.0",
    "GPU": "NVIDIA H100",
    "driver": "CUDA 13.0",
}
KEY = plan_key(SAMPLING_MODEL, "fp16", BuildOptions(), MACHINE)
PLAN = Plan(b"machine code", "plugin")


@pytest.fixture
def cache(tmp_path: Path) -> PlanCache:
    """With `PLAN` in it."""
    cache = PlanCache(tmp_path)
    cache.store("stn-a2b", "fp16", KEY, PLAN, BuildOptions())
    return PlanCache(tmp_path)


def refusal(cache: PlanCache, key: Key = KEY, graph: str = "stn-a2b", precision: str = "fp16") -> str:
    with pytest.raises(NoPlanError) as caught:
        PlanCache(cache.folder.parent).find(graph, precision, key)
    return str(caught.value)


def edit(cache: PlanCache, change: Any) -> None:
    path = cache.folder / "manifest.json"
    values = json.loads(path.read_text())
    change(values)
    path.write_text(json.dumps(values))


def test_a_plan_is_found_again(cache: PlanCache) -> None:
    assert cache.find("stn-a2b", "fp16", KEY) == PLAN
    assert sorted(path.name for path in cache.folder.iterdir()) == ["manifest.json", "stn-a2b-fp16.plan"]
    assert cache.path("stn-a2b", "fp16").read_bytes() == PLAN.content
    assert refusal(cache, graph="stn-b2a") == refusal(cache, precision="fp32") == "not built yet"


CHANGES = {
    "graph": (plan_key(SAMPLING_MODEL + b"!", "fp16", BuildOptions(), MACHINE), None),
    "precision": (plan_key(SAMPLING_MODEL, "fp32", BuildOptions(), MACHINE), "precision was fp16, is fp32"),
    "profile": (
        plan_key(SAMPLING_MODEL, "fp16", BuildOptions(max_batch=1), MACHINE),
        "profile was batch 1 to 8, tuned for 1, is batch 1 to 1, tuned for 1",
    ),
    "workspace": (
        plan_key(SAMPLING_MODEL, "fp16", BuildOptions(workspace=256), MACHINE),
        "workspace was 1024 MiB, is 256 MiB",
    ),
    "optimization level": (
        plan_key(SAMPLING_MODEL, "fp16", BuildOptions(optimization_level=5), MACHINE),
        "optimization level was 3, is 5",
    ),
    "flags": (KEY | {"flags": "none"}, None),
    "sampler": (
        plan_key(SAMPLING_MODEL, "fp16", BuildOptions(sampler="native"), MACHINE),
        "sampler was auto, is native",
    ),
    "TensorRT": (KEY | {"TensorRT": "11.5.0.1"}, "TensorRT was 11.4.0.106, is 11.5.0.1"),
    "kernel": (KEY | {"kernel": "cd" * 32}, "kernel was abababababab, is cdcdcdcdcdcd"),
    "compute capability": (KEY | {"compute capability": "8.9"}, "compute capability was 9.0, is 8.9"),
    "GPU": (KEY | {"GPU": "NVIDIA L4"}, "GPU was NVIDIA H100, is NVIDIA L4"),
    "driver": (KEY | {"driver": "CUDA 12.8"}, "driver was CUDA 13.0, is CUDA 12.8"),
}


def test_the_cases_below_are_all_parts_of_a_key() -> None:
    assert list(CHANGES) == list(KEY)


@pytest.mark.parametrize("part", CHANGES)
def test_a_plan_of_another_key_is_refused_and_the_reason_names_the_part(cache: PlanCache, part: str) -> None:
    key, words = CHANGES[part]
    assert {name for name in KEY if key[name] != KEY[name]} == {part}
    reason = refusal(cache, key)
    assert reason.startswith(f"{part} was ")
    assert words in (None, reason)
    assert digest(key) != digest(KEY)


def test_a_reason_names_every_part(cache: PlanCache) -> None:
    both = KEY | {"GPU": "NVIDIA L4", "compute capability": "8.9"}
    assert refusal(cache, both) == "compute capability was 9.0, is 8.9, GPU was NVIDIA H100, is NVIDIA L4"


def test_the_kernel_is_part_of_the_key_where_it_is_used() -> None:
    for options, machine in (
        (BuildOptions(sampler="native"), MACHINE),
        (BuildOptions(), MACHINE | {"kernel": "cd" * 32}),
    ):
        assert plan_key(MODEL, "fp16", options, machine) == plan_key(MODEL, "fp16", BuildOptions(), MACHINE)
        assert plan_key(SAMPLING_MODEL, "fp16", options, machine) != KEY


def test_a_key_that_is_not_all_known_has_no_digest_and_fits_as_far_as_it_goes(cache: PlanCache) -> None:
    partly = KEY | {"GPU": None, "driver": None}
    assert digest(partly) is None
    assert cache.find("stn-a2b", "fp16", partly) == PLAN
    assert refusal(cache, partly | {"TensorRT": "10.9"}) == "TensorRT was 11.4.0.106, is 10.9"
    assert len(digest(KEY) or "") == 64


@pytest.mark.parametrize("content", [b"", b"machine codf", PLAN.content + b"."])
def test_a_plan_of_another_hash_is_refused(cache: PlanCache, content: bytes) -> None:
    cache.path("stn-a2b", "fp16").write_bytes(content)
    assert refusal(cache) == "the SHA-256 of stn-a2b-fp16.plan is not the manifest's"


def test_a_plan_that_is_gone(cache: PlanCache) -> None:
    cache.path("stn-a2b", "fp16").unlink()
    assert refusal(cache) == "stn-a2b-fp16.plan cannot be read (No such file or directory)"


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "[" * 100_000])
def test_a_damaged_manifest_is_said(cache: PlanCache, text: str) -> None:
    (cache.folder / "manifest.json").write_text(text)
    assert refusal(cache).startswith(f"{cache.folder}/manifest.json cannot be read (")
    assert PlanCache(cache.folder.parent).options("fp16") == BuildOptions()


def test_a_manifest_of_another_version_is_said(cache: PlanCache) -> None:
    edit(cache, lambda values: values.update(format_version=2))
    assert refusal(cache).endswith("manifest.json is of format version 2, and this program's is 1")


@pytest.mark.parametrize("entry", [None, [], {}, {"sha256": "x"}, {"sha256": "x", "sampler": "plugin", "key": 7}])
def test_an_entry_that_is_damaged_is_no_entry(cache: PlanCache, entry: Any) -> None:
    edit(cache, lambda values: values["plans"].update({"stn-a2b-fp16.plan": entry}))
    assert refusal(cache) == "not built yet"


def test_a_run_takes_the_options_of_the_last_build(cache: PlanCache) -> None:
    assert cache.options("fp16") == BuildOptions()
    chosen = BuildOptions("native", 2, 512, 5)
    cache.store("extractor", "fp16", KEY, PLAN, chosen)
    again = PlanCache(cache.folder.parent)
    assert (again.options("fp16"), again.options("fp32")) == (chosen, BuildOptions())
    edit(cache, lambda values: values["options"].update(fp16={"max_batch": 0}))
    assert PlanCache(cache.folder.parent).options("fp16") == BuildOptions()


def test_another_process_may_have_built_meanwhile(tmp_path: Path) -> None:
    first, second = PlanCache(tmp_path), PlanCache(tmp_path)
    first.store("stn-a2b", "fp16", KEY, PLAN, BuildOptions())
    second.store("stn-b2a", "fp16", KEY, replace(PLAN, sampler="native"), BuildOptions())
    third = PlanCache(tmp_path)
    assert [third.find(graph, "fp16", KEY).sampler for graph in ("stn-a2b", "stn-b2a")] == ["plugin", "native"]


def test_a_write_that_fails_leaves_the_old_plan(cache: PlanCache, monkeypatch: pytest.MonkeyPatch) -> None:
    """The disk is full when half of the new one is written."""

    def write_half(path: Path, content: bytes) -> int:
        with path.open("wb") as file:
            file.write(content[: len(content) // 2])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", write_half)
    with pytest.raises(OutputError) as caught:
        cache.store("stn-a2b", "fp16", KEY, replace(PLAN, content=b"newer code"), BuildOptions())
    assert str(caught.value).startswith(f"{cache.folder}: engines cannot be kept there (No space left on device); ")
    monkeypatch.undo()
    assert cache.find("stn-a2b", "fp16", KEY) == PLAN
    assert sorted(path.name for path in cache.folder.iterdir()) == ["manifest.json", "stn-a2b-fp16.plan"]


@contextmanager
def as_nobody() -> Iterator[None]:
    """Permissions mean nothing to root, as which tests may run."""
    user = os.geteuid()
    if user == 0:
        os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(user)


def test_a_folder_that_cannot_be_written_is_said_in_one_line() -> None:
    """Not in pytest's own folder, which nobody but its user may enter."""
    with tempfile.TemporaryDirectory() as root:
        Path(root).chmod(0o755)
        cache = PlanCache(Path(root))
        cache.store("stn-a2b", "fp16", KEY, PLAN, BuildOptions())
        cache.folder.chmod(0o555)
        with as_nobody():
            with pytest.raises(OutputError) as caught:
                cache.require_writable()
            assert cache.find("stn-a2b", "fp16", KEY) == PLAN  # what is there can be used
        cache.folder.chmod(0o755)
        cache.require_writable()
        assert sorted(path.name for path in cache.folder.iterdir()) == ["manifest.json", "stn-a2b-fp16.plan"]
    assert str(caught.value) == (
        f"{cache.folder}: engines cannot be kept there (Permission denied); make it writable, or copy the bundle to "
        "where you may write"
    )


def test_a_file_where_the_folder_should_be(tmp_path: Path) -> None:
    (tmp_path / "engines").write_text("")
    cache = PlanCache(tmp_path)
    assert refusal(cache) == "not built yet"
    for write in (
        cache.require_writable,
        lambda: cache.store("stn-a2b", "fp16", KEY, PLAN, BuildOptions()),
    ):
        with pytest.raises(OutputError, match=r"engines: engines cannot be kept there \(File exists\)"):
            write()


def test_the_timing_cache_is_for_one_machine_and_one_kernel(cache: PlanCache) -> None:
    assert cache.timing_cache(MACHINE) == b""
    cache.store_timing_cache(b"measured", MACHINE)
    again = PlanCache(cache.folder.parent)
    assert again.timing_cache(MACHINE) == b"measured"
    assert again.find("stn-a2b", "fp16", KEY) == PLAN
    for part in MACHINE:
        assert again.timing_cache(MACHINE | {part: "another"}) == b""
    (cache.folder / "timing.cache").write_bytes(b"measures")
    assert again.timing_cache(MACHINE) == b""


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"sampler": "fused"}, "unknown sampler 'fused'; choose auto, plugin, native"),
        ({"max_batch": 0}, "max batch must be a whole number from 1 to 65535, not 0"),
        ({"max_batch": 1.0}, "max batch must be a whole number from 1 to 65535, not 1.0"),
        ({"workspace": 0}, "workspace must be a whole number from 1 to 1048576, not 0"),
        ({"optimization_level": 6}, "optimization level must be a whole number from 0 to 5, not 6"),
    ],
)
def test_options_that_cannot_be_meant(options: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError) as caught:
        BuildOptions(**options)
    assert str(caught.value) == words
