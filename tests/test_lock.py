"""One training in a folder at a time. The other one is a real process."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from jokr_rt.errors import UsageError
from jokr_rt.training.lock import LOCK, exclusive

HOLD = """
import sys, time
from pathlib import Path
from jokr_rt.training.lock import exclusive
with exclusive(Path(sys.argv[1])):
    print("locked", flush=True)
    sys.stdin.read()
"""


def holder(folder: Path) -> subprocess.Popen[str]:
    """A process that has the folder until its stdin is closed."""
    pipe = subprocess.PIPE
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(folder)], stdin=pipe, stdout=pipe, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "locked\n"
    return process


def test_a_second_training_is_refused_until_the_first_has_ended(tmp_path):
    folder = tmp_path / "out"
    with holder(folder) as process:
        with pytest.raises(UsageError, match=r"out: another training is at work here; .* another folder with -o"):
            exclusive(folder).__enter__()
        process.communicate()
    with exclusive(folder):
        (folder / "kept").touch()
    assert [path.name for path in folder.iterdir()] == ["kept"]


def test_one_that_was_killed_leaves_no_lock(tmp_path):
    with holder(tmp_path) as process:
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert (tmp_path / LOCK).exists()
    with exclusive(tmp_path):
        pass
    assert not (tmp_path / LOCK).exists()


def test_folders_that_stay_empty_go_again(tmp_path):
    with exclusive(tmp_path / "x" / "y"):
        assert (tmp_path / "x" / "y").is_dir()
    assert list(tmp_path.iterdir()) == []
