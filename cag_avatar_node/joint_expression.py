"""Check a sensor_msgs/JointState of facial coefficients before it may move an avatar."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np

from cag_avatar.head_models.arkit import ARKIT_INDEX, ARKIT_NAMES
from cag_avatar_node.expression_validation import CheckedExpression, ExpressionError
from cag_avatar_node.head_limits import turn_on_neck

__all__ = ["HEAD_JOINTS", "RawJoints", "check_joints"]

#: Optional joints of the head, radians from rest: REP 103's axes of a head (x out of the face, y to
#: the subject's left, z up), so positive yaw turns to the subject's left, positive pitch nods down,
#: positive roll leans to the subject's right shoulder.
HEAD_JOINTS = ("head_yaw", "head_pitch", "head_roll")
#: A message has the 52 coefficients, the head and perhaps joints of a robot; more is no such one.
_MOST_NAMES = 1024


class RawJoints(Protocol):
    """The fields of sensor_msgs/JointState that are read here."""

    name: Sequence[str]
    position: Sequence[float]


def check_joints(message: RawJoints, *, with_head_pose: bool = True) -> CheckedExpression | None:
    """Check and convert a JointState whose names are ARKit's and whose positions are coefficients.

    Coefficients that are not named are 0; joints with other names are left alone. A message of
    :data:`HEAD_JOINTS` alone, or without any known name, is refused.

    Args:
        message: the message.
        with_head_pose: also read the head's joints.

    Returns:
        The checked expression, or None when there are no names at all: no face was seen.

    Raises:
        ExpressionError: names and positions do not match, no ARKit name, a name twice, NaN or
            infinity.
    """
    count = len(message.name)
    if count == 0 and len(message.position) == 0:
        return None
    if count != len(message.position) or count > _MOST_NAMES:
        raise ExpressionError(
            "joint_position",
            f"JointState has {count} names and {len(message.position)} positions: send one "
            "position for each name",
        )
    code = np.zeros(len(ARKIT_NAMES), np.float64)
    turns: dict[str, float] = {}
    seen: set[str] = set()
    values = np.asarray(message.position, np.float64)
    for name, value in zip(message.name, values, strict=True):
        index = ARKIT_INDEX.get(name)
        if index is None and name not in HEAD_JOINTS:
            continue
        if name in seen:
            raise ExpressionError("joint_name", f"JointState names {name} twice")
        seen.add(name)
        if not np.isfinite(value):
            raise ExpressionError(
                "joint_position",
                f"JointState.position of {name} is {value}: send finite numbers, or no names when "
                "there is no estimate",
            )
        if index is None:
            turns[name] = float(np.clip(value, -np.pi, np.pi))
        else:
            code[index] = value
    if len(seen) == len(turns):
        raise ExpressionError(
            "joint_name",
            f"JointState has no ARKit name among its {count}: send {ARKIT_NAMES[0]}, ..., "
            f"{ARKIT_NAMES[-1]}",
        )
    clamped = np.clip(code, 0.0, 1.0)
    motion = None
    if turns and with_head_pose:
        yaw, pitch, roll = (turns.get(name, 0.0) for name in HEAD_JOINTS)
        motion = turn_on_neck(yaw, pitch, roll)
    return CheckedExpression(
        clamped.astype(np.float32), None, int(np.count_nonzero(clamped != code)), motion
    )
