"""Irises of painted eyes."""

from __future__ import annotations

import math

import numpy as np
import pytest
from numpy.typing import NDArray

from cag_avatar.tracking.face_landmarker import IRIS_LANDMARKS
from cag_avatar.tracking.irises import (
    IrisTemplate,
    combined_shifts,
    eye_axes,
    look_at,
    with_irises,
)
from tests.cag_avatar.tracking.painted_eyes import (
    CENTRES,
    PaintedClip,
    landmarks_of,
    painted_clip,
    picture,
)


@pytest.fixture(scope="module")
def clip() -> PaintedClip:
    return painted_clip()


def found_in(clip: PaintedClip, eye: int) -> NDArray[np.float64]:
    """Centres of one eye relative to its landmarks, pixels [T, 2]."""
    axes = eye_axes(clip.landmarks)
    frames = zip(clip.pictures, clip.landmarks, axes, strict=True)
    looks = [look_at(picture, landmarks, a, eye) for picture, landmarks, a in frames]
    assert all(look is not None for look in looks)
    template = IrisTemplate.learn(looks)
    assert template is not None
    return np.stack([a @ template.centre(o) for a, o in zip(axes, looks, strict=True)])


@pytest.mark.parametrize("eye", [0, 1])
def test_irises_are_found_where_they_are_painted(clip, eye) -> None:
    wanted = clip.true[:, eye] - clip.landmarks[:, IRIS_LANDMARKS[eye][0], :2]
    error = found_in(clip, eye) - wanted
    assert wanted.std(0).min() > 1.0
    assert (error.std(0) < 0.15).all()
    assert np.abs(error.mean(0)).max() < 0.5


def test_a_closed_eye_shows_no_iris(clip) -> None:
    landmarks = landmarks_of(clip.true[0], opening=0.05)
    axes = eye_axes(landmarks[None])[0]
    assert look_at(picture(clip.true[0], opening=0.05), landmarks, axes, 0) is None


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


def test_a_face_without_extent_has_axes() -> None:
    """All landmarks at one place, or eyes one above the other by a rounding error."""
    axes = eye_axes(np.zeros((2, 478, 2)))
    assert np.abs(np.linalg.det(axes)).min() > 0
    nothing = np.zeros((478, 3), np.float32)
    assert look_at(np.zeros((40, 40, 3), np.uint8), nothing, axes[0], 0) is None


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


def test_the_landmarks_of_an_iris_move_together() -> None:
    landmarks = np.zeros((3, 478, 3), np.float32)
    shifts = np.arange(12, dtype=np.float32).reshape(3, 2, 2)
    moved = with_irises(landmarks, shifts)
    assert (landmarks == 0).all()
    assert (moved[:, :468] == 0).all()
    assert (moved[..., 2] == 0).all()
    for eye, indices in enumerate(IRIS_LANDMARKS):
        for index in indices:
            np.testing.assert_array_equal(moved[:, index, :2], shifts[:, eye])
