"""Reading a video file, with errors that say what is wrong with it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from cag_avatar.errors import InputError

__all__ = ["VideoInfo", "probe_video", "read_frames"]

_DEFAULT_FPS = 30.0


@dataclass(frozen=True)
class VideoInfo:
    """What the container says of a video."""

    path: Path
    width: int
    """Pixels."""
    height: int
    """Pixels."""
    fps: float
    """Frames per second."""
    frames: int
    """Number of frames, as announced: the file may hold fewer."""


@contextmanager
def _opened(path: Path) -> Iterator[cv2.VideoCapture]:
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    capture = cv2.VideoCapture(str(path))
    try:
        if not capture.isOpened():
            raise InputError(f"{path}: not a video that OpenCV can read; convert it to H.264 MP4")
        yield capture
    finally:
        capture.release()


def probe_video(path: Path | str) -> VideoInfo:
    """Size, rate and length of a video. Raises InputError if it is not a video with pictures."""
    path = Path(path)
    with _opened(path) as capture:
        found, image = capture.read()
        if not found:
            raise InputError(f"{path}: holds no pictures; give a video with a face in it")
        fps = capture.get(cv2.CAP_PROP_FPS)
        frames = int(capture.get(cv2.CAP_PROP_FRAME_COUNT))
        height, width = image.shape[:2]
    usable = np.isfinite(fps) and 1.0 <= fps <= 1000.0
    return VideoInfo(path, width, height, float(fps) if usable else _DEFAULT_FPS, max(frames, 0))


def read_frames(info: VideoInfo) -> Iterator[NDArray[np.uint8]]:
    """Frames in order, RGB [H, W, 3] uint8.

    Raises:
        InputError: the frame size changes within the file.
    """
    _check_coded_sizes(info)
    with _opened(info.path) as capture:
        index = 0
        while True:
            found, image = capture.read()
            if not found:
                return
            if image.shape[:2] != (info.height, info.width):
                raise _size_changed(info.path, index, image.shape[1::-1], (info.width, info.height))
            yield cv2.cvtColor(image, cv2.COLOR_BGR2RGB)  # type: ignore[misc]
            index += 1


def _size_changed(
    path: Path, index: int, size: tuple[int, ...], first: tuple[int, ...]
) -> InputError:
    return InputError(
        f"{path}: frame {index} is {size[0]} x {size[1]}, the first was {first[0]} x {first[1]}; "
        "re-encode the video at one size"
    )


def _check_coded_sizes(info: VideoInfo) -> None:
    """Raise InputError where a coded frame has another size than the first.

    OpenCV stretches every frame to the first one's size without a word, so a change is looked for
    in the coded frames, of the codecs that write the size into them: Motion JPEG and VP8.
    """
    raw = [cv2.CAP_PROP_FORMAT, -1]  # packets as they are in the file
    capture = cv2.VideoCapture(str(info.path), cv2.CAP_FFMPEG, raw)
    try:
        code = int(capture.get(cv2.CAP_PROP_FOURCC)) if capture.isOpened() else 0
        size_of = _SIZE_OF.get(code)
        first, index = None, 0
        while size_of is not None:
            found, packet = capture.read()
            if not found:
                return
            size = size_of(packet.tobytes())
            first = first or size
            if size is not None and size != first:
                assert first is not None
                raise _size_changed(info.path, index, size, first)
            index += 1
    finally:
        capture.release()


def _jpeg_size(data: bytes) -> tuple[int, int] | None:
    """Width and height in the start-of-frame segment (ITU T.81, B.2.2)."""
    at = 2
    while at + 9 <= len(data) and data[at] == 0xFF:
        marker = data[at + 1]
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            height, width = data[at + 5 : at + 7], data[at + 7 : at + 9]
            return int.from_bytes(width, "big"), int.from_bytes(height, "big")
        at += 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    return None


def _vp8_size(data: bytes) -> tuple[int, int] | None:
    """Width and height in a key frame's header (RFC 6386, 9.1); other frames have none."""
    if len(data) < 10 or data[0] & 1 or data[3:6] != b"\x9d\x01\x2a":
        return None
    width, height = (int.from_bytes(data[k : k + 2], "little") & 0x3FFF for k in (6, 8))
    return width, height


_SIZE_OF: dict[int, Callable[[bytes], tuple[int, int] | None]] = {
    cv2.VideoWriter.fourcc(*"MJPG"): _jpeg_size,
    cv2.VideoWriter.fourcc(*"VP80"): _vp8_size,
}
