"""Decoding of Image messages, against pictures made by hand and by OpenCV."""

from __future__ import annotations

import array
from dataclasses import dataclass

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from cag_avatar_node.image_conversion import ENCODINGS, ImageFormatError, image_to_rgb


@dataclass
class FakeImage:
    """The fields of sensor_msgs/Image."""

    height: int
    width: int
    encoding: str
    step: int
    data: array.array[int]
    is_bigendian: int = 0


def make_image(pixels: NDArray[np.uint8], encoding: str, padding: int = 0) -> FakeImage:
    """A message of [H, W, C] whose rows end in ``padding`` bytes of rubbish."""
    height, width = pixels.shape[:2]
    rows = pixels.reshape(height, -1)
    rubbish = np.full((height, padding), 0xAB, np.uint8)
    data = array.array("B", np.concatenate([rows, rubbish], 1).tobytes())
    return FakeImage(height, width, encoding, rows.shape[1] + padding, data)


@pytest.fixture
def rgb() -> NDArray[np.uint8]:
    """Every pixel and channel differs."""
    return np.random.default_rng(0).integers(0, 256, (6, 8, 3), dtype=np.uint8)


@pytest.mark.parametrize("padding", [0, 5])
def test_byte_encodings(rgb: NDArray[np.uint8], padding: int) -> None:
    alpha = np.full((6, 8, 1), 7, np.uint8)
    bgr = rgb[..., ::-1]
    messages = {
        "rgb8": rgb,
        "bgr8": bgr,
        "rgba8": np.concatenate([rgb, alpha], -1),
        "bgra8": np.concatenate([bgr, alpha], -1),
    }
    for encoding, pixels in messages.items():
        decoded = image_to_rgb(make_image(np.ascontiguousarray(pixels), encoding, padding))
        np.testing.assert_array_equal(decoded, rgb, encoding)
        assert decoded.flags.c_contiguous
        assert decoded.dtype == np.uint8


def test_grey_is_repeated(rgb: NDArray[np.uint8]) -> None:
    decoded = image_to_rgb(make_image(rgb[..., :1].copy(), "mono8", padding=3))
    np.testing.assert_array_equal(decoded, np.repeat(rgb[..., :1], 3, -1))


@pytest.mark.parametrize(
    ("encoding", "opencv_code"),
    [
        ("yuv422", cv2.COLOR_YUV2RGB_UYVY),
        ("uyvy", cv2.COLOR_YUV2RGB_UYVY),
        ("yuv422_yuy2", cv2.COLOR_YUV2RGB_YUY2),
        ("yuyv", cv2.COLOR_YUV2RGB_YUY2),
    ],
)
def test_yuv_equals_opencv(encoding: str, opencv_code: int) -> None:
    yuv = np.random.default_rng(1).integers(0, 256, (20, 30, 2), dtype=np.uint8)
    decoded = image_to_rgb(make_image(yuv, encoding, padding=4))
    expected = cv2.cvtColor(yuv, opencv_code)
    assert np.abs(decoded.astype(int) - expected.astype(int)).max() <= 1


def test_result_does_not_share_memory_with_the_message(rgb: NDArray[np.uint8]) -> None:
    message = make_image(rgb, "rgb8")
    decoded = image_to_rgb(message)
    message.data[0] ^= 0xFF
    np.testing.assert_array_equal(decoded, rgb)


def test_unknown_encoding_names_the_known_ones(rgb: NDArray[np.uint8]) -> None:
    with pytest.raises(ImageFormatError, match="'bayer_rggb8' is not supported") as caught:
        image_to_rgb(make_image(rgb, "bayer_rggb8"))
    assert caught.value.fault == "encoding"
    assert all(encoding in str(caught.value) for encoding in ENCODINGS)


def test_bad_step_and_size(rgb: NDArray[np.uint8]) -> None:
    short = make_image(rgb, "rgb8")
    short.step = 23
    with pytest.raises(ImageFormatError, match=r"step 23 .* at least 24") as caught:
        image_to_rgb(short)
    assert caught.value.fault == "step"

    longer = make_image(rgb, "rgb8")
    longer.step = 32
    with pytest.raises(ImageFormatError, match=r"144 bytes, but step 32 x height 6 = 192"):
        image_to_rgb(longer)

    empty = FakeImage(0, 8, "rgb8", 24, array.array("B"))
    with pytest.raises(ImageFormatError, match="must be at least 1"):
        image_to_rgb(empty)

    odd = make_image(np.zeros((2, 3, 2), np.uint8), "uyvy")
    with pytest.raises(ImageFormatError, match="even width"):
        image_to_rgb(odd)
