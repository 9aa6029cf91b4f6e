"""Painted eyes whose landmarks follow the irises by a third, as the detector's do."""

from __future__ import annotations

import math

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from cag_avatar.tracking.face_landmarker import IRIS_LANDMARKS
from cag_avatar.tracking.irises import (
    IrisTemplate,
    combined_shifts,
    eye_axes,
    look_at,
)

#: Interpupillary geometry, pixels: outer corners 124 apart, irises of 8 pixels' radius.
CENTRES = np.array([[68.0, 80.0], [132.0, 80.0]])
RADIUS = 8.2
HALF_WIDTH, HALF_HEIGHT = 30.0, 11.0
LIDS = (
    (33, 246, 161, 160, 159, 158, 157, 173, 133, 155, 154, 153, 145, 144, 163, 7),
    (263, 466, 388, 387, 386, 385, 384, 398, 362, 382, 381, 380, 374, 373, 390, 249),
)
FRAMES = 40


def landmarks_of(found: NDArray[np.float64], opening: float = 1.0) -> NDArray[np.float32]:
    """Landmarks [478, 3] of a frontal face whose irises are seen at ``found`` [2, 2]."""
    points = np.zeros((478, 3), np.float32)
    for eye, (x, y) in enumerate(CENTRES):
        start = math.pi if eye == 0 else 0.0
        for k, index in enumerate(LIDS[eye]):
            angle = start + (1 if eye == 0 else -1) * 2 * math.pi * k / 16
            height = opening * HALF_HEIGHT * math.sin(angle)
            points[index, :2] = x + HALF_WIDTH * math.cos(angle), y + height
        points[list(IRIS_LANDMARKS[eye]), :2] = found[eye]
    points[[168, 6, 197, 2], :2] = (100, 75), (100, 80), (100, 90), (100, 128)
    points[[234, 454], :2] = (20, 90), (180, 90)
    return points


def picture(irises: NDArray[np.float64], opening: float = 1.0) -> NDArray[np.uint8]:
    """Eyes with irises at [2, 2], lids, and glints that do not move with them."""
    zoom = 8
    image = np.full((160 * zoom, 200 * zoom, 3), (190, 140, 120), np.uint8)
    for eye, (x, y) in enumerate(CENTRES):
        white = image.copy()
        white[:] = (215, 210, 205)
        for radius, colour in ((RADIUS, (70, 90, 60)), (0.4 * RADIUS, (15, 12, 12))):
            at = tuple(round(v * zoom) for v in irises[eye])
            cv2.circle(white, at, round(radius * zoom), colour, -1, cv2.LINE_AA)
        cv2.circle(white, (round((x + 2) * zoom), round((y - 3) * zoom)), zoom, (255, 255, 255), -1)
        lid = np.zeros(image.shape[:2], np.uint8)
        axes = (round(HALF_WIDTH * zoom), max(1, round(opening * HALF_HEIGHT * zoom)))
        cv2.ellipse(lid, (round(x * zoom), round(y * zoom)), axes, 0, 0, 360, 1, -1)
        image[lid > 0] = white[lid > 0]
    small = cv2.resize(image, (200, 160), interpolation=cv2.INTER_AREA)
    return np.asarray(small, np.uint8)


@pytest.fixture(scope="module")
def clip() -> tuple[NDArray[np.float64], NDArray[np.float32], list[NDArray[np.uint8]]]:
    """True irises [T, 2, 2], landmarks, pictures: both eyes look round together."""
    t = np.arange(FRAMES) / FRAMES * 2 * math.pi
    turn = np.stack([5 * np.sin(3 * t), 2.5 * np.cos(2 * t)], -1)
    true = CENTRES + turn[:, None]
    seen = CENTRES + turn[:, None] * [0.7, 0.3]
    landmarks = np.stack([landmarks_of(s) for s in seen])
    return true, landmarks, [picture(irises) for irises in true]


def found_in(clip, eye: int) -> NDArray[np.float64]:
    """Centres of one eye relative to its landmarks, pixels [T, 2]."""
    _, landmarks, pictures = clip
    axes = eye_axes(landmarks)
    looks = [look_at(p, m, a, eye) for p, m, a in zip(pictures, landmarks, axes, strict=True)]
    assert all(look is not None for look in looks)
    template = IrisTemplate.learn(looks)
    return np.stack([a @ template.centre(o) for a, o in zip(axes, looks, strict=True)])


@pytest.mark.parametrize("eye", [0, 1])
def test_irises_are_found_where_they_are_painted(clip, eye) -> None:
    true, landmarks, _ = clip
    wanted = true[:, eye] - landmarks[:, IRIS_LANDMARKS[eye][0], :2]
    error = found_in(clip, eye) - wanted
    assert wanted.std(0).min() > 1.0
    assert (error.std(0) < 0.15).all()
    assert np.abs(error.mean(0)).max() < 0.5


def test_a_closed_eye_shows_no_iris(clip) -> None:
    true, _, _ = clip
    landmarks = landmarks_of(true[0], opening=0.05)
    axes = eye_axes(landmarks[None])[0]
    assert look_at(picture(true[0], opening=0.05), landmarks, axes, 0) is None


def test_a_turned_head_keeps_its_scale_and_a_tilted_one_its_axes() -> None:
    frontal = landmarks_of(CENTRES).astype(np.float64)
    turned = frontal.copy()
    turned[:, 0] = 100 + 0.5 * (turned[:, 0] - 100)
    c, s = math.cos(0.3), math.sin(0.3)
    tilted = frontal.copy()
    tilted[:, :2] = frontal[:, :2] @ np.array([[c, s], [-s, c]])
    axes = eye_axes(np.stack([frontal, frontal, turned, tilted]))
    np.testing.assert_allclose(axes[0], 0.066 * 124 * np.eye(2), rtol=1e-3)
    np.testing.assert_allclose(axes[2], axes[0], rtol=1e-6)
    np.testing.assert_allclose(axes[3], np.array([[c, -s], [s, c]]) @ axes[0], rtol=1e-6)


def test_both_eyes_rise_together_and_constant_shifts_do_not_count() -> None:
    landmarks = np.stack([landmarks_of(CENTRES)] * 5)
    axes = eye_axes(landmarks)
    centres = np.zeros((5, 2, 2))
    centres[:, 0, 1] = [0.5, 0.5, 0.5, 0.7, 0.3]
    centres[:, 1] = [-0.2, 0.1]
    centres[3, 1, 0] = 0.1
    shift = np.linalg.inv(axes)[:, None] @ combined_shifts(centres, landmarks, axes)[..., None]
    np.testing.assert_allclose(shift[:, 0, 1, 0], [0, 0, 0, 0.1, -0.1], atol=1e-5)
    np.testing.assert_allclose(shift[:, 1, 1, 0], shift[:, 0, 1, 0], atol=1e-6)
    np.testing.assert_allclose(shift[:, 1, 0, 0], [0, 0, 0, 0.3, 0], atol=1e-5)


def test_a_hidden_eye_moves_with_the_other_one() -> None:
    landmarks = np.stack([landmarks_of(CENTRES)] * 4)
    axes = eye_axes(landmarks)
    centres = np.zeros((4, 2, 2))
    centres[3, 0] = [0.4, 0.2]
    centres[3, 1] = np.nan
    shift = combined_shifts(centres, landmarks, axes)
    np.testing.assert_allclose(shift[3, 1], shift[3, 0], atol=1e-5)
    assert np.abs(shift[3]).min() > 1


def test_closed_eyes_keep_the_irises_where_they_were(clip) -> None:
    """Landmarks of a closed eye lie in the slit, 6 pixels lower."""
    looking = [CENTRES + np.array([0, y]) for y in (-1.0, 5.0, 1.0)]
    landmarks = np.stack([landmarks_of(place) for place in looking])
    centres = np.zeros((3, 2, 2))
    centres[1] = np.nan
    moved = landmarks[:, [468, 473], :2] + combined_shifts(centres, landmarks, eye_axes(landmarks))
    np.testing.assert_allclose(moved[1], CENTRES, atol=1e-3)


def test_where_no_eye_is_seen_nothing_is_added() -> None:
    landmarks = np.stack([landmarks_of(CENTRES)] * 3)
    shift = combined_shifts(np.full((3, 2, 2), np.nan), landmarks, eye_axes(landmarks))
    assert (shift == 0).all()
