"""Decoding of image messages, against pictures made by hand and conversions written here."""

from __future__ import annotations

import array
from dataclasses import dataclass

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from cag_avatar_node.image_conversion import (
    ENCODINGS,
    ImageFormatError,
    compressed_to_rgb,
    image_to_rgb,
)


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


def bt601(luma: NDArray[np.uint8], u: NDArray[np.uint8], v: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """ITU-R BT.601, limited range, in floating point; all [H, W]."""
    y, cb, cr = (np.asarray(x, np.float64) for x in (luma, u, v))
    y, cb, cr = np.maximum(y - 16, 0) * 255 / 219, (cb - 128) * 255 / 224, (cr - 128) * 255 / 224
    rgb = np.stack([y + 1.402 * cr, y - 0.344136 * cb - 0.714136 * cr, y + 1.772 * cb], -1)
    return np.clip(np.round(rgb), 0, 255).astype(np.uint8)


def assert_near(found: NDArray[np.uint8], expected: NDArray[np.uint8], tolerance: int = 2) -> None:
    assert found.shape == expected.shape
    assert found.dtype == np.uint8
    assert found.flags.c_contiguous
    assert np.abs(found.astype(int) - expected.astype(int)).max() <= tolerance


@pytest.mark.parametrize("encoding", ["yuv422", "uyvy", "yuv422_yuy2", "yuyv"])
def test_packed_yuv(encoding: str) -> None:
    yuv = np.random.default_rng(1).integers(0, 256, (20, 30, 2), dtype=np.uint8)
    chroma, luma = (yuv[..., 0], yuv[..., 1])
    if "yuy" in encoding:
        luma, chroma = chroma, luma
    u, v = (np.repeat(chroma[:, first::2], 2, 1) for first in (0, 1))
    assert_near(image_to_rgb(make_image(yuv, encoding, padding=4)), bt601(luma, u, v))


@pytest.mark.parametrize("encoding", ["nv12", "nv21"])
def test_planar_yuv_counts_only_the_luma_rows(encoding: str) -> None:
    planes = np.random.default_rng(2).integers(0, 256, (18, 16), dtype=np.uint8)
    message = make_image(planes, encoding, padding=3)
    message.height = 12
    chroma = planes[12:].reshape(6, 8, 2).repeat(2, 0).repeat(2, 1)
    first, second = chroma[..., 0], chroma[..., 1]
    u, v = (first, second) if encoding == "nv12" else (second, first)
    assert_near(image_to_rgb(message), bt601(planes[:12], u, v))
    message.height = 18  # as if the chroma rows were rows of the picture
    with pytest.raises(ImageFormatError, match="x 27 rows"):
        image_to_rgb(message)


@pytest.mark.parametrize("big_endian", [0, 1])
def test_16_bits_keep_the_upper_8(big_endian: int) -> None:
    grey = np.random.default_rng(3).integers(0, 2**16, (6, 8), dtype=np.uint16)
    samples = grey.astype(">u2" if big_endian else "<u2").view(np.uint8)
    message = make_image(samples, "mono16", padding=5)
    message.width, message.is_bigendian = 8, big_endian
    expected = np.repeat((grey // 256).astype(np.uint8)[..., None], 3, -1)
    np.testing.assert_array_equal(image_to_rgb(message), expected)


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("pattern", ["rggb", "bggr", "gbrg", "grbg"])
def test_bayer_patterns(pattern: str, bits: int) -> None:
    # A plane of colour is what bilinear interpolation gets right, except at the border.
    y, x = np.mgrid[0:12, 0:16]
    rgb = np.stack([40 + 4 * x, 90 + 3 * y, 200 - 5 * x - 2 * y], -1)
    mosaic = np.empty((12, 16), np.uint16)
    for place, color in enumerate(pattern):
        rows, columns = slice(place // 2, None, 2), slice(place % 2, None, 2)
        mosaic[rows, columns] = rgb[rows, columns, "rgb".index(color)]
    samples = mosaic.astype(np.uint8)
    if bits == 16:
        samples = (mosaic * 256 + 77).astype("<u2").view(np.uint8)
    message = make_image(samples, f"bayer_{pattern}{bits}", padding=6)
    message.width = 16
    decoded = image_to_rgb(message)
    assert_near(decoded[2:-2, 2:-2].copy(), rgb[2:-2, 2:-2].astype(np.uint8))


@dataclass
class FakeCompressed:
    """The fields of sensor_msgs/CompressedImage."""

    format: str
    data: array.array[int]


def compress(rgb: NDArray[np.uint8], suffix: str, *options: int) -> FakeCompressed:
    encoded, data = cv2.imencode(suffix, rgb[..., ::-1], list(options))
    assert encoded
    return FakeCompressed(f"rgb8; {suffix[1:]} compressed bgr8", array.array("B", data.tobytes()))


def test_compressed_pictures(rgb: NDArray[np.uint8]) -> None:
    np.testing.assert_array_equal(compressed_to_rgb(compress(rgb, ".png")), rgb)
    smooth = np.zeros((40, 56, 3), np.uint8)
    smooth[..., 0], smooth[..., 2] = 200, np.arange(56)
    for progressive in (0, 1):
        jpeg = compress(smooth, ".jpg", cv2.IMWRITE_JPEG_PROGRESSIVE, progressive)
        assert_near(compressed_to_rgb(jpeg), smooth, tolerance=12)


def test_pictures_that_cannot_be_decoded_are_named(rgb: NDArray[np.uint8]) -> None:
    for data in (b"", b"\xff\xd8", b"\xff\xd8\xff\xe0\x00\x00" * 9, b"GIF89a" + bytes(99)):
        with pytest.raises(ImageFormatError, match="neither a JPEG nor a PNG") as caught:
            compressed_to_rgb(FakeCompressed("16UC1; compressedDepth", array.array("B", data)))
        assert caught.value.fault == "format"

    huge = compress(rgb, ".png")
    huge.data[16:24] = array.array("B", b"\x00\x01\x00\x00\x00\x01\x00\x00")
    with pytest.raises(ImageFormatError, match="65536 x 65536") as caught:
        compressed_to_rgb(huge)
    assert caught.value.fault == "size"

    cut = compress(rgb, ".png")
    cut.data = cut.data[:40]
    with pytest.raises(ImageFormatError, match=r"CompressedImage\.data") as caught:
        compressed_to_rgb(cut)
    assert caught.value.fault == "data"


def test_result_does_not_share_memory_with_the_message(rgb: NDArray[np.uint8]) -> None:
    message = make_image(rgb, "rgb8")
    decoded = image_to_rgb(message)
    message.data[0] ^= 0xFF
    np.testing.assert_array_equal(decoded, rgb)


def test_unknown_encoding_names_the_known_ones(rgb: NDArray[np.uint8]) -> None:
    with pytest.raises(ImageFormatError, match="'32FC1' is not supported") as caught:
        image_to_rgb(make_image(rgb, "32FC1"))
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
    with pytest.raises(ImageFormatError, match=r"144 bytes, but step 32 x 6 rows = 192"):
        image_to_rgb(longer)

    empty = FakeImage(0, 8, "rgb8", 24, array.array("B"))
    with pytest.raises(ImageFormatError, match="must be at least 1"):
        image_to_rgb(empty)

    odd = make_image(np.zeros((2, 3, 2), np.uint8), "uyvy")
    with pytest.raises(ImageFormatError, match="even width"):
        image_to_rgb(odd)
    for encoding, match in (("nv12", "even height"), ("bayer_rggb8", "at least 3 x 3")):
        flat = make_image(np.zeros((1, 4), np.uint8), encoding)
        with pytest.raises(ImageFormatError, match=match):
            image_to_rgb(flat)
