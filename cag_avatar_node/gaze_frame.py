"""Where the operator looks, as REP-155 wants it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from cag_avatar.head_models.arkit import ARKIT_INDEX, MAX_GAZE_PITCH, MAX_GAZE_YAW
from cag_avatar_node.head_pose_conversion import head_pose_to_face_pose, matrix_to_quaternion_xyzw

__all__ = ["gaze_angles", "gaze_pose"]


def gaze_angles(code: NDArray[np.floating]) -> tuple[float, float]:
    """Mean of both eyes' direction relative to the head, from an ARKit code [52]: yaw to the
    subject's left and pitch downwards, radians."""

    def c(name: str) -> float:
        return float(code[ARKIT_INDEX[f"eyeLook{name}"]])

    yaw = (c("OutLeft") - c("InLeft") + c("InRight") - c("OutRight")) / 2
    pitch = (c("DownLeft") - c("UpLeft") + c("DownRight") - c("UpRight")) / 2
    return yaw * float(MAX_GAZE_YAW), pitch * float(MAX_GAZE_PITCH)


def gaze_pose(
    head_pose: NDArray[np.floating], code: NDArray[np.floating]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The ``gaze_<id>`` frame of REP-155 in the camera's optical frame.

    Args:
        head_pose: canonical to camera, metres, [4, 4].
        code: ARKit code, [52].

    Returns:
        Position [3] (that of the face frame: the sellion) and orientation [4], x y z w, of a frame
        with z along the gaze, x to the subject's right, y down.
    """
    position, _ = head_pose_to_face_pose(head_pose)
    yaw, pitch = gaze_angles(code)
    # In canonical axes: x to the subject's left, y up, z out of the face.
    ahead = np.array([np.sin(yaw) * np.cos(pitch), -np.sin(pitch), np.cos(yaw) * np.cos(pitch)])
    right = np.array([-np.cos(yaw), 0.0, np.sin(yaw)])
    down = np.cross(ahead, right)
    axes = np.asarray(head_pose, np.float64)[:3, :3] @ np.stack([right, down, ahead], 1)
    return position, matrix_to_quaternion_xyzw(axes)
