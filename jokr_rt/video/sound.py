"""Sound of a live source as plain data: it outlives the container it came from, and can cross to another process.

All of it is AAC-LC, which every file and stream we write can hold: AAC-LC of the source is copied, anything else (the
G.711 of many cameras, say) is coded anew.

Nothing of PyAV leaves the reading thread: a closed container frees the stream that an `av.Packet` points to.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction

from av import AudioCodecContext, AudioResampler, AudioStream, CodecContext, Packet
from av.bitstream import BitStreamFilterContext
from av.container import OutputContainer
from av.error import FFmpegError

from jokr_rt.errors import InputError

_RATES = frozenset({96000, 88200, 64000, 48000, 44100, 32000, 24000, 22050, 16000, 12000, 11025, 8000, 7350})
_LAYOUTS = frozenset({"mono", "stereo", "3.0", "4.0", "5.0", "5.1", "7.1"})
_FRAME = 1024  # samples of a packet of AAC-LC
_BITS_PER_CHANNEL = 80_000  # a second


@dataclass(frozen=True)
class SoundTrack:
    """AAC-LC. rate: samples per second. layout: FFmpeg's name of the channels, such as "stereo"."""

    rate: int
    layout: str


@dataclass(frozen=True)
class SoundPacket:
    """One coded piece of a track. pts_s: when it is heard, seconds on the source's own clock."""

    track: SoundTrack
    data: bytes
    pts_s: Fraction

    @property
    def duration_s(self) -> Fraction:
        return Fraction(_FRAME, self.track.rate)


class SoundCopy:
    """Turns packets of an input's `stream` into packets of `track`. For the thread that reads the input.

    like: the track to make, for sinks that are open; without it, one near to the source's.
    Raises InputError if the installed FFmpeg cannot decode the sound.
    """

    def __init__(self, stream: AudioStream, like: SoundTrack | None = None) -> None:
        source = stream.codec_context
        if source is None:
            raise InputError("no decoder for its sound")
        self.track = like or track_like(source)
        self._stream = stream
        self._encoder = _encoder(self.track)
        self._resampler = AudioResampler("fltp", self.track.layout, self.track.rate, _FRAME)
        self._copied = _is_same(source, self._encoder)
        # In a transport stream each packet has a header of its own; other streams have it once, at the start.
        wrapped = self._copied and not source.extradata
        self._unwrap = BitStreamFilterContext("aac_adtstoasc", stream) if wrapped else None

    def copies(self, packet: Packet) -> Iterator[SoundPacket]:
        """None or some for each packet of the stream. A damaged packet is left out, as a gap in the sound."""
        if packet.dts is None or packet.is_corrupt:
            return
        try:
            for copy in self._coded(packet):
                if copy.pts is not None and copy.time_base is not None:
                    yield SoundPacket(self.track, bytes(copy), copy.pts * copy.time_base)
        except FFmpegError:
            return

    def _coded(self, packet: Packet) -> Iterator[Packet]:
        if self._unwrap is not None:
            yield from self._unwrap.filter(packet)
        elif self._copied:
            yield packet
        else:
            for frame in self._stream.codec_context.decode(packet):
                for piece in self._resampler.resample(frame):
                    yield from self._encoder.encode(piece)


def track_like(source: AudioCodecContext) -> SoundTrack:
    """The track that is nearest to a source's sound."""
    rate = source.rate if source.rate in _RATES else 48000
    return SoundTrack(rate, source.layout.name if source.layout.name in _LAYOUTS else "stereo")


def add_track(container: OutputContainer, track: SoundTrack) -> AudioStream:
    """A stream of `container` for packets of `track`.

    It has an encoder, as PyAV has no stream of given parameters without one; all it does is to write the header.
    """
    return container.add_stream("aac", rate=track.rate, layout=track.layout)


def _encoder(track: SoundTrack) -> AudioCodecContext:
    encoder = CodecContext.create("aac", "w")
    encoder.rate, encoder.layout, encoder.format = track.rate, track.layout, "fltp"
    encoder.time_base = Fraction(1, track.rate)
    encoder.bit_rate = _BITS_PER_CHANNEL * encoder.layout.nb_channels
    encoder.open()
    return encoder


def _is_same(source: AudioCodecContext, encoder: AudioCodecContext) -> bool:
    """Whether what `source` decodes can stand under the header of `encoder`."""
    if source.name != "aac":
        return False
    if source.extradata:
        # AudioSpecificConfig of ISO/IEC 14496-3: its first two bytes hold object type, rate, channels and frame length.
        return source.extradata[:2] == (encoder.extradata or b"")[:2] and source.profile == "LC"
    shape = (source.profile, source.rate, source.layout.name)
    return shape == ("LC", encoder.rate, encoder.layout.name)
