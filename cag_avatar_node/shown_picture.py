"""Whether a compressed picture can be shown, told from its ends without decoding it."""

from __future__ import annotations

from cag_avatar_node.picture_header import picture_size

__all__ = ["PictureError", "check_picture", "media_type"]

#: Longest side that a page takes, pixels.
MAX_SIDE = 8192
#: Most bytes of a picture.
MAX_BYTES = 32 << 20
#: Bytes at the end in which the end mark must lie: cameras fill JPEG files up with zeros.
_TAIL = 1024


class PictureError(ValueError):
    """A picture that cannot be shown; ``fault`` is its kind for the diagnostics."""

    def __init__(self, fault: str, message: str) -> None:
        super().__init__(message)
        self.fault = fault


def media_type(data: bytes) -> str:
    """``image/png`` or ``image/jpeg`` of a checked picture."""
    return "image/png" if data.startswith(b"\x89PNG") else "image/jpeg"


def check_picture(data: bytes, named: str) -> None:
    """Refuse what a browser would not show.

    Args:
        data: JPEG or PNG file.
        named: the message's ``format``, for the error.

    Raises:
        PictureError: ``format`` (neither JPEG nor PNG), ``size`` (no sensible width and height in
            its header) or ``data`` (cut short, or too long).
    """
    if not data.startswith((b"\xff\xd8", b"\x89PNG\r\n\x1a\n")):
        raise PictureError(
            "format",
            f"CompressedImage.format '{named[:60]}' is neither JPEG nor PNG: publish one of them",
        )
    if len(data) > MAX_BYTES:
        raise PictureError("data", f"CompressedImage.data: {len(data)} bytes, over {MAX_BYTES}")
    size = picture_size(data)
    if size is None or not all(1 <= side <= MAX_SIDE for side in size):
        found = "none" if size is None else f"{size[0]}x{size[1]}"
        raise PictureError("size", f"CompressedImage.data: size {found}, not 1 .. {MAX_SIDE}")
    end = b"IEND" if data.startswith(b"\x89") else b"\xff\xd9"
    if end not in data[-_TAIL:]:
        raise PictureError("data", "CompressedImage.data: the picture is cut short")
