"""Cameras of this Linux machine and their pixel formats, asked of the kernel (Video4Linux 2)."""

from __future__ import annotations

import errno
import os
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

__all__ = ["CameraDevice", "list_cameras"]

# Request numbers and structures of linux/videodev2.h.
_QUERYCAP, _CAPABILITY = 0x80685600, struct.Struct("16s32s32s6I")
_ENUM_FMT, _FMTDESC = 0xC0405602, struct.Struct("3I32s5I")
_DEVICE_CAPS = 0x80000000
#: Capability of a device that captures, and the buffer type whose formats are asked for.
_CAPTURES = {0x1: 1, 0x1000: 9}  # single plane, several planes

Ioctl = Callable[[int, int, bytearray], object]


@dataclass(frozen=True)
class CameraDevice:
    """One video device."""

    path: str
    """Such as /dev/video0."""
    name: str = ""
    """Of the camera, by its driver."""
    formats: tuple[str, ...] = ()
    """Pixel formats by their four letters (YUYV, MJPG ...); empty: it captures nothing."""
    error: str = ""
    """Why it could not be asked; empty: it was."""
    denied: bool = False
    """Whether that is for lack of permission."""


def list_cameras(folder: Path = Path("/dev"), ioctl: Ioctl | None = None) -> list[CameraDevice]:
    """Video devices of a folder, in the order of their numbers; metadata devices are left out.

    Args:
        folder: where the devices lie.
        ioctl: stands for ``fcntl.ioctl``: fills the buffer, raises OSError.
    """
    if ioctl is None:
        import fcntl  # not on every platform

        ioctl = fcntl.ioctl
    paths = [p for p in folder.glob("video*") if p.name[5:].isdigit()]
    devices = [_ask(str(p), ioctl) for p in sorted(paths, key=lambda p: int(p.name[5:]))]
    return [device for device in devices if device.formats or device.error]


def _ask(path: str, ioctl: Ioctl) -> CameraDevice:
    try:
        handle = os.open(path, os.O_RDWR | os.O_NONBLOCK)
    except OSError as error:
        denied = error.errno in (errno.EACCES, errno.EPERM)
        return CameraDevice(path, error=error.strerror or str(error), denied=denied)
    try:
        buffer = bytearray(_CAPABILITY.size)
        ioctl(handle, _QUERYCAP, buffer)
        _, card, _, _, capabilities, device_caps, *_ = _CAPABILITY.unpack(buffer)
        usable = device_caps if capabilities & _DEVICE_CAPS else capabilities
        name = card.split(b"\0")[0].decode(errors="replace")
        formats: list[str] = []
        for flag, kind in _CAPTURES.items():
            if usable & flag:
                formats += _formats(handle, kind, ioctl)
        return CameraDevice(path, name, tuple(dict.fromkeys(formats)))
    except OSError as error:
        return CameraDevice(path, error=error.strerror or str(error))
    finally:
        os.close(handle)


def _formats(handle: int, kind: int, ioctl: Ioctl) -> list[str]:
    found: list[str] = []
    while len(found) < 64:
        buffer = bytearray(_FMTDESC.pack(len(found), kind, 0, b"", 0, 0, 0, 0, 0))
        try:
            ioctl(handle, _ENUM_FMT, buffer)
        except OSError:  # EINVAL: there are no more
            break
        code = _FMTDESC.unpack(buffer)[4]
        letters = struct.pack("<I", code & 0x7FFFFFFF)  # the top bit: big endian
        found.append(letters.decode("ascii", errors="replace").strip())
    return found
