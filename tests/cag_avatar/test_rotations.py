from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from cag_avatar.rotations import rotation_matrix, rotation_vector

ANGLES = (0.0, 1e-9, 1e-4, 0.3, 2.0, 3.0, np.pi - 1e-6)


@pytest.mark.parametrize("angle", ANGLES)
def test_vectors_and_matrices_are_scipys(angle: float) -> None:
    generator = np.random.default_rng(0)
    for _ in range(50):
        axis = generator.normal(size=3)
        vector = angle * axis / np.linalg.norm(axis)
        matrix = Rotation.from_rotvec(vector).as_matrix()
        np.testing.assert_allclose(rotation_matrix(vector), matrix, atol=1e-14)
        expected = Rotation.from_matrix(matrix).as_rotvec()
        np.testing.assert_allclose(rotation_vector(matrix), expected, atol=1e-8)


def test_half_turns_about_each_axis() -> None:
    for axis in np.eye(3):
        found = rotation_vector(Rotation.from_rotvec(np.pi * axis).as_matrix())
        np.testing.assert_allclose(np.abs(found), np.pi * axis, atol=1e-8)
