"""sensor_msgs/Image to and from RGB arrays, in numpy, without cv_bridge."""

from __future__ import annotations

import array
from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from cag_avatar.errors import InputError

__all__ = ["ENCODINGS", "ImageFormatError", "RawImage", "image_to_rgb"]

#: Bytes a pixel of the encodings understood. ``yuv422`` and ``yuv422_yuy2`` are the older names of
#: ``uyvy`` and ``yuyv`` in sensor_msgs/image_encodings.hpp.
ENCODINGS: dict[str, int] = {
    "rgb8": 3,
    "bgr8": 3,
    "rgba8": 4,
    "bgra8": 4,
    "mono8": 1,
    "yuv422": 2,
    "uyvy": 2,
    "yuv422_yuy2": 2,
    "yuyv": 2,
}


class RawImage(Protocol):
    """The fields of sensor_msgs/Image that are read here."""

    height: int
    width: int
    encoding: str
    step: int
    data: array.array[int] | bytes | Sequence[int]


class ImageFormatError(InputError):
    """An Image message that cannot be decoded; ``fault`` is the field at fault."""

    def __init__(self, fault: str, message: str) -> None:
        super().__init__(message)
        self.fault = fault


def image_to_rgb(image: RawImage) -> NDArray[np.uint8]:
    """Decode an Image message.

    Args:
        image: the message; rows may be padded (``step`` larger than the pixels need). Alpha is
            dropped; YUV 4:2:2 is taken as ITU-R BT.601 with the limited range, as cv_bridge does.

    Returns:
        uint8 [H, W, 3], RGB, contiguous, its own memory.

    Raises:
        ImageFormatError: unknown encoding, a step shorter than a row, data that is not
            step x height bytes, or no pixels.
    """
    bytes_a_pixel = ENCODINGS.get(image.encoding)
    if bytes_a_pixel is None:
        raise ImageFormatError(
            "encoding",
            f"Image.encoding '{image.encoding}' is not supported: publish one of "
            f"{', '.join(ENCODINGS)}",
        )
    height, width, step = image.height, image.width, image.step
    if height < 1 or width < 1:
        raise ImageFormatError(
            "size", f"Image is {width} x {height}: width and height must be at least 1"
        )
    if image.encoding.startswith(("yuv", "uyvy")) and width % 2:
        raise ImageFormatError(
            "size", f"Image.width {width} is odd: {image.encoding} needs an even width"
        )
    row = width * bytes_a_pixel
    if step < row:
        raise ImageFormatError(
            "step",
            f"Image.step {step} is too short for {width} pixels of {image.encoding}: "
            f"set it to the bytes of a row, at least {row}",
        )
    if len(image.data) != step * height:
        raise ImageFormatError(
            "data",
            f"Image.data has {len(image.data)} bytes, but step {step} x height {height} = "
            f"{step * height}: set step to the true bytes of a row",
        )
    data = image.data
    if not isinstance(data, (array.array, bytes, bytearray, memoryview, np.ndarray)):
        data = bytes(data)
    rows = np.frombuffer(data, dtype=np.uint8).reshape(height, step)[:, :row]
    if bytes_a_pixel == 2:
        return _yuv422_to_rgb(rows.reshape(height, width // 2, 4), image.encoding)
    pixels = rows.reshape(height, width, bytes_a_pixel)
    rgb = np.empty((height, width, 3), np.uint8)
    if image.encoding == "mono8":
        rgb[:] = pixels
    elif image.encoding in ("rgb8", "rgba8"):
        rgb[:] = pixels[..., :3]
    else:
        # Channel by channel: several times faster than one copy with a negative stride.
        for channel in range(3):
            rgb[..., channel] = pixels[..., 2 - channel]
    return rgb


def _yuv422_to_rgb(groups: NDArray[np.uint8], encoding: str) -> NDArray[np.uint8]:
    """Groups of two pixels, uint8 [H, W / 2, 4], to RGB uint8 [H, W, 3]."""
    luma_first = encoding in ("yuv422_yuy2", "yuyv")
    first, second, u, v = (0, 2, 1, 3) if luma_first else (1, 3, 0, 2)
    height, pairs = groups.shape[:2]
    luma = np.stack([groups[..., first], groups[..., second]], -1).astype(np.int32)
    luma = np.maximum(luma - 16, 0) * 298
    du = groups[..., u].astype(np.int32)[..., None] - 128
    dv = groups[..., v].astype(np.int32)[..., None] - 128
    # 298 / 256 = 255 / 219; the other factors are BT.601's, times 256 and 255 / 224.
    rgb = np.stack(
        [luma + 409 * dv, luma - 100 * du - 208 * dv, luma + 516 * du],
        -1,
    )
    rgb = np.clip((rgb + 128) >> 8, 0, 255).astype(np.uint8)
    return rgb.reshape(height, pairs * 2, 3)
