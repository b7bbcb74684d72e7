"""What keeps a live process at its size: heaps as glibc counts them, and what the collector passes over."""

import gc
import subprocess
import sys
from pathlib import Path

import pytest

from jokr_rt.live import LiveOptions, run_live, session
from jokr_rt.live.memory import collecting_little
from tests import clips
from tests.process import ROOT

_COUNT_HEAPS = """
import ctypes, sys, threading
if sys.argv[1] == "one":
    from jokr_rt.live.memory import share_one_heap
    share_one_heap()
c = ctypes.CDLL(None)
c.malloc.restype = c.fopen.restype = ctypes.c_void_p
threads = threading.Barrier(4)
def work():
    c.malloc(ctypes.c_size_t(1000))
    threads.wait()  # all at once: the heap of a thread that has ended goes to the next
each = [threading.Thread(target=work) for _ in range(4)]
[thread.start() for thread in each]
[thread.join() for thread in each]
file = ctypes.c_void_p(c.fopen(sys.argv[2].encode(), b"w"))
c.malloc_info(0, file)
c.fclose(file)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="heaps are counted by glibc")
def test_threads_share_one_heap(tmp_path: Path) -> None:
    heaps = {}
    for which in ("one", "each"):
        out = tmp_path / which
        subprocess.run([sys.executable, "-c", _COUNT_HEAPS, which, str(out)], cwd=ROOT, check=True)
        heaps[which] = out.read_text().count("<heap ")
    assert heaps["one"] == 1
    assert heaps["each"] > 1


def test_a_collection_passes_over_what_was_there_before() -> None:
    before = gc.get_freeze_count()
    with collecting_little():
        assert gc.get_freeze_count() > before + 10_000
        assert len(gc.get_objects()) < 1000
    assert gc.get_freeze_count() == 0


def test_streams_are_tidied_up_after_while_they_run(
    tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session, "TIDY_S", 0.2)
    frozen: list[int] = []

    def note(phase: str, info: dict[str, int]) -> None:
        if phase == "start" and info["generation"] == 2 and gc.get_freeze_count():
            frozen.append(gc.get_freeze_count())

    source = clips.video(tmp_path / "a.mp4", 20)
    gc.callbacks.append(note)
    try:
        run_live(tiny_bundle, LiveOptions(str(source), (str(tmp_path / "rec.mp4"),), realtime=True))
    finally:
        gc.callbacks.remove(note)
    assert len(frozen) >= 2
    assert gc.get_freeze_count() == 0
