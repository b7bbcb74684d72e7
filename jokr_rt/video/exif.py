"""Which way up a photo is, as its EXIF block says."""

import re
import struct

UPRIGHT = {
    1: (0, False), 2: (0, True), 3: (2, False), 4: (2, True), 5: (3, True), 6: (3, False), 7: (1, True), 8: (1, False)
}  # fmt: skip
"""Orientation (EXIF 2.3, tag 0x0112) -> what makes it upright: quarter turns counter-clockwise, then mirroring."""

# Of JPEG, PNG and WebP: what stands before the block, and the byte order that it begins with.
_BLOCK = re.compile(rb"(?:Exif\0\0|eXIf|EXIF.{4})(II\*\0|MM\0\*)", re.DOTALL)


def orientation(data: bytes) -> int:
    """1 to 8, of an image file's bytes; 1 where it has no EXIF block, or a damaged one."""
    if (block := _BLOCK.search(data)) is None:
        return 1
    start = block.start(1)
    order = "<" if block[1][:2] == b"II" else ">"
    try:
        (offset,) = struct.unpack_from(f"{order}I", data, start + 4)
        (entries,) = struct.unpack_from(f"{order}H", data, start + offset)
        for index in range(entries):
            tag, _, _, value = struct.unpack_from(f"{order}HHIH", data, start + offset + 2 + 12 * index)
            if tag == 0x0112:
                return value if value in UPRIGHT else 1
    except struct.error:
        pass
    return 1
