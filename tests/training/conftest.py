"""A short synthetic clip, and bad videos made from it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import pytest
from cag_avatar_training.synthetic import SynthesisConfig, synthesize
from numpy.typing import NDArray


def write_video(path: Path, frames: Sequence[NDArray[np.uint8]], fps: float = 25.0) -> Path:
    """Write RGB frames [H, W, 3] as MPEG-4."""
    height, width = frames[0].shape[:2]
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), fps, (width, height))
    assert writer.isOpened()
    for frame in frames:
        writer.write(cv2.cvtColor(frame, cv2.COLOR_RGB2BGR))
    writer.release()
    return path


def write_motion_jpeg(path: Path, frames: Sequence[NDArray[np.uint8]]) -> Path:
    """Write RGB frames, of any sizes, as JPEGs one after the other."""
    pictures = [cv2.imencode(".jpg", cv2.cvtColor(f, cv2.COLOR_RGB2BGR))[1] for f in frames]
    path.write_bytes(b"".join(p.tobytes() for p in pictures))
    return path


@pytest.fixture(scope="session")
def face_video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A face that talks for 2.4 s, 256 x 256; its truth lies beside it."""
    path = tmp_path_factory.mktemp("face") / "face.mp4"
    synthesize(
        SynthesisConfig(out=path, seed=1, seconds=2.4, size=256, supersample=1, texture_size=512)
    )
    return path
