"""Width and height of a JPEG or PNG, read from its header without decoding it."""

from __future__ import annotations

import struct

__all__ = ["picture_size"]

_PNG = b"\x89PNG\r\n\x1a\n"
#: JPEG markers without a length: TEM, RST0 to RST7, SOI.
_ALONE = frozenset({0x01, *range(0xD0, 0xD9)})
#: Start of frame, of whatever coding (ITU-T T.81, table B.1); C4, C8 and CC are something else.
_START_OF_FRAME = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}


def picture_size(data: bytes | memoryview) -> tuple[int, int] | None:
    """(width, height) in pixels; None when it is neither format or the header is cut short."""
    if bytes(data[:8]) == _PNG:
        if len(data) < 24 or bytes(data[12:16]) != b"IHDR":
            return None
        width, height = struct.unpack(">II", data[16:24])
        return int(width), int(height)
    if bytes(data[:2]) == b"\xff\xd8":
        return _jpeg_size(data)
    return None


def _jpeg_size(data: bytes | memoryview) -> tuple[int, int] | None:
    at = 2
    while at + 9 <= len(data):
        if data[at] != 0xFF:
            return None
        marker = data[at + 1]
        if marker == 0xFF:  # fill byte
            at += 1
        elif marker in _ALONE:
            at += 2
        elif marker in _START_OF_FRAME:
            height, width = struct.unpack(">HH", data[at + 5 : at + 9])
            return int(width), int(height)
        else:
            (length,) = struct.unpack(">H", data[at + 2 : at + 4])
            if length < 2:
                return None
            at += 2 + length
    return None
