"""Head poses: canonical-to-camera transforms to and from the REP-155 face frame of the messages.

Canonical space: x to the subject's left, y up, z out of the face, origin midway between the eyeball
centres. REP-155 face frame: x out of the face, y to the subject's left, z up, origin at the
sellion. Both poses are in the camera optical frame (x right, y down, z ahead), in metres.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = [
    "CANONICAL_FROM_FACE",
    "SELLION",
    "face_pose_to_head_pose",
    "head_pose_to_face_pose",
    "matrix_to_quaternion_xyzw",
    "quaternion_xyzw_to_matrix",
]

#: Sellion in canonical space, metres: the deepest point of the midline between brow and nose,
#: measured on Anny's mean rest head. One fixed point for all heads, so that a pose converts without
#: knowing whose it is.
SELLION: tuple[float, float, float] = (0.0, -0.001, 0.024)

#: Face frame to canonical space, 4 x 4.
CANONICAL_FROM_FACE: NDArray[np.float64] = np.array(
    [
        [0.0, 1.0, 0.0, SELLION[0]],
        [0.0, 0.0, 1.0, SELLION[1]],
        [1.0, 0.0, 0.0, SELLION[2]],
        [0.0, 0.0, 0.0, 1.0],
    ]
)


def quaternion_xyzw_to_matrix(quaternion: ArrayLike) -> NDArray[np.float64]:
    """Unit quaternion [4], x y z w, to a rotation matrix [3, 3]; the norm is divided out."""
    x, y, z, w = np.asarray(quaternion, np.float64) / np.linalg.norm(quaternion)
    return np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
            [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
            [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
        ]
    )


def matrix_to_quaternion_xyzw(rotation: ArrayLike) -> NDArray[np.float64]:
    """Rotation matrix [3, 3] to a unit quaternion [4], x y z w, w >= 0.

    The largest eigenvector of Bar-Itzhack's symmetric matrix (2000): accurate at every angle, and
    the nearest rotation when the input is only nearly orthogonal.
    """
    m = np.asarray(rotation, np.float64)
    symmetric = np.array(
        [
            [m[0, 0] - m[1, 1] - m[2, 2], m[0, 1] + m[1, 0], m[0, 2] + m[2, 0], m[2, 1] - m[1, 2]],
            [m[0, 1] + m[1, 0], m[1, 1] - m[0, 0] - m[2, 2], m[1, 2] + m[2, 1], m[0, 2] - m[2, 0]],
            [m[0, 2] + m[2, 0], m[1, 2] + m[2, 1], m[2, 2] - m[0, 0] - m[1, 1], m[1, 0] - m[0, 1]],
            [m[2, 1] - m[1, 2], m[0, 2] - m[2, 0], m[1, 0] - m[0, 1], np.trace(m)],
        ]
    )
    quaternion = np.linalg.eigh(symmetric)[1][:, -1]
    return -quaternion if quaternion[3] < 0 else quaternion


def head_pose_to_face_pose(
    head_pose: ArrayLike,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Canonical-to-camera transform [4, 4] to (position [3] in metres, orientation [4] xyzw)."""
    camera_from_face = np.asarray(head_pose, np.float64) @ CANONICAL_FROM_FACE
    return camera_from_face[:3, 3].copy(), matrix_to_quaternion_xyzw(camera_from_face[:3, :3])


def face_pose_to_head_pose(position: ArrayLike, orientation: ArrayLike) -> NDArray[np.float64]:
    """(position [3] in metres, orientation [4] xyzw) to canonical-to-camera transform [4, 4]."""
    camera_from_face = np.eye(4)
    camera_from_face[:3, :3] = quaternion_xyzw_to_matrix(orientation)
    camera_from_face[:3, 3] = np.asarray(position, np.float64)
    rotation = CANONICAL_FROM_FACE[:3, :3].T
    face_from_canonical = np.eye(4)
    face_from_canonical[:3, :3] = rotation
    face_from_canonical[:3, 3] = -rotation @ CANONICAL_FROM_FACE[:3, 3]
    return camera_from_face @ face_from_canonical
