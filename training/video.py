"""Reading a video file, with errors that say what is wrong with it."""

from __future__ import annotations

from collections.abc import Iterator
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
    with _opened(info.path) as capture:
        index = 0
        while True:
            found, image = capture.read()
            if not found:
                return
            if image.shape[:2] != (info.height, info.width):
                raise InputError(
                    f"{info.path}: frame {index} is {image.shape[1]} x {image.shape[0]}, the first "
                    f"was {info.width} x {info.height}; re-encode the video at one size"
                )
            yield cv2.cvtColor(image, cv2.COLOR_BGR2RGB)  # type: ignore[misc]
            index += 1
