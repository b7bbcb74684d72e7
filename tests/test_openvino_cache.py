"""Models that OpenVINO compiled are kept, found again, and made anew where they cannot be used."""

import hashlib
from pathlib import Path
from typing import Any

import pytest

from jokr_rt import Retargeter, open_bundle
from jokr_rt.bundle import Bundle
from jokr_rt.engines import Monitor, load_engine, openvino_cache
from jokr_rt.errors import EngineError
from tests.quantised import FRAMES, assert_near, drawn


class Listener(Monitor):
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.heard: list[str] = []

    def say(self, words: str) -> None:
        self.heard.append(words)


def test_a_second_start_compiles_nothing(bundle_copy: Path, model_cache: Path) -> None:
    """It does not even read the graphs."""
    bundle, listener = open_bundle(bundle_copy), Listener()
    assert openvino_cache.cache_folder() == model_cache
    before = drawn(bundle, load_engine("openvino", bundle, None, listener))
    names = sorted(path.name for path in model_cache.iterdir())
    assert [name.partition("-")[0] for name in names] == ["extract", "paint", "place"]
    for graph in bundle.graphs:
        (bundle_copy / graph.file).unlink()
    assert_near(drawn(bundle, load_engine("openvino", bundle, None, listener)), before, 0, 0)
    assert sorted(path.name for path in model_cache.iterdir()) == names
    assert listener.heard == []
    with pytest.raises(EngineError, match="cannot be loaded"):  # another direction, another key
        Retargeter(bundle, "b2a", "openvino")


def test_another_graph_precision_or_mode_is_another_model(
    int8_bundle: Bundle, bundle: Bundle, model_cache: Path
) -> None:
    def parts() -> dict[str, int]:
        names = [path.name.partition("-")[0] for path in model_cache.glob("*.blob")]
        return {name: names.count(name) for name in ("extract", "place", "paint")}

    Retargeter(int8_bundle, "a2b", load_engine("openvino", int8_bundle, "fp32"))
    assert parts() == {"extract": 1, "place": 1, "paint": 1}
    Retargeter(bundle, "a2b", load_engine("openvino", bundle, "fp32"))  # the same graphs
    assert parts() == {"extract": 1, "place": 1, "paint": 1}
    Retargeter(bundle, "b2a", load_engine("openvino", bundle, "fp32"))
    assert parts() == {"extract": 1, "place": 2, "paint": 2}
    Retargeter(int8_bundle, "a2b", load_engine("openvino", int8_bundle, "int8"))
    assert parts()["extract"] == 2
    Retargeter(bundle, "a2b", load_engine("openvino", bundle, "fp32"), "throughput")
    assert parts()["extract"] == 3


def test_what_another_version_of_the_program_kept_is_not_used(
    bundle: Bundle, model_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its parts may have the same names and sources, and be cut elsewhere: such a "place" drew black pictures."""
    before = drawn(bundle, load_engine("openvino", bundle))
    names = {path.name for path in model_cache.iterdir()}
    monkeypatch.setattr(openvino_cache, "PROGRAM", "another")
    assert_near(drawn(bundle, load_engine("openvino", bundle)), before, 0, 0)
    others = {path.name for path in model_cache.iterdir()} - names
    assert [name.partition("-")[0] for name in sorted(others)] == ["extract", "paint", "place"]


def damaged(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def cut_off(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:100])


def of_another_program(path: Path) -> None:
    """What our hash cannot tell: it is of a format that OpenVINO does not know."""
    path.write_bytes(hashlib.sha256(b"nonsense" * 99).digest() + b"nonsense" * 99)


@pytest.mark.parametrize("spoil", [damaged, cut_off, of_another_program])
def test_what_cannot_be_used_is_compiled_again_with_a_word(bundle: Bundle, model_cache: Path, spoil: Any) -> None:
    before = drawn(bundle, load_engine("openvino", bundle))
    (paint,) = model_cache.glob("paint-*")
    spoil(paint)
    spoiled = paint.read_bytes()
    listener = Listener()
    assert_near(drawn(bundle, load_engine("openvino", bundle, None, listener)), before, 0, 0)
    (line,) = listener.heard
    assert line.startswith(f"openvino: {paint} cannot be used: ")
    assert line.endswith("; compiling paint again")
    assert "\n" not in line
    assert paint.read_bytes() != spoiled  # what is compiled anew differs by some bytes from what was before, too
    drawn(bundle, load_engine("openvino", bundle, None, listener))
    assert len(listener.heard) == 1


def test_a_cache_that_cannot_be_written_is_said(
    bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    listener = Listener()
    assert len(drawn(bundle, load_engine("openvino", bundle, None, listener))) == len(FRAMES)
    where = tmp_path / "file" / "jokr-rt" / "openvino"
    assert set(listener.heard) == {
        f"openvino: {where}: compiled models cannot be kept there (Not a directory); every start is slow"
    }


def test_the_cache_does_not_grow_without_end(
    bundle: Bundle, model_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was not used for longest goes first."""
    Retargeter(bundle, "a2b", "openvino")
    first = {path.name.partition("-")[0]: path for path in model_cache.iterdir()}
    monkeypatch.setattr(openvino_cache, "LARGEST", 2 * sum(path.stat().st_size for path in first.values()))
    for mode in ("throughput", "latency", "throughput"):
        Retargeter(bundle, "b2a", "openvino", mode)
        Retargeter(bundle, "a2b", "openvino", "latency")
        assert sum(path.stat().st_size for path in model_cache.iterdir()) <= openvino_cache.LARGEST
        assert all(path.exists() for path in first.values())
