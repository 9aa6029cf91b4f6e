"""Faces that are small, come and go, or are not alone, pasted into larger pictures."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from cag_avatar_training.preprocess import PreprocessConfig, landmarks
from cag_avatar_training.preprocess.faces import FaceFinder, overlap
from cag_avatar_training.preprocess.landmarks import Detections, find_landmarks, frame_ranges
from cag_avatar_training.preprocess.workspace import Workspace
from cag_avatar_training.video import probe_video, read_frames
from numpy.typing import NDArray

from cag_avatar.errors import InputError
from tests.training.conftest import write_video

QUIET = PreprocessConfig(min_seconds=0.2, progress=False)


@pytest.fixture(scope="module")
def faces(face_video: Path) -> list[NDArray[np.uint8]]:
    return list(read_frames(probe_video(face_video)))


def find(tmp_path: Path, frames: list[NDArray[np.uint8]]) -> Detections:
    info = probe_video(write_video(tmp_path / "clip.mp4", frames))
    with Workspace.open(tmp_path / "work") as work:
        return find_landmarks(info, QUIET, work.stage("landmarks", ()), lambda done: None)


def scene(width: int, height: int, *pasted: tuple[NDArray[np.uint8], int, int, int]) -> NDArray:
    """A grey room with pictures of faces: (picture, x, y, side)."""
    room = np.full((height, width, 3), 128, np.uint8)
    for picture, x, y, side in pasted:
        room[y : y + side, x : x + side] = cv2.resize(
            picture, (side, side), interpolation=cv2.INTER_AREA
        )
    return room


def boxes(found: Detections) -> NDArray[np.float32]:
    points = found.landmarks[..., :2]
    return np.concatenate([points.min(1), points.max(1)], 1)


def test_a_small_face_in_a_large_picture_is_found_and_followed(
    tmp_path: Path, faces: list[NDArray[np.uint8]]
) -> None:
    """A face of about 65 pixels in 1080 rows, which moves 300 pixels."""
    side = 110
    frames = [scene(1920, 1080, (f, 1300 + 25 * t, 500, side)) for t, f in enumerate(faces[:12])]
    with FaceFinder() as finder:
        assert not finder.whole(frames[0])  # else the test shows nothing
        alone = [finder.whole(f)[0] for f in faces[:12]]
    found = find(tmp_path, frames)
    assert found.frames.tolist() == list(range(12))
    for t, face in enumerate(alone):
        expected = face.landmarks[:, :2] * (side / 256) + [1300 + 25 * t, 500]
        assert np.linalg.norm(found.landmarks[t, :, :2] - expected, axis=1).mean() < 2.0


def test_exactly_the_frames_with_a_face_are_kept(
    tmp_path: Path, faces: list[NDArray[np.uint8]], caplog: pytest.LogCaptureFixture
) -> None:
    empty = np.full_like(faces[0], 128)
    frames = [empty] * 3 + faces[:14] + [empty] * 7 + faces[20:35] + [empty] * 4
    found = find(tmp_path, frames)
    assert found.without_face() == [(0, 2), (17, 23), (39, 42)]
    assert found.segments() == [(0, 14), (14, 29)]
    np.testing.assert_allclose(found.times, np.arange(43) / 25, atol=1e-6)
    assert "no face in 14 of 43 frames, left out" in caplog.text


def test_of_two_faces_the_larger_is_kept(tmp_path: Path, faces: list[NDArray[np.uint8]]) -> None:
    """The large one, even when for a few frames it is away, or the other one has grown larger."""
    frames = []
    for t in range(24):
        pasted = [(faces[t][:, ::-1], 330, 60, 150 if t < 19 else 250)]
        if t not in (8, 9):
            pasted.append((faces[t], 20, 60, 230))
        frames.append(scene(600, 320, *pasted))
    found = find(tmp_path, frames)
    kept = set(found.frames.tolist())
    assert set(range(24)) - {8, 9} <= kept
    at_left = boxes(found)[:, 2] < 300
    assert at_left[~np.isin(found.frames, (8, 9))].all()


def test_twins_are_refused(tmp_path: Path, faces: list[NDArray[np.uint8]]) -> None:
    frames = [np.hstack([f, f[:, ::-1]]) for f in faces[:12]]
    with pytest.raises(InputError, match=r"two faces of one size in \d+ of \d+ frames"):
        find(tmp_path, frames)


def test_chunks_do_not_show(
    tmp_path: Path, faces: list[NDArray[np.uint8]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Landmarks change by little where a chunk begins, and frames near it are judged alike."""
    empty = np.full_like(faces[0], 128)
    frames = faces[:20] + [empty] * 2 + faces[22:34]
    whole = find(tmp_path, frames)
    monkeypatch.setattr(landmarks, "CHUNK", 11)
    (tmp_path / "again").mkdir()
    parts = find(tmp_path / "again", frames)
    np.testing.assert_array_equal(parts.frames, whole.frames)
    assert np.abs(parts.landmarks - whole.landmarks)[..., :2].mean(1).max() < 0.6


def test_the_video_s_end_is_checked(tmp_path: Path, faces: list[NDArray[np.uint8]]) -> None:
    """A tracker holds on to what looks a little like the face it saw."""
    blurred = [cv2.GaussianBlur(f, (0, 0), 14) for f in faces[10:14]]
    with FaceFinder() as finder:
        box = finder.whole(faces[9])[0].box()
        seen = [finder.near(np.asarray(f, np.uint8), box) is not None for f in blurred]
    found = find(tmp_path, faces[:10] + [np.asarray(f, np.uint8) for f in blurred])
    last = 9 + (max(np.flatnonzero(seen)) + 1 if any(seen) else 0)
    assert found.frames[-1] == last


def test_overlap() -> None:
    assert overlap((0, 0, 2, 2), (1, 0, 3, 2)) == pytest.approx(1 / 3)
    assert overlap((0, 0, 1, 1), (1, 1, 2, 2)) == 0


def test_ranges() -> None:
    assert frame_ranges(np.array([0, 1, 2, 5, 7, 8])) == [(0, 2), (5, 5), (7, 8)]
    assert frame_ranges(np.array([], np.int64)) == []


def test_a_short_run_elsewhere_is_not_believed() -> None:
    frames = np.array([*range(10), 20, 21, 30])
    points = np.zeros((13, 478, 3), np.float32)
    points[:, 0, :2] = 100
    points[10:12, :, 0] += 500  # lettering at another place
    keep = landmarks._lasting(frames, points)
    assert keep.tolist() == [True] * 10 + [False] * 2 + [True]
