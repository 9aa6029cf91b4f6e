"""The annotated picture, and how often there is one."""

from __future__ import annotations

import numpy as np

from cag_avatar.tracking.estimator import FaceEstimate
from cag_avatar.tracking.face_landmarker import DetectedFace
from cag_avatar_node.face_annotation import RateLimit, annotate_face

GREEN, ORANGE = [0, 220, 0], [230, 120, 0]


def face_at(x: float, y: float, outside: bool = False) -> DetectedFace:
    landmarks = np.full((478, 3), (x, y, 0), np.float32)
    landmarks[1] = x + 60, y + 40, 0
    if outside:
        landmarks[2] = -50, 9999, 0
    return DetectedFace(landmarks, np.zeros(52, np.float32))


def found(face: DetectedFace | None, *others: DetectedFace) -> FaceEstimate:
    valid = face is not None
    return FaceEstimate(
        np.zeros(52, np.float32), np.eye(4), 0.9, valid, valid, face=face, others=others
    )


def test_landmarks_and_boxes_are_drawn_at_their_place_in_a_copy() -> None:
    rgb = np.full((200, 300, 3), 40, np.uint8)
    picture = annotate_face(rgb, found(face_at(100, 50), face_at(200, 90)))
    assert (rgb == 40).all(), "the camera's picture was painted on"
    assert picture.shape == rgb.shape
    assert picture[50, 100].tolist() == GREEN
    assert picture[90, 160].tolist() == GREEN
    assert picture[90, 200].tolist() == ORANGE
    assert (picture[0, 0] == 40).all()


def test_large_pictures_are_scaled_and_landmarks_with_them() -> None:
    rgb = np.full((1000, 1280, 3), 40, np.uint8)
    picture = annotate_face(rgb, found(face_at(600, 400, outside=True)))
    assert picture.shape == (500, 640, 3)
    assert picture[200, 300].tolist() == GREEN


def test_no_face_is_said() -> None:
    rgb = np.zeros((60, 200, 3), np.uint8)
    picture = annotate_face(rgb, found(None))
    assert picture.any(), "no text"
    assert not (picture == GREEN).all(-1).any()


def test_the_rate_is_kept_whatever_comes_in() -> None:
    limit = RateLimit()
    passed = [t for t in np.arange(100.0, 110.0, 0.033) if limit.due(float(t), 10.0)]
    assert len(passed) in (99, 100, 101)
    assert limit.due(500.0, 10.0), "a pause counts as one"
    assert not limit.due(500.01, 10.0)
    assert limit.due(3.0, 10.0), "a clock that went back stopped it"
    slow = RateLimit()
    assert sum(slow.due(float(t), 10.0) for t in np.arange(0, 10, 0.5)) == 20
