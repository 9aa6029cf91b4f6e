"""Head poses against closed forms and against scipy's rotations."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from cag_avatar_node.head_pose_conversion import (
    CANONICAL_FROM_FACE,
    SELLION,
    face_pose_to_head_pose,
    head_pose_to_face_pose,
    matrix_to_quaternion_xyzw,
    quaternion_xyzw_to_matrix,
)


def frontal(distance: float) -> NDArray[np.float64]:
    """A head that looks straight into the camera: canonical x right, y up, z towards it."""
    pose = np.diag([1.0, -1.0, -1.0, 1.0])
    pose[2, 3] = distance
    return pose


def test_frontal_face() -> None:
    position, orientation = head_pose_to_face_pose(frontal(0.6))
    np.testing.assert_allclose(position, [SELLION[0], -SELLION[1], 0.6 - SELLION[2]], atol=1e-12)
    axes = Rotation.from_quat(orientation).as_matrix()
    np.testing.assert_allclose(axes[:, 0], [0, 0, -1], atol=1e-12)  # out of the face: at the camera
    np.testing.assert_allclose(axes[:, 1], [1, 0, 0], atol=1e-12)  # subject's left: image right
    np.testing.assert_allclose(axes[:, 2], [0, -1, 0], atol=1e-12)  # up: image up


def test_the_sellion_is_in_front_of_the_eyeballs() -> None:
    assert SELLION[0] == 0
    assert abs(SELLION[1]) < 0.01
    assert 0.015 < SELLION[2] < 0.035
    assert np.linalg.det(CANONICAL_FROM_FACE[:3, :3]) == pytest.approx(1)


def test_round_trip_of_random_poses() -> None:
    generator = np.random.default_rng(0)
    for rotation in Rotation.random(50, rng=generator).as_matrix():
        pose = np.eye(4)
        pose[:3, :3] = rotation
        pose[:3, 3] = generator.normal(size=3)
        back = face_pose_to_head_pose(*head_pose_to_face_pose(pose))
        np.testing.assert_allclose(back, pose, atol=1e-12)


def test_quaternions_equal_scipy_at_every_angle() -> None:
    half_turns = [Rotation.from_rotvec(np.pi * axis).as_matrix() for axis in np.eye(3)]
    randoms = Rotation.random(50, rng=np.random.default_rng(1)).as_matrix()
    for rotation in [np.eye(3), *half_turns, *randoms]:
        quaternion = matrix_to_quaternion_xyzw(rotation)
        assert quaternion[3] >= 0
        assert np.linalg.norm(quaternion) == pytest.approx(1)
        np.testing.assert_allclose(Rotation.from_quat(quaternion).as_matrix(), rotation, atol=1e-12)
        np.testing.assert_allclose(quaternion_xyzw_to_matrix(quaternion), rotation, atol=1e-12)


def test_length_of_a_quaternion_does_not_matter() -> None:
    quaternion = np.array([0.1, -0.2, 0.3, 0.4])
    expected = Rotation.from_quat(quaternion).as_matrix()
    np.testing.assert_allclose(quaternion_xyzw_to_matrix(3 * quaternion), expected, atol=1e-12)
