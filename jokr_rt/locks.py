"""A lock on a file that goes with its process, however that ends."""

import fcntl
import os
from contextlib import suppress
from pathlib import Path

from jokr_rt.errors import OutputError


def locked(path: Path) -> int:
    """A descriptor that holds the lock of a file, which is made. Raises BlockingIOError where another one has it."""
    while True:
        file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            with suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(file), path.stat()):
                    return file
        except BaseException:
            os.close(file)
            raise
        os.close(file)  # its last holder removed or renamed the file in between: this one is nobody's


def locked_output(path: Path) -> int:
    """`locked`, for a file that is about to be written. Raises OutputError."""
    try:
        return locked(path)
    except BlockingIOError as error:
        raise OutputError(f"{path}: another run is writing it; choose another name, or wait for its end") from error
    except OSError as error:
        raise OutputError(f"{path}: cannot be written ({error.strerror})") from error
