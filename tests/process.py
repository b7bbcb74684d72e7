"""The command line in a process of its own, for what a test cannot do to itself."""

import os
import pty
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from click.testing import Result

ROOT = Path(__file__).parent.parent

Call = Callable[..., tuple[int, str, str]]
"""The fixture `call`."""


def command(*args: str | Path, prelude: str = "") -> list[str]:
    """A Python that runs the lines of `prelude`, and then `jokr ARGS`."""
    code = f"{prelude}\nfrom jokr_rt.cli import main\nmain()"
    return [sys.executable, "-c", code, *map(str, args)]


def jokr(*args: str | Path, prelude: str = "") -> subprocess.CompletedProcess[str]:
    """Run it to the end."""
    return subprocess.run(command(*args, prelude=prelude), cwd=ROOT, capture_output=True, text=True, timeout=300)


def jokr_on_terminal(*args: str | Path, columns: int, prelude: str = "") -> tuple[int, str, str]:
    """The same with stderr on a real (pseudo) terminal: exit code, stdout, and what the terminal was shown."""
    main_end, terminal = pty.openpty()
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": str(columns)}
    started = command(*args, prelude=prelude)
    with subprocess.Popen(started, cwd=ROOT, stdout=subprocess.PIPE, stderr=terminal, env=environment) as process:
        os.close(terminal)
        shown = "".join(iter(lambda: _read_terminal(main_end), ""))
        out, _ = process.communicate(timeout=300)
    os.close(main_end)
    return process.returncode, out.decode(), shown


def is_running(pid: int) -> bool:
    """Whether there is such a process, and it has not ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def children(pid: int) -> list[int]:
    """The processes that a process has started and that have not ended."""
    numbers = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [child for child in map(int, numbers) if is_running(child)]


def _read_terminal(main_end: int) -> str:
    """What was written to the other end since; "" when all who could write are gone, which Linux calls EIO."""
    try:
        return os.read(main_end, 100_000).decode(errors="replace")
    except OSError:
        return ""


def assert_refused(result: Result, code: int, *words: str) -> None:
    """A command run in this process ended with this code and one last line on stderr that holds these words."""
    assert result.exit_code == code, result.output
    last = result.stderr.strip().splitlines()[-1]
    assert last.startswith("jokr: error: ")
    for word in words:
        assert word in last
    assert "Traceback" not in result.output
