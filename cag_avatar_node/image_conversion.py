"""sensor_msgs/Image and CompressedImage to RGB arrays, through OpenCV, without cv_bridge."""

from __future__ import annotations

import array
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray

from cag_avatar.errors import InputError
from cag_avatar_node.picture_header import picture_size

__all__ = [
    "ENCODINGS",
    "ImageFormatError",
    "RawCompressedImage",
    "RawImage",
    "compressed_to_rgb",
    "image_to_rgb",
    "silence_decoder",
]

_Data: TypeAlias = "array.array[int] | bytes | Sequence[int]"
_Pixels: TypeAlias = NDArray[np.uint8]

#: A compressed picture of more pixels is refused before it is decoded: a kilobyte may claim to hold
#: gigabytes.
MAX_PIXELS = 64_000_000


@dataclass(frozen=True)
class _Encoding:
    """How an encoding of sensor_msgs/image_encodings.hpp lies in memory."""

    channels: int
    """Samples a pixel in a row of ``data``."""
    convert: Callable[[_Pixels], _Pixels]
    """Samples uint8 [rows, W, channels] (or [rows, W]) to RGB [H, W, 3] in memory of its own."""
    bytes_a_sample: int = 1
    even_width: bool = False
    planes: bool = False
    """4:2:0 in planes: H rows of luma, then H / 2 of chroma; ``height`` counts the luma alone."""


def _by_opencv(code: int) -> Callable[[_Pixels], _Pixels]:
    def convert(pixels: _Pixels) -> _Pixels:
        return np.asarray(cv2.cvtColor(pixels, code), np.uint8)

    return convert


_BAYER = {
    "rggb": cv2.COLOR_BayerRGGB2RGB,
    "bggr": cv2.COLOR_BayerBGGR2RGB,
    "gbrg": cv2.COLOR_BayerGBRG2RGB,
    "grbg": cv2.COLOR_BayerGRBG2RGB,
}
_UYVY = _Encoding(2, _by_opencv(cv2.COLOR_YUV2RGB_UYVY), even_width=True)
_YUYV = _Encoding(2, _by_opencv(cv2.COLOR_YUV2RGB_YUY2), even_width=True)
_GREY = _by_opencv(cv2.COLOR_GRAY2RGB)

#: Encodings understood. ``yuv422`` and ``yuv422_yuy2`` are the older names of ``uyvy`` and
#: ``yuyv``; ``nv12`` is not in image_encodings.hpp but cameras send it.
ENCODINGS: dict[str, _Encoding] = {
    "rgb8": _Encoding(3, np.copy),
    "bgr8": _Encoding(3, _by_opencv(cv2.COLOR_BGR2RGB)),
    "rgba8": _Encoding(4, _by_opencv(cv2.COLOR_RGBA2RGB)),
    "bgra8": _Encoding(4, _by_opencv(cv2.COLOR_BGRA2RGB)),
    "mono8": _Encoding(1, _GREY),
    "mono16": _Encoding(1, _GREY, bytes_a_sample=2),
    "yuv422": _UYVY,
    "uyvy": _UYVY,
    "yuv422_yuy2": _YUYV,
    "yuyv": _YUYV,
    "nv21": _Encoding(1, _by_opencv(cv2.COLOR_YUV2RGB_NV21), even_width=True, planes=True),
    "nv12": _Encoding(1, _by_opencv(cv2.COLOR_YUV2RGB_NV12), even_width=True, planes=True),
    **{f"bayer_{name}8": _Encoding(1, _by_opencv(code)) for name, code in _BAYER.items()},
    **{
        f"bayer_{name}16": _Encoding(1, _by_opencv(code), bytes_a_sample=2)
        for name, code in _BAYER.items()
    },
}


class RawImage(Protocol):
    """The fields of sensor_msgs/Image that are read here."""

    height: int
    width: int
    encoding: str
    is_bigendian: int
    step: int

    @property
    def data(self) -> _Data:
        """All bytes."""


class RawCompressedImage(Protocol):
    """The fields of sensor_msgs/CompressedImage that are read here."""

    format: str
    data: _Data


class ImageFormatError(InputError):
    """An image message that cannot be decoded; ``fault`` is the field at fault."""

    def __init__(self, fault: str, message: str) -> None:
        super().__init__(message)
        self.fault = fault


def image_to_rgb(image: RawImage) -> NDArray[np.uint8]:
    """Decode an Image message.

    Args:
        image: the message; rows may be padded (``step`` larger than the pixels need). Alpha is
            dropped; YUV is taken as ITU-R BT.601 with the limited range, as cv_bridge does; of 16
            bits the upper 8 are kept; Bayer patterns are interpolated bilinearly.

    Returns:
        uint8 [H, W, 3], RGB, contiguous, its own memory.

    Raises:
        ImageFormatError: unknown encoding, a step shorter than a row, data that is not
            step x height bytes (nv12, nv21: step x height x 3 / 2), or no pixels.
    """
    encoding = ENCODINGS.get(image.encoding)
    if encoding is None:
        raise ImageFormatError(
            "encoding",
            f"Image.encoding '{image.encoding}' is not supported: publish one of "
            f"{', '.join(ENCODINGS)}",
        )
    rows = _check_size(image, encoding)
    data = _as_bytes(image.data)
    width, step, size = image.width, image.step, encoding.bytes_a_sample
    if len(data) != step * rows:
        raise ImageFormatError(
            "data",
            f"Image.data has {len(data)} bytes, but step {step} x {rows} rows = {step * rows}: "
            "set step to the true bytes of a row",
        )
    pixels = data.reshape(rows, step)[:, : width * encoding.channels * size]
    if size == 2:  # the more significant byte of each sample
        pixels = np.ascontiguousarray(pixels[:, 0 if image.is_bigendian else 1 :: 2])
    if encoding.channels > 1:
        pixels = pixels.reshape(rows, width, encoding.channels)
    return encoding.convert(pixels)


def _check_size(image: RawImage, encoding: _Encoding) -> int:
    """Rows of ``data``. Raises ImageFormatError for a width, height or step that cannot be."""
    height, width = image.height, image.width
    if height < 1 or width < 1:
        raise ImageFormatError(
            "size", f"Image is {width} x {height}: width and height must be at least 1"
        )
    if encoding.even_width and width % 2:
        raise ImageFormatError(
            "size", f"Image.width {width} is odd: {image.encoding} needs an even width"
        )
    if encoding.planes and height % 2:
        raise ImageFormatError(
            "size", f"Image.height {height} is odd: {image.encoding} needs an even height"
        )
    if image.encoding.startswith("bayer") and min(width, height) < 3:
        raise ImageFormatError(
            "size", f"Image is {width} x {height}: a Bayer pattern needs at least 3 x 3"
        )
    row = width * encoding.channels * encoding.bytes_a_sample
    if image.step < row:
        raise ImageFormatError(
            "step",
            f"Image.step {image.step} is too short for {width} pixels of {image.encoding}: "
            f"set it to the bytes of a row, at least {row}",
        )
    return height * 3 // 2 if encoding.planes else height


#: LOG_LEVEL_ERROR of OpenCV's logger.
_ERRORS_ONLY = 2


def silence_decoder() -> None:
    """Keep OpenCV from writing a line for each broken picture, in the whole process."""
    if hasattr(cv2, "setLogLevel"):  # OpenCV 4.5 to 4.x
        cv2.setLogLevel(_ERRORS_ONLY)
    else:
        cv2.utils.logging.setLogLevel(_ERRORS_ONLY)


def compressed_to_rgb(image: RawCompressedImage) -> NDArray[np.uint8]:
    """Decode a CompressedImage message that holds a JPEG or a PNG.

    Returns:
        uint8 [H, W, 3], RGB, contiguous, its own memory; grey is repeated, alpha dropped.

    Raises:
        ImageFormatError: neither JPEG nor PNG (compressedDepth, ffmpeg packets ...), more than 64
            megapixels, or broken.
    """
    data = _as_bytes(image.data)
    size = picture_size(data.data)
    if size is None:
        raise ImageFormatError(
            "format",
            f"CompressedImage.format '{image.format}', {len(data)} bytes: neither a JPEG nor a PNG "
            "with a whole header; publish one of these",
        )
    width, height = size
    if not 0 < width * height <= MAX_PIXELS:
        raise ImageFormatError(
            "size",
            f"CompressedImage is {width} x {height}: at least 1, at most {MAX_PIXELS} pixels",
        )
    try:
        rgb = cv2.imdecode(data, cv2.IMREAD_COLOR_RGB)
    except cv2.error as error:
        raise ImageFormatError("data", f"CompressedImage.data: {error.err}") from error
    if rgb is None:
        raise ImageFormatError(
            "data", f"CompressedImage.data: OpenCV cannot decode these {len(data)} bytes"
        )
    return np.asarray(rgb, np.uint8)


def _as_bytes(data: _Data) -> _Pixels:
    if not isinstance(data, (array.array, bytes, bytearray, memoryview, np.ndarray)):
        data = bytes(data)
    return np.frombuffer(data, np.uint8)
