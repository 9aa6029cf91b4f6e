"""Video files and cameras."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from cag_avatar.errors import InputError
from cag_avatar_node.frame_capture import CameraCapture, FileCapture, shrink


def test_frames_in_order_and_again_after_rewind(
    numbered_video: Path, frame_number: Callable[[NDArray[np.uint8]], int]
) -> None:
    capture = FileCapture(numbered_video)
    assert capture.fps == pytest.approx(20)
    for _ in range(2):
        numbers = []
        while (frame := capture.read()) is not None:
            assert frame.shape == (48, 64, 3)
            numbers.append(frame_number(frame))
        assert numbers == list(range(20))
        capture.rewind()
    assert capture.skip()
    frame = capture.read()
    assert frame is not None
    assert frame_number(frame) == 1
    capture.close()


def test_bad_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"missing\.mp4 does not exist"):
        FileCapture(tmp_path / "missing.mp4")
    text = tmp_path / "text.mp4"
    text.write_text("not a video")
    with pytest.raises(InputError, match=r"text\.mp4 cannot be decoded"):
        FileCapture(text)


def test_missing_camera_is_named() -> None:
    with pytest.raises(InputError, match="camera /dev/no-such-camera cannot be opened"):
        CameraCapture("/dev/no-such-camera")


def test_shrink_keeps_the_shape_and_never_enlarges() -> None:
    image = np.zeros((100, 200, 3), np.uint8)
    assert shrink(image, 50).shape == (25, 50, 3)
    assert shrink(image, 0) is image
    assert shrink(image, 200) is image
