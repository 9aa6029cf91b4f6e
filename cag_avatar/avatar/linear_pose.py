"""The small algebra of a live frame: driving values and joint transforms of a code and two poses.

In torch it is a hundred operations on 4 x 4 matrices, which take longer than drawing; for the usual
head model numpy does the same in a few.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cag_avatar.head_models.arkit import ARKIT_INDEX, MAX_GAZE_PITCH, MAX_GAZE_YAW
from cag_avatar.rotations import rotation_matrix, rotation_vector

__all__ = ["LinearPose", "LivePose"]

Array = NDArray[np.float32]


class LivePose(ABC):
    """What a frame's code and poses mean for one avatar."""

    @abstractmethod
    def drive(self, code: Array, head_pose: Array, torso_pose: Array) -> tuple[Array, Array]:
        """What the fusion's tokens say, and where the joints are.

        Args:
            code: expression code, [E].
            head_pose: canonical to camera space, [4, 4].
            torso_pose: canonical to camera space, [4, 4].

        Returns:
            Token values [heads, T, head_size] of cross-attention, else the context of all Gaussians
            [C]; and joint transforms, canonical to camera space, [J, 3, 4].
        """

    def canonical(self, code: Array) -> Array:
        """Vertices of the head with an expression, before the joints move them, [V, 3] metres; only
        asked of head models whose expression ``frame.c`` does not add itself."""
        raise NotImplementedError


@dataclass(frozen=True, eq=False)
class LinearPose(LivePose):
    """The same as LinearHeadModel.joint_transforms() and driving_values()."""

    neutral: Array
    """Code of the rest head, [52]."""
    neck: bool
    """Whether the bend of the neck is part of the driving values."""
    pivot: NDArray[np.float64]
    """That the neck turns about, [3], metres."""
    centres: NDArray[np.float64]
    """Of the eyeballs, [2, 3], metres."""
    embedding: Array | None
    """Token values [heads, T, head_size] of ones; None: the driving values are the context."""

    def drive(self, code: Array, head_pose: Array, torso_pose: Array) -> tuple[Array, Array]:
        head, torso = head_pose.astype(np.float64), torso_pose.astype(np.float64)
        bend = rotation_vector(torso[:3, :3].T @ head[:3, :3])
        gaze = _gaze(code)
        half, *eyes = (rotation_matrix(v) for v in (bend / 2, *gaze))
        joints = np.empty((5, 3, 4), np.float32)
        joints[0], joints[2] = torso[:3], head[:3]
        turn = torso[:3, :3] @ half
        both = (torso[:3] + head[:3]) / 2
        joints[1, :, :3] = turn
        joints[1, :, 3] = both[:, :3] @ self.pivot + both[:, 3] - turn @ self.pivot
        for index, (eye, centre) in enumerate(zip(eyes, self.centres, strict=True), start=3):
            turn = head[:3, :3] @ eye
            joints[index, :, :3] = turn
            joints[index, :, 3] = head[:3, :3] @ (centre - eye @ centre) + head[:3, 3]
        tokens = code - self.neutral
        if self.neck:
            tokens = np.concatenate([tokens, bend.astype(np.float32)])
        values = tokens if self.embedding is None else tokens[None, :, None] * self.embedding
        return np.asarray(values, np.float32), joints


_PITCH_DOWN = [ARKIT_INDEX[f"eyeLookDown{side}"] for side in ("Left", "Right")]
_PITCH_UP = [ARKIT_INDEX[f"eyeLookUp{side}"] for side in ("Left", "Right")]
_YAW_LEFT = [ARKIT_INDEX[name] for name in ("eyeLookOutLeft", "eyeLookInRight")]
_YAW_RIGHT = [ARKIT_INDEX[name] for name in ("eyeLookInLeft", "eyeLookOutRight")]


def _gaze(code: Array) -> NDArray[np.float64]:
    """head_models.linear.arkit_gaze() of one code [52]: [2, 3]."""
    turns = np.zeros((2, 3))
    turns[:, 0] = (code[_PITCH_DOWN] - code[_PITCH_UP]) * MAX_GAZE_PITCH
    turns[:, 1] = (code[_YAW_LEFT] - code[_YAW_RIGHT]) * MAX_GAZE_YAW
    return turns
