"""Irises of painted eyes, frame after frame."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from cag_avatar.tracking.irises import eye_axes
from cag_avatar.tracking.live_irises import (
    LiveIrises,
    OperatorIrises,
    learn_irises,
    look_at_eyes,
)
from tests.cag_avatar.tracking.painted_eyes import (
    CENTRES,
    PaintedClip,
    landmarks_of,
    painted_clip,
    picture,
)

IRISES = [468, 473]


@pytest.fixture(scope="module")
def clip() -> PaintedClip:
    return painted_clip()


@pytest.fixture(scope="module")
def operator(clip: PaintedClip) -> OperatorIrises:
    """From every other frame."""
    looks = [
        look_at_eyes(p, m) for p, m in zip(clip.pictures[::2], clip.landmarks[::2], strict=True)
    ]
    learned = learn_irises(looks, clip.landmarks[::2])
    assert learned is not None
    return learned


def moved(live: LiveIrises, image: NDArray[np.uint8], landmarks: NDArray) -> NDArray[np.float64]:
    return landmarks[IRISES, :2] + live.shifts(image, landmarks).astype(np.float64)


def test_new_frames_are_followed(clip: PaintedClip, operator: OperatorIrises) -> None:
    live = LiveIrises(operator)
    found = np.stack(
        [moved(live, p, m) for p, m in zip(clip.pictures[1::2], clip.landmarks[1::2], strict=True)]
    )
    error = found - clip.true[1::2]
    seen = clip.landmarks[1::2, IRISES, :2] - clip.true[1::2]
    assert (error.std(0) < 0.3).all()  # their usual place is followed as well
    assert (seen.std(0) > 0.9).all()
    np.testing.assert_allclose(found[:, 0, 1], found[:, 1, 1], atol=0.05)  # as high


def test_closed_eyes_keep_their_place(clip: PaintedClip, operator: OperatorIrises) -> None:
    """Landmarks of a closed eye lie in the slit, 6 pixels lower."""
    live = LiveIrises(operator)
    before = moved(live, clip.pictures[5], clip.landmarks[5])
    slit = landmarks_of(CENTRES + np.array([0.0, 6.0]), opening=0.05)
    closed = moved(live, picture(CENTRES, opening=0.05), slit)
    np.testing.assert_allclose(closed, before, atol=1e-3)
    fresh = LiveIrises(operator)
    np.testing.assert_array_equal(fresh.shifts(picture(CENTRES, opening=0.05), slit), 0)


def test_what_stays_does_not_count(clip: PaintedClip, operator: OperatorIrises) -> None:
    """Irises that are a constant 2 pixels lower than their landmarks say: only motion is kept."""
    low = OperatorIrises(operator.rings, operator.centres.copy(), operator.proportion)
    radius = eye_axes(clip.landmarks[:1])[0][1, 1]
    low.centres[..., 1] -= 2 / radius
    frame = clip.pictures[3], clip.landmarks[3]
    lower = LiveIrises(low).shifts(*frame) - LiveIrises(operator).shifts(*frame)
    np.testing.assert_allclose(lower, [[0, 2], [0, 2]], atol=0.1)


def test_an_eye_never_seen_moves_with_the_other(clip: PaintedClip) -> None:
    looks = [
        (look_at_eyes(p, m)[0], None) for p, m in zip(clip.pictures, clip.landmarks, strict=True)
    ]
    operator = learn_irises(looks, clip.landmarks)
    assert operator is not None
    assert np.isnan(operator.rings[1]).all()
    shift = LiveIrises(operator).shifts(clip.pictures[2], clip.landmarks[2])
    np.testing.assert_allclose(shift[0], shift[1], atol=1e-5)
    assert np.abs(shift).max() > 0.5


def test_without_eyes_there_is_no_operator(clip: PaintedClip) -> None:
    assert learn_irises([(None, None)] * 20, clip.landmarks[:20]) is None
    few = [look_at_eyes(clip.pictures[t], clip.landmarks[t]) for t in range(5)]
    assert learn_irises(few, clip.landmarks[:5]) is None
