"""How far an avatar's head may turn, and turns of the head on its neck."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

from cag_avatar.errors import InputError

__all__ = ["HeadLimits", "limit_motion", "orbit", "turn_on_neck"]

#: From the head's origin (between the eyes) to where the head turns on the neck, camera axes,
#: metres: down and away from the camera, of an average adult who faces it.
_NECK = np.array([0.0, 0.12, 0.06])


@dataclass(frozen=True)
class HeadLimits:
    """Largest turns from the rest pose, either way, in degrees; 180: no limit."""

    yaw_deg: float = 180.0
    """To the left and right."""
    pitch_deg: float = 180.0
    """Up and down."""
    roll_deg: float = 180.0
    """Towards the shoulders."""

    def __post_init__(self) -> None:
        for name in ("yaw_deg", "pitch_deg", "roll_deg"):
            if not 0 <= getattr(self, name) <= 180:
                raise InputError(f"head limits: {name} must lie in 0 .. 180")

    @property
    def unlimited(self) -> bool:
        """Whether every turn is allowed."""
        return min(self.yaw_deg, self.pitch_deg, self.roll_deg) >= 180


def limit_motion(motion: NDArray[np.float64], limits: HeadLimits) -> NDArray[np.float64]:
    """A head motion [4, 4] (see ``face_blend.py``) with its turns held within limits.

    The rotation is taken apart as roll (about the camera's z) first, then pitch (about x), then yaw
    (about y), each is clamped and they are put together again. The translation stays.
    """
    if limits.unlimited:
        return motion
    r = motion[:3, :3]
    # r = Ry(yaw) @ Rx(pitch) @ Rz(roll)
    pitch = np.arcsin(np.clip(-r[1, 2], -1.0, 1.0))
    yaw = np.arctan2(r[0, 2], r[2, 2])
    roll = np.arctan2(r[1, 0], r[1, 1])
    angles = np.array([yaw, pitch, roll])
    most = np.radians([limits.yaw_deg, limits.pitch_deg, limits.roll_deg])
    held = np.clip(angles, -most, most)
    if np.array_equal(held, angles):
        return motion
    result = motion.copy()
    result[:3, :3] = _rotation(1, held[0]) @ _rotation(0, held[1]) @ _rotation(2, held[2])
    return result


def turn_on_neck(yaw: float, pitch: float, roll: float) -> NDArray[np.float64]:
    """Head motion [4, 4] (see ``face_blend.py``) of turns about the axes of a head that faces the
    camera, in radians, signs as in REP 103 (x out of the face, y to the subject's left, z up).

    Args:
        yaw: about z, positive to the subject's left.
        pitch: about y, positive down (a nod).
        roll: about x, positive towards the subject's right shoulder.
    """
    # The face's x is the camera's -z, its y the camera's x, its z the camera's -y.
    rotation = _rotation(1, -yaw) @ _rotation(0, pitch) @ _rotation(2, -roll)
    result = np.eye(4)
    result[:3, :3] = rotation
    result[:3, 3] = _NECK - rotation @ _NECK
    return result


def orbit(yaw_deg: float, pitch_deg: float, centre: ArrayLike) -> NDArray[np.float64]:
    """Transform of the scene [4, 4] that shows it from a camera that moved round ``centre``.

    Args:
        yaw_deg: the camera moves to its right, so that the subject's left side comes into view.
        pitch_deg: the camera moves up and looks down.
        centre: [3], camera axes, metres.
    """
    rotation = _rotation(0, np.radians(pitch_deg)) @ _rotation(1, np.radians(yaw_deg))
    middle = np.asarray(centre, np.float64)
    result = np.eye(4)
    result[:3, :3] = rotation
    result[:3, 3] = middle - rotation @ middle
    return result


def _rotation(axis: int, angle: float) -> NDArray[np.float64]:
    vector = np.zeros(3)
    vector[axis] = angle
    return np.asarray(cv2.Rodrigues(vector)[0])
