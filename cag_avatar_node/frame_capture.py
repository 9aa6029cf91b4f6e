"""Frames of a video file or a camera, through OpenCV."""

from __future__ import annotations

import math
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from cag_avatar.errors import InputError

__all__ = ["CameraCapture", "FileCapture", "shrink"]


def shrink(image: NDArray[np.uint8], longest_side: int) -> NDArray[np.uint8]:
    """Scale [H, W, 3] down so that its longer side is at most ``longest_side``; 0: leave it."""
    height, width = image.shape[:2]
    if longest_side < 1 or max(height, width) <= longest_side:
        return image
    scale = longest_side / max(height, width)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    return np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.uint8)


class FileCapture:
    """Frames of a video file, in order.

    Args:
        path: the file.

    Raises:
        InputError: the file is missing or OpenCV cannot decode it.
    """

    def __init__(self, path: Path) -> None:
        if not path.is_file():
            raise InputError(f"video {path} does not exist: give the path of a video file")
        self.path = path
        self._capture = cv2.VideoCapture(str(path))
        if not self._capture.isOpened() or not self._capture.grab():
            self._capture.release()
            raise InputError(
                f"video {path} cannot be decoded: give a video file (MP4, WebM, MKV, AVI)"
            )
        fps = float(self._capture.get(cv2.CAP_PROP_FPS))
        if not math.isfinite(fps) or not 0 < fps <= 1000:
            self._capture.release()
            raise InputError(f"video {path} has no usable frame rate ({fps}): re-encode it")
        #: Frames a second.
        self.fps = fps
        self._grabbed = True

    def read(self) -> NDArray[np.uint8] | None:
        """The next frame, BGR uint8 [H, W, 3], or None at the end of the file."""
        if not self._grabbed and not self._capture.grab():
            return None
        self._grabbed = False
        decoded, frame = self._capture.retrieve()
        return np.asarray(frame, np.uint8) if decoded else None

    def skip(self) -> bool:
        """Pass over a frame without converting it; False at the end of the file."""
        if self._grabbed:
            self._grabbed = False
            return True
        return bool(self._capture.grab())

    def rewind(self) -> None:
        """Start again at the first frame. Raises InputError when the file went away."""
        self._capture.release()
        again = FileCapture(self.path)
        self._capture, self._grabbed = again._capture, True

    def close(self) -> None:
        """Release the file."""
        self._capture.release()


class CameraCapture:
    """Frames of a camera.

    Args:
        device: index ("0") or device path ("/dev/video0").

    Raises:
        InputError: the camera cannot be opened.
    """

    def __init__(self, device: str) -> None:
        self._capture = cv2.VideoCapture(int(device) if device.isdigit() else device)
        if not self._capture.isOpened():
            self._capture.release()
            raise InputError(
                f"camera {device} cannot be opened: check the index or device path, that no other "
                "program uses it, and your permission to read it"
            )
        # Frames that wait in the driver's queue are latency.
        self._capture.set(cv2.CAP_PROP_BUFFERSIZE, 1)

    def grab(self) -> bool:
        """Wait for the next frame; False when the camera gives none."""
        return bool(self._capture.grab())

    def retrieve(self) -> NDArray[np.uint8] | None:
        """Decode the frame that :meth:`grab` took: BGR uint8 [H, W, 3], or None."""
        decoded, frame = self._capture.retrieve()
        return np.asarray(frame, np.uint8) if decoded else None

    def close(self) -> None:
        """Release the camera."""
        self._capture.release()
