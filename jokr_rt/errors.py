"""Errors a caller may want to catch. Each also subclasses the builtin that fits.

The message of every error is one line for a person: what was wrong, where, and what to do.
"""

from collections.abc import Sequence
from dataclasses import dataclass


class JokrError(Exception):
    """Base of all errors raised on purpose by this package; `exit_code` is what the command line returns."""

    exit_code = 1


class UsageError(JokrError, ValueError):
    """An option or argument that cannot be meant: unknown direction, engine or size."""

    exit_code = 2


class InputError(JokrError, ValueError):
    """A video, folder of frames or mask that cannot be used."""


class OutputError(JokrError, OSError):
    """An output that cannot be written."""


class BundleError(JokrError, ValueError):
    """A bundle that is incomplete, damaged, of an unknown version, or reaches outside its folder."""


class CheckpointError(JokrError, ValueError):
    """A checkpoint that is damaged, of another kind, or does not fit the requested model."""


class EngineError(JokrError, RuntimeError):
    """An inference engine that failed."""


class EngineMissingError(EngineError, ImportError):
    """An inference engine that is not installed; the message names the extra that installs it."""


class ParityError(JokrError, ArithmeticError):
    """An exported graph whose results differ from PyTorch's by more than the tolerance."""


@dataclass(frozen=True)
class LayerCost:
    """layer: its graph and name. work: its share of all multiply-adds. psnr_db: what quantising it alone would leave of
    fp32's frames; the lower, the more it costs."""

    layer: str
    work: float
    psnr_db: float


class QuantisationError(ParityError):
    """Graphs in int8 that lose too much. costs: of every layer, the costliest first."""

    def __init__(self, message: str, costs: Sequence[LayerCost]) -> None:
        super().__init__(message)
        self.costs = tuple(costs)


class TrainingError(JokrError, ArithmeticError):
    """Training that cannot go on, such as a loss that is not a number."""


class ForeignPackageError(JokrError, RuntimeError):
    """A module of somebody else's where Python looks for a package of ours."""


def missing_extra(what: str, error: ImportError, extra: str = "train") -> EngineMissingError:
    """What to raise where PyTorch or another package of an extra is not installed."""
    return EngineMissingError(f"{what} needs the extra {extra} ({error}): pip install 'jokr-rt[{extra}]'")
