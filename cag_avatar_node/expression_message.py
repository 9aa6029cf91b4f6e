"""FaceExpression messages from codes and head poses."""

from __future__ import annotations

import numpy as np
from cag_avatar_msgs.msg import FaceExpression
from numpy.typing import NDArray
from std_msgs.msg import Header

from cag_avatar_node.head_pose_conversion import head_pose_to_face_pose

__all__ = ["face_message", "no_face_message"]


def no_face_message(header: Header, face_id: str, sequence: int) -> FaceExpression:
    """What is sent for an image without the operator's face: is_valid false, confidence 0."""
    message = FaceExpression()
    message.header = header
    message.face_id = face_id
    message.layout = FaceExpression.ARKIT_52
    message.sequence = sequence
    message.head_orientation = [0.0, 0.0, 0.0, 1.0]
    return message


def face_message(
    header: Header,
    face_id: str,
    sequence: int,
    code: NDArray[np.float32],
    head_pose: NDArray[np.float64],
    confidence: float,
    eyes_valid: bool,
) -> FaceExpression:
    """What is sent for a face; one that is not finite counts as none.

    Args:
        header: of the image: its stamp and frame.
        face_id: identifier of the face.
        sequence: number of the message.
        code: ARKit code, [52].
        head_pose: canonical to camera (OpenCV axes, metres), [4, 4].
        confidence: 0 to 1.
        eyes_valid: whether blinks and gaze can be trusted.
    """
    message = no_face_message(header, face_id, sequence)
    if not (np.isfinite(code).all() and np.isfinite(head_pose).all() and np.isfinite(confidence)):
        return message
    position, orientation = head_pose_to_face_pose(head_pose)
    message.is_valid = True
    message.coefficients = np.asarray(code, np.float32).tolist()
    message.head_position = position.astype(np.float32)
    message.head_orientation = orientation.astype(np.float32)
    message.confidence = float(np.clip(confidence, 0.0, 1.0))
    message.eyes_valid = bool(eyes_valid)
    return message
