"""Driving an avatar with another person's motion."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from cag_avatar.avatar.record import CaptureRecord
from cag_avatar.geometry import matrix_to_rotation_vector, rotation_vector_to_matrix

__all__ = ["Retargeting", "retarget_code", "retarget_head_pose", "soft_clamp"]


@dataclass(frozen=True)
class Retargeting:
    """How far outside the avatar's training range a driver may take it."""

    code_margin: float = 0.15
    """Coefficients beyond the range seen in training, at most."""
    rotation_margin: float = 0.15
    """Head rotation beyond the range seen in training, radians, at most."""
    translation_margin: float = 0.02
    """Head translation beyond the range seen in training, metres, at most."""
    translation_gain: float = 1.0
    """Factor on the operator's translation; 0 keeps the head in place."""


def soft_clamp(
    values: NDArray[np.float64],
    low: NDArray[np.float64],
    high: NDArray[np.float64],
    margin: NDArray[np.float64] | float,
) -> NDArray[np.float64]:
    """Identity inside [low, high]; beyond, the excess bends towards ``margin``, smoothly."""
    inside = np.clip(values, low, high)
    safe = np.maximum(margin, 1e-9)
    return inside + safe * np.tanh((values - inside) / safe)


def retarget_code(
    code: NDArray[np.floating],
    record: CaptureRecord,
    settings: Retargeting | None = None,
    neutral: NDArray[np.floating] | float = 0.0,
) -> NDArray[np.float32]:
    """Keep a code [E] near the range seen in training; returns float32 [E].

    Coefficients that training never saw are held close to ``neutral`` [E], because the network has
    never learned what they look like; the mesh still moves by what is left.
    """
    settings = settings or Retargeting()
    low, high = np.minimum(record.code_min, neutral), np.maximum(record.code_max, neutral)
    return soft_clamp(np.asarray(code, dtype=np.float64), low, high, settings.code_margin).astype(
        np.float32
    )


def retarget_head_pose(
    pose: NDArray[np.float64],
    neutral: NDArray[np.float64],
    record: CaptureRecord,
    settings: Retargeting | None = None,
) -> NDArray[np.float64]:
    """Move the avatar's head as the operator moved theirs.

    The operator's rotation since their neutral pose (camera axes) is applied to the avatar's
    neutral pose. The translation is scaled by the ratio of the two distances to the camera, so
    that the motion in the image is the same. Both stay near the range seen in training.

    Args:
        pose: the operator's head pose now, head to camera (OpenCV axes), metres, [4, 4].
        neutral: the operator's head pose at rest, [4, 4].
        record: of the avatar.
        settings: margins and gain.

    Returns:
        Head pose of the avatar, [4, 4] float64.
    """
    settings = settings or Retargeting()
    turn = torch.from_numpy(pose[:3, :3] @ neutral[:3, :3].T)
    vector = matrix_to_rotation_vector(turn).numpy()
    home = record.neutral_head_pose
    distance = home[2, 3] / neutral[2, 3] if neutral[2, 3] > 0.05 else 1.0
    shift = (pose[:3, 3] - neutral[:3, 3]) * distance * settings.translation_gain
    margin = np.repeat([settings.rotation_margin, settings.translation_margin], 3)
    motion = soft_clamp(np.concatenate([vector, shift]), record.pose_min, record.pose_max, margin)
    result = home.copy()
    result[:3, :3] = rotation_vector_to_matrix(torch.from_numpy(motion[:3])).numpy() @ home[:3, :3]
    result[:3, 3] = home[:3, 3] + motion[3:]
    return result
