"""What is refused before it reaches a browser."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from cag_avatar_node import shown_picture
from cag_avatar_node.shown_picture import PictureError, check_picture, media_type

JPEG, PNG = (
    cv2.imencode(end, np.full((17, 33, 3), 90, np.uint8))[1].tobytes() for end in (".jpg", ".png")
)


@pytest.mark.parametrize("data", [JPEG, PNG, JPEG + b"\0" * 500])
def test_whole_pictures(data: bytes) -> None:
    check_picture(data, "")
    assert media_type(data) == ("image/png" if data is PNG else "image/jpeg")


@pytest.mark.parametrize(
    ("data", "fault"),
    [
        (b"", "format"),
        (b"rubbish", "format"),
        (b"\x89PNG", "format"),
        (JPEG[:-2], "data"),
        (PNG[:-12], "data"),
        (JPEG[:20], "size"),
        (PNG[:20], "size"),
        (b"\xff\xd8\xff\xd9", "size"),
        (PNG[:16] + b"\xff" * 8 + PNG[24:], "size"),
        (PNG[:16] + b"\0" * 8 + PNG[24:], "size"),
    ],
)
def test_others(data: bytes, fault: str) -> None:
    with pytest.raises(PictureError) as caught:
        check_picture(data, "jpeg")
    assert caught.value.fault == fault


def test_too_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shown_picture, "MAX_BYTES", len(JPEG) - 1)
    with pytest.raises(PictureError, match="bytes"):
        check_picture(JPEG, "jpeg")
