"""Between two faces: expression codes are mixed, head motions turned along the shortest way.

A head motion is what a head did since its avatar's rest pose, so that one motion serves every
avatar: a transform [4, 4] whose rotation is about the camera's axes (x right, y down, z ahead) and
whose translation, metres, is of the head's origin. :func:`pose_of_motion` makes a pose of it.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

__all__ = [
    "Face",
    "Interpolator",
    "blend_faces",
    "blend_motions",
    "motion_of_pose",
    "pose_of_motion",
    "smoothstep",
]


@dataclass(frozen=True)
class Face:
    """What a face does; arrays are not to be changed."""

    code: NDArray[np.float32]
    """Expression code of the avatar, float32 [52]."""
    motion: NDArray[np.float64]
    """Head motion since the rest pose, [4, 4]."""


def smoothstep(share: float) -> float:
    """0 to 1 without a jerk at either end; clamped outside."""
    share = min(max(share, 0.0), 1.0)
    return share * share * (3 - 2 * share)


def blend_faces(first: Face, second: Face, share: float) -> Face:
    """The face ``share`` (0 to 1) of the way from the first to the second."""
    if share <= 0:
        return first
    if share >= 1:
        return second
    code = first.code + np.float32(share) * (second.code - first.code)
    return Face(code, blend_motions(first.motion, second.motion, share))


def blend_motions(
    first: NDArray[np.float64], second: NDArray[np.float64], share: float
) -> NDArray[np.float64]:
    """Between two motions or poses [4, 4]: the rotation by slerp (Shoemake, 1985: along the
    shortest way, at constant speed), the translation on a line."""
    if first is second:
        return first
    step = cv2.Rodrigues(np.ascontiguousarray(first[:3, :3].T @ second[:3, :3]))[0]
    result = np.eye(4)
    result[:3, :3] = first[:3, :3] @ cv2.Rodrigues(step * share)[0]
    result[:3, 3] = first[:3, 3] + share * (second[:3, 3] - first[:3, 3])
    return result


def motion_of_pose(pose: NDArray[np.float64], rest: NDArray[np.float64]) -> NDArray[np.float64]:
    """The motion [4, 4] that takes the rest pose to a pose (both canonical to camera, [4, 4])."""
    result = np.eye(4)
    result[:3, :3] = pose[:3, :3] @ rest[:3, :3].T
    result[:3, 3] = pose[:3, 3] - rest[:3, 3]
    return result


def pose_of_motion(motion: NDArray[np.float64], rest: NDArray[np.float64]) -> NDArray[np.float64]:
    """The pose [4, 4] that a motion takes the rest pose to; inverse of :func:`motion_of_pose`."""
    result = np.eye(4)
    result[:3, :3] = motion[:3, :3] @ rest[:3, :3]
    result[:3, 3] = rest[:3, 3] + motion[:3, 3]
    return result


class Interpolator:
    """Moves steadily from face to face as they come in.

    Each new face is reached one interval (the running mean of those between the last ones) after it
    came, from what is shown at that moment: no jump, whatever the jitter, and a delay of at most
    that interval. Time is passed in (seconds, any monotonic clock).

    Args:
        max_interval_s: the way takes at most this long.
    """

    def __init__(self, max_interval_s: float = 0.1) -> None:
        if not max_interval_s >= 0:
            raise ValueError(f"max_interval_s {max_interval_s} must not be negative")
        self._max = max_interval_s
        self._interval = 0.0
        self._from: Face | None = None
        self._to: Face | None = None
        self._time = 0.0

    def add(self, face: Face, now: float) -> None:
        """A new face came in."""
        if self._to is None:
            self._from = face
        else:
            self._from = self.at(now)
            gap = min(max(now - self._time, 0.0), self._max)
            # The first interval is taken as it is, later ones count for a fifth.
            self._interval += (gap - self._interval) * (0.2 if self._interval else 1.0)
        self._to, self._time = face, now

    def at(self, now: float) -> Face | None:
        """The face at a time; None before the first."""
        if self._from is None or self._to is None:
            return None
        if self._interval <= 0:
            return self._to
        return blend_faces(self._from, self._to, (now - self._time) / self._interval)

    def arrived(self, now: float) -> bool:
        """Whether the newest face is reached: later pictures are the same."""
        return now - self._time >= self._interval
