"""What a visitor of the studio may ask for."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Limits:
    """upload_bytes, clip_pixels (of a picture), clip_seconds, clip_frames: of an uploaded clip. looks_bytes,
    looks_pixels: of a picture that a creature has its looks from. live_pixels: of a camera's frame. message_bytes: of
    one message on the socket. visitors: at once. absence_seconds: how long a visitor who lost the connection, or
    reloads the page, keeps what he had. silence_seconds: between two parts of an upload."""

    upload_bytes: int = 256 << 20
    clip_pixels: int = 4096 * 2304
    clip_seconds: float = 120.0
    clip_frames: int = 3600
    looks_bytes: int = 16 << 20
    looks_pixels: int = 6144 * 4096
    live_pixels: int = 1024 * 1024
    message_bytes: int = 1 << 20
    visitors: int = 8
    absence_seconds: float = 120.0
    silence_seconds: float = 30.0
