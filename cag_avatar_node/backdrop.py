"""What lies behind the avatar, and what is shown instead of it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from cag_avatar.errors import InputError

__all__ = ["check_color", "compose", "load_backdrop", "plain"]


def check_color(values: Sequence[int], parameter: str) -> tuple[int, int, int]:
    """Red, green and blue. Raises InputError naming the parameter."""
    color = tuple(int(channel) for channel in values)
    if len(color) != 3 or not all(0 <= channel <= 255 for channel in color):
        raise InputError(f"parameter {parameter} {color}: give 3 numbers from 0 to 255")
    return color[0], color[1], color[2]


def plain(color: tuple[int, int, int], size: int) -> NDArray[np.uint8]:
    """A picture of one colour, RGB uint8 [size, size, 3]."""
    return np.full((size, size, 3), color, np.uint8)


def load_backdrop(path: str, size: int, parameter: str) -> NDArray[np.uint8]:
    """An image file scaled to cover a square and cut to it, RGB uint8 [size, size, 3].

    Raises:
        InputError: naming the parameter: no such file, or not an image.
    """
    file = Path(path).expanduser()
    if not file.is_file():
        raise InputError(f"parameter {parameter}: {file} does not exist: give an image file")
    found = cv2.imread(str(file), cv2.IMREAD_COLOR)
    if found is None:
        raise InputError(f"parameter {parameter}: {file} is not an image that OpenCV reads")
    height, width = found.shape[:2]
    scale = size / min(height, width)
    wide, high = max(size, round(width * scale)), max(size, round(height * scale))
    method = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    scaled = cv2.resize(found, (wide, high), interpolation=method)
    top, left = (high - size) // 2, (wide - size) // 2
    return np.ascontiguousarray(scaled[top : top + size, left : left + size, ::-1])


def compose(rgba: NDArray[np.uint8], backdrop: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """RGBA [H, W, 4] (straight alpha) before RGB [H, W, 3]: RGB uint8 [H, W, 3]."""
    alpha = rgba[..., 3].astype(np.float32) * np.float32(1 / 255)
    front = np.ascontiguousarray(rgba[..., :3])
    return np.asarray(cv2.blendLinear(front, backdrop, alpha, 1 - alpha), np.uint8)
