"""Video devices, with a stand-in for the kernel."""

from __future__ import annotations

import os
import struct
from pathlib import Path

import pytest

from cag_avatar_node.camera_devices import list_cameras

CAPTURE, METADATA, PLANES = 0x1, 0x800000, 0x1000


class FakeKernel:
    """Answers VIDIOC_QUERYCAP and VIDIOC_ENUM_FMT by the file's content."""

    def __init__(self, formats: dict[str, tuple[int, list[str]]]) -> None:
        self._formats = formats

    def __call__(self, handle: int, request: int, buffer: bytearray) -> int:
        device_caps, formats = self._formats[os.read(handle, 99).decode()]
        os.lseek(handle, 0, os.SEEK_SET)
        if request == 0x80685600:
            assert len(buffer) == 104
            struct.pack_into("16s32s32s3I", buffer, 0, b"uvc", b"My camera", b"usb", 1,
                             0x80000000 | CAPTURE | METADATA, device_caps)  # fmt: skip
            return 0
        assert request == 0xC0405602
        assert len(buffer) == 64
        index, kind = struct.unpack_from("2I", buffer)
        assert kind == (9 if device_caps & PLANES else 1)
        if index >= len(formats):
            raise OSError(22, "Invalid argument")
        struct.pack_into("4s", buffer, 44, formats[index].encode())
        return 0


def test_cameras_and_their_formats_in_order(tmp_path: Path) -> None:
    for name, kind in (("video10", "b"), ("video2", "a"), ("video3", "meta"), ("videox", "a")):
        (tmp_path / name).write_text(kind)
    kernel = FakeKernel(
        {
            "a": (CAPTURE, ["YUYV", "MJPG"]),
            "b": (PLANES, ["NV12"]),
            "meta": (METADATA, ["UVCH"]),
        }
    )
    found = list_cameras(tmp_path, kernel)
    assert [(Path(c.path).name, c.name, c.formats) for c in found] == [
        ("video2", "My camera", ("YUYV", "MJPG")),
        ("video10", "My camera", ("NV12",)),
    ]


def test_what_cannot_be_opened_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "video0").write_text("a")

    def refuse(*_: object) -> int:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "open", refuse)
    (camera,) = list_cameras(tmp_path, FakeKernel({}))
    assert camera.denied
    assert camera.error == "Permission denied"


def test_what_is_no_camera_is_said(tmp_path: Path) -> None:
    (tmp_path / "video0").write_text("a")
    (camera,) = list_cameras(tmp_path)  # the real kernel, and a plain file
    assert camera.error
    assert not camera.denied
    assert list_cameras(tmp_path / "none") == []
