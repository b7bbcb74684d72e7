"""`-`: a file on standard input, and a result on standard output."""

import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import BinaryIO

from jokr_rt.cli_options import say
from jokr_rt.errors import InputError, UsageError


@contextmanager
def standard_input(source: Path | str) -> Iterator[Path]:
    """The path itself; for "-" that of a temporary file with all of stdin, which is gone after the block.

    A pipe can be read once, and from the front: sound beside the pictures, edits and side-by-side read a clip twice,
    and many an MP4 has its index at the end. Raises UsageError, InputError.
    """
    if isinstance(source, Path):
        yield source
        return
    if sys.stdin.isatty():
        raise UsageError("-: stdin is a terminal; pipe a file into it, or name one")
    with TemporaryDirectory(prefix="jokr-") as folder:
        path = Path(folder, "stdin")
        try:
            with path.open("wb") as file:
                shutil.copyfileobj(sys.stdin.buffer, file, 1 << 20)
        except OSError as error:
            where = f"cannot be kept in {folder} ({error.strerror})"
            raise InputError(f"stdin: {where}; set TMPDIR to a folder with more room") from error
        size = path.stat().st_size
        if not size:
            raise InputError("stdin: nothing came; look at what the program before the pipe says")
        say(f"stdin: {size / 1e6:.2f} MB, read to the end and kept in {path} while this runs")
        yield path


def standard_output(output: Path | str, as_json: bool) -> Path | BinaryIO:
    """The path itself; for "-" stdout, unbuffered. Raises UsageError where that is for people, or for JSON."""
    if isinstance(output, Path):
        return output
    if as_json:
        raise UsageError("--json and the output - both write to stdout; choose one")
    if sys.stdout.isatty():
        raise UsageError("-: stdout is a terminal; send it to a file or a program, or name a file with -o")
    stdout: BinaryIO = sys.stdout.buffer
    return getattr(stdout, "raw", stdout)  # what is left in a buffer would fail once more at the end of the process
