"""Writing a video to a pipe: Matroska, from front to back."""

import errno
from fractions import Fraction
from typing import Any, BinaryIO

from av.container import OutputContainer
from av.error import FFmpegError

from jokr_rt.errors import OutputError
from jokr_rt.video.encode import open_stream
from jokr_rt.video.writer import VideoWriter


class _Pipe:
    """What FFmpeg writes to. An error is kept, and raised by `check`: it does not get through FFmpeg whole."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._error: OSError | None = None

    def write(self, data: bytes) -> int:
        rest = memoryview(data)
        try:
            while self._error is None and rest:
                rest = rest[self._file.write(rest) :]
            self._file.flush()
        except OSError as error:
            self._error = error
        return len(data)

    def check(self) -> None:
        """Raises BrokenPipeError where nobody reads any more, and OutputError for anything else."""
        if self._error is not None and self._error.errno == errno.EPIPE:
            raise self._error
        if self._error is not None:
            raise OutputError(f"-: cannot be written any further ({self._error.strerror})")


class StreamWriter(VideoWriter):
    """As a `VideoWriter`, into `file`, open for writing bytes, which stays open; there is no part file.

    Also raises BrokenPipeError, where the reader of a pipe is gone.
    """

    def __init__(self, file: BinaryIO, **options: Any) -> None:
        self._pipe = _Pipe(file)
        super().__init__("-", **options)

    def _prepare(self, overwrite: bool) -> OutputContainer:
        return open_stream(self._pipe)

    @property
    def kept(self) -> None:
        """Nothing."""

    def _note_whole(self) -> None:
        self._pipe.check()

    def _finish(self, audio_until: Fraction | None) -> None:
        super()._finish(audio_until)
        self._pipe.check()

    def _failed(self, error: FFmpegError, *, completed: bool) -> OutputError:
        return OutputError(f"-: cannot be written any further ({error.strerror})")

    def _keep(self) -> None:
        """It is out."""

    def _discard(self) -> None:
        """As above."""
