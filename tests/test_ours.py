"""Somebody else's `export` or `trt_plugins` where Python looks for ours: one line says so, and none of it is run."""

from pathlib import Path

import pytest

from jokr_rt.ours import require_ours
from tests.process import ROOT, jokr

TRAP = "raise SystemExit('the foreign module was run')\n"


@pytest.mark.parametrize("form", ["export.py", "export/__init__.py"])
def test_a_foreign_export_is_refused_in_one_line(tiny_checkpoint: Path, tmp_path: Path, form: str) -> None:
    foreign = _foreign(tmp_path, form)
    done = jokr("export", tiny_checkpoint, "-o", tmp_path / "bundle", prelude=_first(tmp_path))
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == _refusal(foreign, "export")
    assert not (tmp_path / "bundle").exists()


def test_foreign_trt_plugins_are_refused_in_one_line(tiny_bundle: Path, tmp_path: Path) -> None:
    foreign = _foreign(tmp_path, "trt_plugins.py")
    done = jokr("build", tiny_bundle, "--dry-run", prelude=_first(tmp_path))
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == _refusal(foreign, "trt_plugins")


def test_a_folder_without_code_hides_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "export").mkdir()
    monkeypatch.syspath_prepend(tmp_path)
    require_ours("export")


def _foreign(folder: Path, form: str) -> Path:
    path = folder / form
    path.parent.mkdir(exist_ok=True)
    path.write_text(TRAP)
    return path


def _first(folder: Path) -> str:
    return f"import sys; sys.path.insert(0, {str(folder)!r})"


def _refusal(foreign: Path, package: str) -> str:
    return (
        f"jokr: error: {foreign}: Python finds this in place of JOKR-RT's own package {package} ({ROOT / package}); "
        "rename it, or take its folder off PYTHONPATH\n"
    )
