"""Errors a caller may want to catch. Each also subclasses the builtin that fits.

The message of every error is one line for a person: what was wrong, where, and what to do.
"""


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


class TrainingError(JokrError, ArithmeticError):
    """Training that cannot go on, such as a loss that is not a number."""
