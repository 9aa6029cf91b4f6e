"""Limits of the head's turns, turns on the neck, the camera's orbit."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from cag_avatar.errors import InputError
from cag_avatar_node.head_limits import HeadLimits, limit_motion, orbit, turn_on_neck


def angle(rotation: np.ndarray) -> float:
    return float(np.degrees(np.linalg.norm(cv2.Rodrigues(rotation)[0])))


def test_within_limits_nothing_changes() -> None:
    motion = turn_on_neck(0.3, -0.2, 0.1)
    assert limit_motion(motion, HeadLimits()) is motion
    assert limit_motion(motion, HeadLimits(20.0, 15.0, 15.0)) is motion


@pytest.mark.parametrize(
    ("turn", "limits"),
    [
        ((0.6, 0.0, 0.0), HeadLimits(yaw_deg=10.0)),
        ((0.0, -0.6, 0.0), HeadLimits(pitch_deg=10.0)),
        ((0.0, 0.0, 0.6), HeadLimits(roll_deg=10.0)),
    ],
)
def test_each_turn_is_held_at_its_own_limit(
    turn: tuple[float, float, float], limits: HeadLimits
) -> None:
    motion = turn_on_neck(*turn)
    held = limit_motion(motion, limits)
    assert angle(held[:3, :3]) == pytest.approx(10.0)
    # The same axis, the same side.
    assert angle(motion[:3, :3].T @ held[:3, :3]) == pytest.approx(np.degrees(0.6) - 10.0)
    np.testing.assert_array_equal(held[:3, 3], motion[:3, 3])
    others = HeadLimits(
        *(180.0 if value == 10.0 else 0.0 for value in (
            limits.yaw_deg, limits.pitch_deg, limits.roll_deg))
    )  # fmt: skip
    np.testing.assert_allclose(limit_motion(motion, others), motion, atol=1e-12)


def test_a_limited_turn_leaves_the_others_as_they_are() -> None:
    motion, most = turn_on_neck(0.6, 0.3, 0.2), float(np.radians(10.0))
    for limits, turns in (
        (HeadLimits(yaw_deg=10.0), (most, 0.3, 0.2)),
        (HeadLimits(pitch_deg=10.0), (0.6, most, 0.2)),
        (HeadLimits(roll_deg=10.0), (0.6, 0.3, most)),
    ):
        held = limit_motion(motion, limits)
        np.testing.assert_allclose(held[:3, :3], turn_on_neck(*turns)[:3, :3], atol=1e-12)


def test_limits_of_zero_keep_the_head_still() -> None:
    held = limit_motion(turn_on_neck(0.5, 0.4, -0.3), HeadLimits(0.0, 0.0, 0.0))
    np.testing.assert_allclose(held[:3, :3], np.eye(3), atol=1e-12)


def test_bad_limits_are_refused() -> None:
    with pytest.raises(InputError, match="pitch_deg must lie in 0"):
        HeadLimits(pitch_deg=-1.0)


def test_signs_of_a_head_that_faces_the_camera() -> None:
    # Camera axes: x right, y down, z ahead; the nose points at the camera.
    nose, crown = np.array([0.0, 0.0, -1.0]), np.array([0.0, -1.0, 0.0])
    assert (turn_on_neck(0.3, 0, 0)[:3, :3] @ nose)[0] > 0.2, "to the subject's left is right"
    assert (turn_on_neck(0, 0.3, 0)[:3, :3] @ nose)[1] > 0.2, "a nod is down"
    assert (turn_on_neck(0, 0, 0.3)[:3, :3] @ crown)[0] < -0.2, "to the right shoulder is left"
    # A nod takes the eyes forward: the neck is the pivot.
    assert turn_on_neck(0, 0.3, 0)[2, 3] < -0.01


def test_orbit_shows_the_side_that_the_camera_goes_to() -> None:
    centre = np.array([0.1, 0.0, 0.8])
    left_ear = centre + np.array([0.08, 0, 0])  # of a subject facing us
    crown = centre + np.array([0, -0.1, 0])

    def moved(matrix: np.ndarray, point: np.ndarray) -> np.ndarray:
        return matrix[:3, :3] @ point + matrix[:3, 3]

    np.testing.assert_allclose(moved(orbit(30, 20, centre), centre), centre)
    assert moved(orbit(30, 0, centre), left_ear)[2] < left_ear[2] - 0.03
    assert moved(orbit(0, 30, centre), crown)[2] < crown[2] - 0.03
