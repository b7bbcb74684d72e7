"""A recording that a crash cannot take away."""

import os
from collections.abc import Iterator
from fractions import Fraction
from itertools import count
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from jokr_rt.documents import check_output
from jokr_rt.errors import OutputError, UsageError
from jokr_rt.locks import locked_output
from jokr_rt.video.encode import FORMATS
from jokr_rt.video.live_mux import Coding, LiveMux
from jokr_rt.video.sound import SoundPacket, SoundTrack

# A fragment each 0.2 s (given in microseconds): a killed process loses that much. Closing turns the file into an
# ordinary MP4. Without delay_moov start times and sound shift. (WebM has no H.264.)
_MP4 = {"movflags": "hybrid_fragmented+delay_moov", "frag_duration": "200000", "movie_timescale": "90000"}
_OPTIONS = {"mp4": _MP4, "mov": _MP4, "matroska": {"cluster_time_limit": "200"}}  # milliseconds


def check_recording(path: Path, overwrite: bool) -> None:
    """Raises UsageError for an unknown kind of file, OutputError where it cannot be written or exists already."""
    if FORMATS.get(path.suffix.lower()) not in _OPTIONS:
        raise UsageError(f"{path}: unknown kind of recording; the name must end in .mp4, .mov or .mkv")
    check_output(path, overwrite)


def free_names(path: Path) -> Iterator[Path]:
    """Where a recording goes that is opened again after a failure: `rec.mp4`, then `rec-2.mp4` and so on.

    What was written stays: all but the first are names of no file.
    """
    yield path
    for number in count(2):
        if not (numbered := path.with_stem(f"{path.stem}-{number}")).exists():
            yield numbered


class Recording:
    """Pictures, and perhaps sound, as a file that plays at any moment, but for its last fifth of a second.

    path: .mp4, .mov or .mkv; an existing file is replaced.
    """

    def __init__(self, path: Path, coding: Coding) -> None:
        self.path = path
        self._coding = coding
        self._whole_bytes = 0
        self._mux: LiveMux | None = None
        self._lock: int | None = None  # of the file

    def open(self, sound: SoundTrack | None) -> None:
        """Create the file. Raises OutputError, also where another run is writing it."""
        kind = FORMATS[self.path.suffix.lower()]
        self._lock = locked_output(self.path)
        try:
            self._mux = LiveMux(f"file:{self.path}", kind, self._coding, sound, _OPTIONS[kind], str(self.path))
        except BaseException:
            if not self.path.stat().st_size:  # made by the lock
                self.path.unlink()
            self._unlock()
            raise

    def write(self, image: NDArray[np.uint8], time_s: Fraction) -> None:
        """image: (height, width, 3) uint8 RGB. time_s: later than the last, on any clock. Raises OutputError."""
        assert self._mux is not None
        self._mux.write(image, time_s)
        self._whole_bytes = self.path.stat().st_size  # all of it is with the system: flush_packets

    def write_sound(self, packet: SoundPacket, time_s: Fraction) -> None:
        """Sound of `time_s`, on the clock of the pictures. Raises OutputError."""
        assert self._mux is not None
        self._mux.write_sound(packet.data, time_s, packet.duration_s)

    def close(self) -> None:
        """Finish the file; one without a picture is removed. Raises OutputError.

        Where it cannot be finished, on a full disk, it is cut back to what is whole, and plays.
        """
        mux, self._mux = self._mux, None
        if mux is None:
            return
        try:
            mux.close()
        except OutputError:
            os.truncate(self.path, self._whole_bytes)
            raise
        finally:
            if not mux.frames:
                self.path.unlink(missing_ok=True)
            self._unlock()

    def _unlock(self) -> None:
        lock, self._lock = self._lock, None
        if lock is not None:
            os.close(lock)

    def abort(self) -> None:
        """A disk that hangs cannot be helped from here."""
