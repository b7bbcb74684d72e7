"""One training in a folder at a time."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from jokr_rt.errors import OutputError, UsageError
from jokr_rt.locks import locked

LOCK = "training.lock"


@contextmanager
def exclusive(folder: Path) -> Iterator[None]:
    """Within the block the folder, which is made, is this process's to train in.

    The lock goes with its process, however that ends; at the end of the block its file goes too, and folders that were
    made for it and stayed empty. Raises UsageError where another training has it, OutputError where it cannot be made.
    """
    made = [each for each in (folder, *folder.parents) if not each.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = locked(folder / LOCK)
    except BlockingIOError:
        raise UsageError(
            f"{folder}: another training is at work here; wait for its end, or choose another folder with -o"
        ) from None
    except OSError as error:
        raise OutputError(f"{folder}: cannot be used: {error.strerror}; choose another folder with -o") from None
    try:
        yield
    finally:
        (folder / LOCK).unlink(missing_ok=True)
        os.close(file)
        with suppress(OSError):  # not empty
            for each in made:
                each.rmdir()
