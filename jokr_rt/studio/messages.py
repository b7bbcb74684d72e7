"""What passes the socket, in both directions: a header in JSON and, behind it, bytes such as pictures."""

import json
import math
import struct
from dataclasses import dataclass, field
from typing import Any

from jokr_rt.errors import UsageError

_LENGTH = struct.Struct("<I")


@dataclass(frozen=True)
class Message:
    """kind: what it is about. header: the other fields of the JSON object. parts: bytes, in the order of the header's
    field "parts", which holds their lengths."""

    kind: str
    header: dict[str, Any] = field(default_factory=dict)
    parts: tuple[bytes, ...] = ()

    def pack(self) -> bytes:
        """Length of the header (4 bytes, little-endian), header, parts."""
        values = {"kind": self.kind, **self.header, "parts": [len(part) for part in self.parts]}
        header = json.dumps(values, allow_nan=False).encode()
        return b"".join([_LENGTH.pack(len(header)), header, *self.parts])

    def number(self, name: str, low: float, high: float) -> float:
        """A field of the header. Raises UsageError."""
        value = self.header.get(name)
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
            raise UsageError(f"{name} must be a number")
        if not low <= value <= high:
            raise UsageError(f"{name} must be between {low:g} and {high:g}, not {value:g}")
        return value


def unpack(data: bytes) -> Message:
    """Raises UsageError for what no page of ours sends."""
    try:
        (length,) = _LENGTH.unpack_from(data)
        header = json.loads(data[_LENGTH.size : _LENGTH.size + length].decode())
        kind, sizes = header.pop("kind"), header.pop("parts", [])
        body = memoryview(data)[_LENGTH.size + length :]
        if not isinstance(kind, str) or any(type(size) is not int or size < 0 for size in sizes):
            raise ValueError("kind or parts")
        if sum(sizes) != len(body):
            raise ValueError("lengths")
    except (struct.error, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise UsageError(f"not a message of the studio's page ({type(error).__name__})") from None
    parts, start = [], 0
    for size in sizes:
        parts.append(bytes(body[start : start + size]))
        start += size
    return Message(kind, header, tuple(parts))


class Mailbox:
    """Messages that wait for one who takes them: of each kind the newest only, so that it never grows."""

    def __init__(self) -> None:
        self._waiting: dict[str, Message] = {}

    def put(self, message: Message) -> Message | None:
        """Returns the message that it replaces, whose place in the queue it takes."""
        replaced = self._waiting.get(message.kind)
        self._waiting[message.kind] = message
        return replaced

    def take(self) -> Message | None:
        """The one whose kind has waited longest."""
        return self._waiting.pop(next(iter(self._waiting))) if self._waiting else None
