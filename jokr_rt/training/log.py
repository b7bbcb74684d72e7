"""What a run tells about its steps: a line each in metrics.jsonl and, where TensorBoard is installed, its scalars."""

import json
import os
import time
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import TextIO

from jokr_rt.errors import OutputError

METRICS = "metrics.jsonl"
TENSORBOARD = "tensorboard"  # folder of its event files

try:
    from torch.utils.tensorboard import SummaryWriter
except ImportError:
    HAS_TENSORBOARD = False
else:
    HAS_TENSORBOARD = True


class MetricsLog:
    """The log of a run in `folder` that has done `step` steps; what it says of later ones is dropped. A context.

    A line is `{"step": 1, "seconds": 0.5, "lr": 0.0002, "losses": {"reconstruction": 0.8, ...}}`: the steps done,
    seconds of training (a resumed run counts on), the learning rate of that step and its unweighted losses.
    Raises OutputError where it cannot be written.
    """

    def __init__(self, folder: Path, step: int) -> None:
        self._folder = folder
        try:
            seconds = _keep_until(folder / METRICS, step)
            self._file: TextIO = (folder / METRICS).open("a", encoding="utf-8")
            # The events of steps to be done again are hidden by TensorBoard itself.
            self._writer = SummaryWriter(folder / TENSORBOARD, purge_step=step + 1) if HAS_TENSORBOARD else None
        except OSError as error:
            raise self._failed(error) from None
        self._start = time.perf_counter() - seconds

    def write(self, step: int, lr: float, losses: dict[str, float]) -> None:
        """Add what `step`, counted from 1, was like. It is in the file when this returns."""
        seconds = round(time.perf_counter() - self._start, 3)
        line = json.dumps({"step": step, "seconds": seconds, "lr": lr, "losses": losses}, allow_nan=False)
        try:
            self._file.write(line + "\n")
            self._file.flush()
            if self._writer is not None:
                self._writer.add_scalar("lr", lr, step)
                for name, value in losses.items():
                    self._writer.add_scalar(f"losses/{name}", value, step)
        except OSError as error:
            raise self._failed(error) from None

    def _failed(self, error: OSError) -> OutputError:
        return OutputError(f"{self._folder}: metrics cannot be written: {error.strerror}")

    def __enter__(self) -> "MetricsLog":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        try:
            with ExitStack() as both:
                both.callback(self._file.close)
                if self._writer is not None:
                    both.callback(self._writer.close)
        except OSError as failure:
            if error is None:  # else `write` has said so, or there is worse to say
                raise self._failed(failure) from None


def _keep_until(path: Path, step: int) -> float:
    """Drop the lines after `step`, and a torn last one, atomically. Seconds of training at the last line kept."""
    seconds = 0.0
    partial = path.with_name(path.name + ".part")
    try:
        with path.open("a+", encoding="utf-8") as old, partial.open("w", encoding="utf-8") as new:
            old.seek(0)
            for line in old:
                try:
                    values = json.loads(line)
                    if values["step"] > step:
                        break
                    seconds = float(values["seconds"])
                except (ValueError, KeyError, TypeError):
                    break
                new.write(line)
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
    return seconds
