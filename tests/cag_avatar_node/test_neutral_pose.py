"""The operator's rest pose."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from cag_avatar_node.neutral_pose import NeutralPose


def turned(degrees: float, x: float = 0.0) -> NDArray[np.float64]:
    pose = np.eye(4)
    pose[:3, :3] = Rotation.from_euler("y", degrees, degrees=True).as_matrix()
    pose[:3, 3] = [x, 0.0, 0.6]
    return pose


def test_mean_of_the_first_seconds_then_fixed() -> None:
    neutral = NeutralPose(1.0)
    np.testing.assert_allclose(neutral.update(turned(10, 0.1), 5.0), turned(10, 0.1), atol=1e-12)
    np.testing.assert_allclose(neutral.update(turned(30, 0.3), 5.5), turned(20, 0.2), atol=1e-12)
    np.testing.assert_allclose(neutral.update(turned(90, 9.0), 6.5), turned(20, 0.2), atol=1e-12)


def test_restart_takes_a_new_one() -> None:
    neutral = NeutralPose(0.0)
    neutral.update(turned(10), 0.0)
    np.testing.assert_allclose(neutral.update(turned(40), 1.0), turned(10), atol=1e-12)
    neutral.restart()
    np.testing.assert_allclose(neutral.update(turned(40), 2.0), turned(40), atol=1e-12)


def test_negative_duration_is_refused() -> None:
    with pytest.raises(ValueError, match="must not be negative"):
        NeutralPose(-1.0)
