"""Sound of one file copied, packet by packet, beside the pictures of another."""

from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

from av import AudioStream, Packet
from av.bitstream import BitStreamFilterContext
from av.container import OutputContainer
from av.error import FFmpegError

from jokr_rt.errors import InputError, OutputError
from jokr_rt.video.decode import open_input


class AudioCopy:
    """Every sound track of `path` as a track of `output`: same data, same times, nothing decoded.

    Raises InputError if `path` cannot be read, OutputError if the kind of file cannot hold one of its tracks.
    """

    def __init__(self, path: Path, output: OutputContainer) -> None:
        self._path = path
        self._input = open_input(path)
        self._tracks: dict[int, AudioStream] = {}
        self._unwrap: dict[int, BitStreamFilterContext] = {}
        try:
            for track in self._input.streams.audio:
                self._add_track(track, output)
        except BaseException:
            self._input.close()
            raise
        self._packets = self._read()
        self._next = next(self._packets, None)

    def _add_track(self, track: AudioStream, output: OutputContainer) -> None:
        codec = track.codec_context
        if codec is None or codec.name not in output.supported_codecs:
            name = codec.codec.canonical_name if codec else "an unknown codec"
            raise OutputError(
                f"{self._path}: its sound ({name}) does not fit into a {output.format.name} file; "
                "write a .mkv file, or leave the sound out with --no-audio"
            )
        if codec.name != "aac" or codec.extradata:
            self._tracks[track.index] = output.add_stream_from_template(track)
            return
        # In a transport stream each packet has a header of its own; other files have it once, at the start.
        self._unwrap[track.index] = BitStreamFilterContext("aac_adtstoasc", track)
        self._tracks[track.index] = copy = output.add_stream_from_template(track, opaque=False)
        copy.codec_context.extradata = self._aac_header(track.index)

    def _aac_header(self, index: int) -> bytes:
        with open_input(self._path) as container:
            track = container.streams[index]
            for packet in container.demux(track):
                for bare in BitStreamFilterContext("aac_adtstoasc", track).filter(packet):
                    return bytes(bare.get_sidedata("new_extradata"))
        raise InputError(f"{self._path}: its sound has no data; leave it out with --no-audio")

    def _read(self) -> Iterator[Packet]:
        """Packets in the order of the file, addressed to the output."""
        tracks = self._input.streams.audio
        last: dict[int, int] = {}
        try:
            for packet in self._input.demux(tracks) if tracks else ():
                if packet.dts is None:  # the end of a track
                    continue
                index = packet.stream.index
                if packet.is_corrupt or packet.dts <= last.get(index, packet.dts - 1):
                    where = f"{float(_due(packet)):.2f} s"
                    raise InputError(f"{self._path}: its sound is damaged at {where}; leave it out with --no-audio")
                last[index] = packet.dts
                for copy in self._unwrap[index].filter(packet) if index in self._unwrap else (packet,):
                    copy.stream = self._tracks[index]
                    yield copy
        except FFmpegError as error:
            raise InputError(f"{self._path}: its sound is damaged ({error.strerror}); use --no-audio") from error

    def until(self, seconds: Fraction | None) -> Iterator[Packet]:
        """Packets not handed out yet that are due at `seconds`; all of them for None."""
        while self._next is not None and (seconds is None or _due(self._next) <= seconds):
            packet, self._next = self._next, None
            yield packet
            self._next = next(self._packets, None)

    def close(self) -> None:
        self._input.close()


def _due(packet: Packet) -> Fraction:
    return (packet.dts or 0) * (packet.time_base or Fraction(0))
