"""A hand is painted over the mouth of a synthetic clip."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from cag_avatar_training.preprocess.reliability import find_reliability
from cag_avatar_training.preprocess.workspace import Workspace
from cag_avatar_training.video import probe_video, read_frames
from numpy.typing import NDArray

from cag_avatar.tracking.face_landmarker import FaceLandmarker

Clip = tuple[list[NDArray[np.uint8]], NDArray[np.float32]]


@pytest.fixture(scope="module")
def clip(face_video: Path) -> Clip:
    """Images, and landmarks of the uncovered face: the landmarker guesses them well enough."""
    images = list(read_frames(probe_video(face_video)))
    with FaceLandmarker() as landmarker:
        found = [landmarker.detect(image)[0].landmarks for image in images]
    return images, np.stack(found)


def hand(
    image: NDArray[np.uint8], skin: NDArray[np.float64], x: float, y: float, size: float
) -> NDArray[np.uint8]:
    """Four fingers of the face's own skin, with shaded edges, centred at (x, y)."""
    covered = image.copy()
    for k in range(4):
        centre = (round(x + 0.3 * (k - 1.5) * size), round(y + 0.1 * k * size))
        axes = (max(1, round(0.55 * size)), max(1, round(0.17 * size)))
        cv2.ellipse(covered, centre, axes, 75, 0, 360, (0.55 * skin).tolist(), -1)
        inner = (max(1, axes[0] - 2), max(1, axes[1] - 2))
        cv2.ellipse(covered, centre, inner, 75, 0, 360, (1.05 * skin).clip(0, 255).tolist(), -1)
    return covered


def covering(clip: Clip, left: int, right: int, frames: range) -> list[NDArray[np.uint8]]:
    """The clip with a hand over the part between two landmarks in some frames."""
    images, landmarks = clip
    result = list(images)
    for t in frames:
        a, b = landmarks[t, left, :2], landmarks[t, right, :2]
        cheek = landmarks[t, 50, :2].round().astype(int)
        skin = images[t][cheek[1] - 3 : cheek[1] + 3, cheek[0] - 3 : cheek[0] + 3].mean((0, 1))
        size = 1.3 * float(np.linalg.norm(a - b))
        result[t] = hand(images[t], skin, *((a + b) / 2).tolist(), size)
    return result


def measured(tmp_path: Path, images: list[NDArray[np.uint8]], clip: Clip) -> NDArray[np.float32]:
    with Workspace.open(tmp_path / "work") as work:
        stage = work.stage("reliability", ())
        return find_reliability(images.__getitem__, clip[1], stage, lambda done: None)


def test_nothing_is_covered_in_a_face_that_talks(tmp_path: Path, clip: Clip) -> None:
    values = measured(tmp_path, clip[0], clip)
    assert values.shape == (60, 3)
    assert values.dtype == np.float32
    assert values.min() > 0.5


def test_a_hand_over_the_mouth(tmp_path: Path, clip: Clip) -> None:
    values = measured(tmp_path, covering(clip, 61, 291, range(20, 40)), clip)
    assert (values[20:40, 0] < 0.5).all()
    assert (values[:15, 0] > 0.5).all()
    assert (values[45:, 0] > 0.5).all()
    assert (values[:, 1:] > 0.5).all()


@pytest.mark.parametrize(("left", "right", "column"), [(362, 263, 1), (33, 133, 2)])
def test_a_hand_over_one_eye(
    tmp_path: Path, clip: Clip, left: int, right: int, column: int
) -> None:
    values = measured(tmp_path, covering(clip, left, right, range(30, 50)), clip)
    assert (values[30:50, column] < 0.5).mean() > 0.9
    assert (values[:24, column] > 0.5).all()
    assert (values[:, 3 - column] > 0.5).all()
    assert (values[:, 0] > 0.5).all()


def test_two_frames_are_enough_to_be_measured(tmp_path: Path, clip: Clip) -> None:
    few = (clip[0][:2], clip[1][:2])
    assert (measured(tmp_path, few[0], few) > 0.5).all()
