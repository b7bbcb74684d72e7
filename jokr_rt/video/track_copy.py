"""What a file has beside its pictures, brought into another: sound, subtitles, chapters and attachments."""

import io
import logging
from collections.abc import Callable, Iterable, Iterator
from fractions import Fraction
from pathlib import Path

import av
from av import AudioStream, Packet
from av.bitstream import BitStreamFilterContext
from av.container import InputContainer, OutputContainer
from av.error import FFmpegError
from av.stream import AttachmentStream, Stream

from jokr_rt.errors import InputError
from jokr_rt.video.decode import clock_start, is_attached, open_input
from jokr_rt.video.sound import track_like

_log = logging.getLogger(__name__)

Convert = Callable[[Packet | None], Iterable[Packet]]
"""From a packet of the input to those of the output; from None, at the end, to what is left."""


class TrackCopy:
    """Tracks of `path` as tracks of `output`: same data, same times, on the clock of `open_video`.

    kind: "audio" or "subtitle". Sound that the kind of file cannot hold is coded anew, as AAC, or Opus in WebM;
    subtitles that it cannot hold are left out. Each is logged in one line.

    Raises InputError if `path` cannot be read or its sound not decoded.
    """

    def __init__(self, path: Path, output: OutputContainer, kind: str = "audio") -> None:
        self._path = path
        self._input = open_input(path)
        self._start = clock_start(self._input)
        self._converts: dict[int, Convert] = {}
        self._changed: list[str] = []
        try:
            self._tracks = [track for track in self._input.streams if track.type == kind]
            for track in self._tracks:
                if isinstance(track, AudioStream):
                    self._add_sound(track, output)
                else:
                    self._add_subtitle(track, output)
        except BaseException:
            self._input.close()
            raise
        if self._changed:
            done = "coded anew" if kind == "audio" else "left out"
            names = ", ".join(dict.fromkeys(self._changed))
            _log.warning("%s: its %s (%s) cannot be in a %s file; %s", path, kind, names, output.format.name, done)
        self._packets = self._read()
        self._next = next(self._packets, None)

    def _add_sound(self, track: AudioStream, output: OutputContainer) -> None:
        if track.codec_context is None:
            raise InputError(f"{self._path}: no decoder for its sound; leave it out with --no-audio")
        if not _fits(self._path, track.index, output.format.name):
            self._converts[track.index] = _coded(track, output)
            self._changed.append(track.codec_context.codec.canonical_name)
        elif track.codec_context.name == "aac" and not track.codec_context.extradata:
            self._converts[track.index] = self._unwrapped(track, output)
        else:
            self._converts[track.index] = _copied(_tagged(output.add_stream_from_template(track), track))

    def _unwrapped(self, track: AudioStream, output: OutputContainer) -> Convert:
        """In a transport stream each packet has a header of its own; other files have it once, at the start."""
        copy = _tagged(output.add_stream_from_template(track, opaque=False), track)
        copy.codec_context.extradata = self._aac_header(track.index)
        bare = BitStreamFilterContext("aac_adtstoasc", track)
        put = _copied(copy)

        def convert(packet: Packet | None) -> Iterator[Packet]:
            for one in () if packet is None else bare.filter(packet):
                yield from put(_without_side_data(one))

        return convert

    def _aac_header(self, index: int) -> bytes:
        with open_input(self._path) as container:
            track = container.streams[index]
            for packet in container.demux(track):
                for bare in BitStreamFilterContext("aac_adtstoasc", track).filter(packet):
                    return bytes(bare.get_sidedata("new_extradata"))
        raise InputError(f"{self._path}: its sound has no data; leave it out with --no-audio")

    def _add_subtitle(self, track: Stream, output: OutputContainer) -> None:
        if track.codec_context is None or not _fits(self._path, track.index, output.format.name):
            self._changed.append(track.name or "of an unknown kind")
            return
        self._converts[track.index] = _copied(_tagged(output.add_stream_from_template(track), track))

    def _read(self) -> Iterator[Packet]:
        """Packets in the order of the file, addressed to the output."""
        tracks = [track for track in self._tracks if track.index in self._converts]
        last: dict[int, int] = {}
        try:
            for packet in self._input.demux(tracks) if tracks else ():
                index = packet.stream.index
                if packet.dts is None:  # the end of a track
                    continue
                goes_back = packet.dts <= last.get(index, packet.dts - 1)
                if packet.is_corrupt or (goes_back and packet.stream.type == "audio"):
                    where = f"{float(_due(packet)):.2f} s"
                    raise InputError(f"{self._path}: its sound is damaged at {where}; leave it out with --no-audio")
                last[index] = packet.dts
                start = round(self._start / packet.time_base) if packet.time_base else 0
                packet.dts -= start
                packet.pts = None if packet.pts is None else packet.pts - start
                yield from self._converts[index](packet)
            for track in tracks:
                yield from self._converts[track.index](None)
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


def copy_extras(path: Path, output: OutputContainer) -> None:
    """Chapters of the file `path`, and, into Matroska, its attachments; one logged line where these are left out, and
    one for tracks that nothing is made of: more videos, and data such as a time code or GPS."""
    with open_input(path) as source:
        if chapters := source.chapters():
            output.set_chapters(chapters)
        if unread := _unread(source):
            _log.warning("%s: its other tracks (%s) are left out", path, ", ".join(unread))
        attached = [stream for stream in source.streams if is_attached(stream)]
        if attached and output.format.name != "matroska":
            _log.warning("%s: its attachments cannot be in a %s file; left out", path, output.format.name)
            return
        for stream in attached:
            name = stream.metadata.get("filename") or "attachment"
            output.add_attachment(name, *_attachment(stream, source))


def _unread(source: InputContainer) -> list[str]:
    """Kinds of the tracks that are not sound, subtitles, attachments, or the video that is read."""
    others = [stream for stream in source.streams if stream != source.streams.best("video") and not is_attached(stream)]
    kinds: list[str] = [stream.type for stream in others if stream.type not in ("audio", "subtitle")]
    if source.chapters() and any(stream.type == "data" and stream.name == "bin_data" for stream in others):
        kinds.remove("data")  # where QuickTime keeps the chapters
    return kinds


def _attachment(stream: Stream, source: InputContainer) -> tuple[str, bytes]:
    """MIME type and data. A picture is a stream of one packet to FFmpeg."""
    if isinstance(stream, AttachmentStream):
        return stream.mimetype or "application/octet-stream", bytes(stream.data or b"")
    name = stream.codec_context.name if stream.codec_context else ""
    kind = {"mjpeg": "image/jpeg", "png": "image/png"}.get(name, "application/octet-stream")
    return kind, bytes(next(source.demux(stream)))


def _fits(path: Path, index: int, kind: str) -> bool:
    """Whether a track of `path` can be copied into a file of this kind: only its muxer knows, once it has a packet."""
    with open_input(path) as source:
        track = source.streams[index]
        try:
            with av.open(io.BytesIO(), "w", format=kind) as trial:
                copy = trial.add_stream_from_template(track)
                for packet in source.demux(track):
                    if packet.dts is not None:
                        packet.stream = copy
                        trial.mux(packet)
                        break
        except (FFmpegError, ValueError):  # the latter is PyAV's, of a codec that FFmpeg does not list
            return False
    return True


def _tagged(copy: Stream, track: Stream) -> Stream:
    """A track that says of itself what the one that it is made of does: language, title; default or forced."""
    copy.metadata.update({key: value for key, value in track.metadata.items() if key in ("language", "title")})
    copy.disposition = track.disposition
    return copy


def _copied(copy: Stream) -> Convert:
    def convert(packet: Packet | None) -> Iterator[Packet]:
        if packet is not None:
            packet.stream = copy
            yield packet

    return convert


def _coded(track: AudioStream, output: OutputContainer) -> Convert:
    wanted = track_like(track.codec_context)
    codec, rate = ("libopus", 48000) if output.format.name == "webm" else ("aac", wanted.rate)
    made = _tagged(output.add_stream(codec, rate=rate, layout=wanted.layout), track)
    assert isinstance(made, AudioStream)

    def convert(packet: Packet | None) -> Iterator[Packet]:
        for frame in track.codec_context.decode(packet):
            yield from made.encode(frame)
        if packet is None:
            yield from made.encode(None)

    return convert


def _without_side_data(packet: Packet) -> Packet:
    """Without the header that comes with the first one: Matroska would write all of its tracks again for it."""
    bare = Packet(bytes(packet))
    bare.pts, bare.dts, bare.time_base, bare.duration = packet.pts, packet.dts, packet.time_base, packet.duration
    bare.is_keyframe = packet.is_keyframe
    return bare


def _due(packet: Packet) -> Fraction:
    return (packet.dts or 0) * (packet.time_base or Fraction(0))
