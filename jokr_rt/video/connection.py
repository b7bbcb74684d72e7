"""One connection to a live source: opened within a bound, decoded with little delay, lost with a line that says why."""

import logging
import math
import time
from collections.abc import Generator
from dataclasses import dataclass, field

import av
from av import AudioStream, Packet, VideoFrame, VideoStream
from av.container import InputContainer
from av.error import ExitError, FFmpegError, InvalidDataError

from jokr_rt.errors import InputError, UsageError
from jokr_rt.video.address import STDIN, Address, Pipe
from jokr_rt.video.devices import CameraMode, hardware_decoder
from jokr_rt.video.sound import SoundCopy, SoundPacket, SoundTrack

_log = logging.getLogger(__name__)

_TRANSPORTS = ("tcp", "udp", "udp_multicast", "http")


@dataclass(frozen=True)
class CaptureOptions:
    """camera: what is asked of a webcam. rtsp_transport: "tcp", "udp", "udp_multicast" or "http".

    hwaccel: "none", "auto", or a kind of device such as "cuda". realtime: play a file at its own rate; loop: again and
    again. sound: whether it is captured; sound_like: as which track, None for one like the source's. stall_s: longest
    silence of a live source; open_s: longest wait for it to answer, seconds. letterbox: side of the square that frames
    are drawn into, None for the size they have.
    """

    camera: CameraMode = field(default_factory=CameraMode)
    rtsp_transport: str = "tcp"
    hwaccel: str = "none"
    realtime: bool = False
    loop: bool = False
    sound: bool = True
    sound_like: SoundTrack | None = None
    stall_s: float = 2.0
    open_s: float = 10.0
    letterbox: int | None = None

    def __post_init__(self) -> None:
        for name, seconds in (("stall", self.stall_s), ("open", self.open_s)):
            if not 0 < seconds < math.inf:
                raise UsageError(f"{name} must be a time above 0 s, not {seconds}")
        if self.rtsp_transport not in _TRANSPORTS:
            raise UsageError(f"unknown RTSP transport {self.rtsp_transport!r}; choose {', '.join(_TRANSPORTS)}")


class SourceLost(InputError):
    """The source ended, stalled or failed; opening it again may help."""


class SourceEnded(SourceLost):
    """The source has come to an end that no reconnection changes: of a file, or of stdin."""


class Connection:
    """An open container. All of it is for one thread: closing it in another frees nobody from a read.

    stream: the video's. decoder: its name and what it runs on. track: of the sound, or None. heard: packets of sound
    that came since somebody emptied it. damaged: packets and pictures that were not whole; FFmpeg repairs such pictures
    as it can. is_empty: whether there was no picture so far.

    Raises SourceLost where the source does not answer or has no video; InputError where trying again is no use: of a
    file, or where stdin has ended.
    """

    def __init__(self, address: Address, options: CaptureOptions) -> None:
        self._address, self._stall_s = address, options.stall_s
        self._pipe: Pipe | None = None
        self.heard: list[SoundPacket] = []
        self.damaged = 0
        self.is_empty = True
        try:
            self._container = self._open(options.open_s)
        except (FFmpegError, OSError) as error:
            lost = self._lost(error, "does not answer")
            if self._pipe is not None:
                self._pipe.close()
            raise lost from error
        try:
            self.stream = self._choose_video()
            self._choose_decoder(options.hwaccel)
            audio = self._container.streams.best("audio") if options.sound else None
            self._sound = SoundCopy(audio, options.sound_like) if isinstance(audio, AudioStream) else None
        except BaseException:
            self.close()
            raise
        self.track: SoundTrack | None = self._sound.track if self._sound else None
        self._streams = [self.stream] if self._sound is None else [self.stream, audio]

    def _open(self, open_s: float) -> InputContainer:
        address = self._address
        if address.kind == "pipe":
            self._pipe = Pipe(address.url, open_s)
            container = av.open(self._pipe, "r", container_options=address.options)
            self._pipe.timeout_s = self._stall_s
            return container
        # FFmpeg's limit holds twice: for opening, and for looking at what comes.
        timeout = (open_s / 2, self._stall_s) if address.is_live else None
        return av.open(address.url, "r", format=address.format, container_options=address.options, timeout=timeout)

    def _choose_video(self) -> VideoStream:
        streams = self._container.streams
        video = streams.best("video")
        if not isinstance(video, VideoStream) or video.codec_context is None:
            kinds = ", ".join(sorted({each.type for each in streams})) or "nothing that FFmpeg knows"
            kind = SourceLost if self._address.is_live else InputError
            raise kind(f"{self._address.name}: no video that can be decoded in it, only {kinds}")
        return video

    def _choose_decoder(self, hwaccel: str) -> None:
        self._codec, self.decoder = self.stream.codec_context, "software"
        if hwaccel == "none":
            return
        hardware, told = hardware_decoder(self.stream, hwaccel)
        if hardware is None:
            self._fall_back(told)
        else:
            self._codec, self.decoder = hardware, told

    def _fall_back(self, reason: str) -> None:
        self._codec, self.decoder = self.stream.codec_context, f"software: {reason}"
        _log.warning("%s: decodes in software: %s", self._address.name, reason)

    @property
    def format(self) -> str:
        """FFmpeg's name of the container."""
        return self._container.format.name

    def pictures(self) -> Generator[VideoFrame | None, None, None]:
        """Pictures in the order they are shown, and None wherever a packet brought none. Raises SourceLost.

        It ends where the source does, which of a live one is a loss as well.
        """
        silent = f"no data for {self._stall_s:g} s"
        began_s = time.monotonic()
        try:
            for packet in self._container.demux(self._streams):
                # Interrupted, FFmpeg hands out what it held back before it raises: an old picture.
                if self._address.is_live and time.monotonic() - began_s >= self._stall_s:
                    raise SourceLost(f"{self._address.name}: {silent}")
                if packet.stream is self.stream:
                    yield from self._decode(packet) or (None,)
                elif self._sound is not None:
                    self.heard.extend(self._sound.copies(packet))
                    yield None
                began_s = time.monotonic()
        except (FFmpegError, OSError) as error:
            raise self._lost(error, silent) from error

    def _decode(self, packet: Packet) -> list[VideoFrame]:
        try:
            pictures = self._codec.decode(packet)
        except FFmpegError as error:
            if self._codec is self.stream.codec_context:
                self.damaged += 1
                return []
            self._fall_back(f"{self.decoder} does not take this video ({error.strerror})")
            return self._decode(packet)
        self.damaged += sum(picture.is_corrupt for picture in pictures)
        self.is_empty = self.is_empty and not pictures
        return pictures

    def _lost(self, error: Exception, silent: str) -> InputError:
        name = self._address.name
        if not self._address.is_live:
            return InputError(f"{name}: not a video that can be read, or damaged ({getattr(error, 'strerror', error)})")
        if self._pipe is not None and self._pipe.ended:
            return self.ended()
        if isinstance(error, (ExitError, TimeoutError)):
            return SourceLost(f"{name}: {silent}")
        if isinstance(error, InvalidDataError):
            return SourceLost(f"{name}: what comes is no video, or breaks off")
        return SourceLost(f"{name}: {getattr(error, 'strerror', None) or error}")

    def ended(self) -> InputError:
        """What to raise where there is no more."""
        name = self._address.name
        if self._address.is_live and self._address.url != STDIN:
            return SourceLost(f"{name}: the stream ended")
        return (
            InputError(f"{name}: ended before there was a picture") if self.is_empty else SourceEnded(f"{name}: ended")
        )

    def close(self) -> None:
        """May be called twice."""
        self._container.close()
        pipe, self._pipe = self._pipe, None
        if pipe is not None:
            pipe.close()
