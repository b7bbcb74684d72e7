"""The command line in a process of its own, for what a test cannot do to itself."""

import subprocess
import sys
from pathlib import Path

from click.testing import Result

ROOT = Path(__file__).parent.parent


def command(*args: str | Path, prelude: str = "") -> list[str]:
    """A Python that runs the lines of `prelude`, and then `jokr ARGS`."""
    code = f"{prelude}\nfrom jokr_rt.cli import main\nmain()"
    return [sys.executable, "-c", code, *map(str, args)]


def jokr(*args: str | Path, prelude: str = "") -> subprocess.CompletedProcess[str]:
    """Run it to the end."""
    return subprocess.run(command(*args, prelude=prelude), cwd=ROOT, capture_output=True, text=True, timeout=300)


def assert_refused(result: Result, code: int, *words: str) -> None:
    """A command run in this process ended with this code and one last line on stderr that holds these words."""
    assert result.exit_code == code, result.output
    last = result.stderr.strip().splitlines()[-1]
    assert last.startswith("jokr: error: ")
    for word in words:
        assert word in last
    assert "Traceback" not in result.output
