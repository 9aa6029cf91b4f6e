"""Check a FaceExpression before it may move an avatar."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from cag_avatar.errors import InputError
from cag_avatar.head_models.arkit import ARKIT_NAMES
from cag_avatar_node.head_pose_conversion import face_pose_to_head_pose

__all__ = [
    "ARKIT_52",
    "FLAME_100",
    "CheckedExpression",
    "ExpressionError",
    "RawExpression",
    "check_expression",
    "check_stamp",
]

#: Values of FaceExpression.layout; a test holds them equal to the message's constants.
ARKIT_52 = 1
FLAME_100 = 2
_LAYOUT_NAMES = {ARKIT_52: "ARKIT_52", FLAME_100: "FLAME_100"}
_QUATERNION_TOLERANCE = 1e-2
#: Heads are not farther away than this, metres.
_FARTHEST = 100.0


class RawExpression(Protocol):
    """The fields of cag_avatar_msgs/FaceExpression that are read here."""

    layout: int
    coefficients: Sequence[float]
    head_position: Sequence[float]
    head_orientation: Sequence[float]
    is_valid: bool


class ExpressionError(InputError):
    """A FaceExpression that cannot be used; ``fault`` is the field at fault."""

    def __init__(self, fault: str, message: str) -> None:
        super().__init__(message)
        self.fault = fault


@dataclass(frozen=True)
class CheckedExpression:
    """A FaceExpression that is safe to render."""

    code: NDArray[np.float32]
    """Expression code, float32 [52], ARKit order, in [0, 1]."""
    head_pose: NDArray[np.float64] | None
    """Canonical-to-camera transform [4, 4], or None when head poses are not wanted."""
    clamped: int
    """Number of coefficients that lay outside [0, 1] and were moved to the nearer end."""
    head_motion: NDArray[np.float64] | None = None
    """What the head did since rest, [4, 4] (see ``face_blend.py``), instead of a head pose: of
    senders that know no camera."""


def check_expression(
    message: RawExpression, *, with_head_pose: bool = True
) -> CheckedExpression | None:
    """Check and convert a FaceExpression.

    Args:
        message: the message.
        with_head_pose: also check and convert the head pose.

    Returns:
        The checked expression, or None when the message says that no face was seen.

    Raises:
        ExpressionError: unknown or unsupported layout, wrong number of coefficients, NaN or
            infinity, a head pose that is not finite, not in front of the camera or whose
            quaternion does not have length 1.
    """
    if not message.is_valid:
        return None
    if message.layout != ARKIT_52:
        name = _LAYOUT_NAMES.get(message.layout)
        reason = f"{name}, which this avatar does not take" if name else "unknown"
        raise ExpressionError(
            "layout",
            f"FaceExpression.layout {message.layout} is {reason}: send ARKIT_52 ({ARKIT_52}) "
            f"with {len(ARKIT_NAMES)} coefficients",
        )
    values = np.asarray(message.coefficients, dtype=np.float32)
    if values.shape != (len(ARKIT_NAMES),):
        raise ExpressionError(
            "coefficients",
            f"FaceExpression.coefficients has {values.size} values, but layout ARKIT_52 needs "
            f"{len(ARKIT_NAMES)}: send them all, in Apple's order",
        )
    finite = np.isfinite(values)
    if not finite.all():
        index = int(np.argmin(finite))
        raise ExpressionError(
            "coefficients",
            f"FaceExpression.coefficients[{index}] ({ARKIT_NAMES[index]}) is {values[index]}: "
            "send finite numbers, or is_valid = false when there is no estimate",
        )
    code = np.clip(values, 0.0, 1.0)
    clamped = int(np.count_nonzero(code != values))
    head_pose = _check_head_pose(message) if with_head_pose else None
    return CheckedExpression(code, head_pose, clamped)


def check_stamp(seconds: int, nanoseconds: int) -> None:
    """Check a header's stamp.

    Raises:
        ExpressionError: negative, or with a second or more of nanoseconds. Times that go back or
            lie ahead are fine: bags repeat, and clocks differ.
    """
    if seconds < 0 or not 0 <= nanoseconds < 1_000_000_000:
        raise ExpressionError(
            "stamp",
            f"header.stamp {seconds} s {nanoseconds} ns is not a time: send when the camera took "
            "the image",
        )


def _check_head_pose(message: RawExpression) -> NDArray[np.float64]:
    position = np.asarray(message.head_position, np.float64)
    orientation = np.asarray(message.head_orientation, np.float64)
    if not np.isfinite(position).all() or position[2] <= 0 or np.abs(position).max() > _FARTHEST:
        raise ExpressionError(
            "head_position",
            f"FaceExpression.head_position {position.tolist()} must be finite metres in front of "
            f"the camera (0 < z <= {_FARTHEST:g}): send the sellion in the camera optical frame",
        )
    if not np.isfinite(orientation).all():
        raise ExpressionError(
            "head_orientation",
            f"FaceExpression.head_orientation {orientation.tolist()} must be finite: "
            "send a unit quaternion x y z w",
        )
    norm = float(np.linalg.norm(orientation))
    if abs(norm - 1) > _QUATERNION_TOLERANCE:
        raise ExpressionError(
            "head_orientation",
            f"FaceExpression.head_orientation has length {norm:.3g}, not 1: "
            "send a unit quaternion x y z w",
        )
    return face_pose_to_head_pose(position, orientation)
