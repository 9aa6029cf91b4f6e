"""Driving an avatar with another person's motion."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from cag_avatar.avatar.code_distribution import soft_clamp
from cag_avatar.avatar.driver import CodeLayout, DriverProfile
from cag_avatar.avatar.record import CaptureRecord
from cag_avatar.errors import InputError
from cag_avatar.rotations import rotation_matrix, rotation_vector

__all__ = [
    "Gaze",
    "Retargeting",
    "avatar_rest",
    "retarget_code",
    "retarget_head_pose",
    "soft_clamp",
    "transfer_code",
]

Gaze = Literal["follow", "none"]


@dataclass(frozen=True)
class Retargeting:
    """How far outside the avatar's training range a driver may take it."""

    code_margin: float = 0.15
    """Coefficients beyond the range seen in training, at most."""
    component_margin: float = 1.0
    """Principal components of the code beyond the range seen in training, in their standard
    deviations, at most."""
    residual_margin: float = 0.3
    """Distance of the code from the subspace of the training codes beyond that seen in training, in
    coefficients, at most."""
    max_gain: float = 1.25
    """Largest factor (and one over the smallest) that maps the driver's reach to the avatar's; 1
    leaves the reach as it is."""
    blink_gain: float = 2.0
    """The same for eyeBlink: a closed eye is one whoever it belongs to, at .45 for one fitted head
    and at .9 for another."""
    rotation_margin: float = 0.15
    """Head rotation beyond the range seen in training, radians, at most."""
    translation_margin: float = 0.02
    """Head translation beyond the range seen in training, metres, at most."""
    translation_gain: float = 1.0
    """Factor on the operator's translation; 0 keeps the head in place."""

    def __post_init__(self) -> None:
        for name in (
            "code_margin", "component_margin", "residual_margin", "rotation_margin",
            "translation_margin", "translation_gain",
        ):  # fmt: skip
            if not getattr(self, name) >= 0:
                raise InputError(f"retargeting: {name} must not be negative")
        for name in ("max_gain", "blink_gain"):
            if not getattr(self, name) >= 1:
                raise InputError(f"retargeting: {name} {getattr(self, name)} must be at least 1")


def avatar_rest(record: CaptureRecord, layout: CodeLayout) -> NDArray[np.float64]:
    """The avatar's own code at rest, [E]; of a file from before it was kept the head model's
    neutral code, moved into the range seen in training (gaze straight ahead)."""
    if record.distribution is not None:
        return record.distribution.rest
    inside = np.clip(layout.neutral, record.code_min, record.code_max)
    return np.where(layout.gaze, layout.neutral, inside)


def transfer_code(
    code: NDArray[np.floating],
    driver: DriverProfile | None,
    record: CaptureRecord,
    layout: CodeLayout,
    settings: Retargeting | None = None,
    gaze: Gaze = "follow",
) -> NDArray[np.float32]:
    """A driver's code [E] as the avatar's: what changed since the driver's rest is added to the
    avatar's own rest, and the result kept near the codes seen in training.

    Gaze is a direction, not a change: it is taken as it is.

    Args:
        code: the driver's, [E].
        driver: their rest and reach; None takes the code as it is, and only keeps it near.
        record: of the avatar.
        layout: of the codes.
        settings: margins.
        gaze: ``none`` leaves the avatar's eyes at rest.

    Returns:
        Code of the avatar within the layout's bounds, float32 [E].
    """
    settings = settings or Retargeting()
    rest = avatar_rest(record, layout)
    values = np.asarray(code, np.float64)
    if driver is not None:
        gain = driver.gain(
            layout, rest, record.code_max, settings.max_gain, blink_limit=settings.blink_gain
        )
        moved = rest + gain * (values - driver.rest)
        values = np.where(layout.gaze, values, moved)
    if gaze == "none":
        values = np.where(layout.gaze, rest, values)
    # Within the bounds before it is measured: a coefficient below zero is no expression.
    values = np.clip(values, layout.low, layout.high)
    held = retarget_code(values, record, settings, layout.neutral)
    return np.clip(held, layout.low, layout.high).astype(np.float32)


def retarget_code(
    code: NDArray[np.floating],
    record: CaptureRecord,
    settings: Retargeting | None = None,
    neutral: NDArray[np.floating] | float = 0.0,
) -> NDArray[np.float32]:
    """Keep a code [E] near those seen in training; returns float32 [E].

    First in the principal components of the training codes, if the record has them, then
    coefficient by coefficient. Coefficients that training never saw are held close to ``neutral``
    [E], because the network has never learned what they look like; the mesh still moves by what is
    left.
    """
    settings = settings or Retargeting()
    values = np.asarray(code, dtype=np.float64)
    if record.distribution is not None:
        values = record.distribution.clamp(
            values, settings.component_margin, settings.residual_margin
        )
    low, high = np.minimum(record.code_min, neutral), np.maximum(record.code_max, neutral)
    return soft_clamp(values, low, high, settings.code_margin).astype(np.float32)


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
    vector = rotation_vector(pose[:3, :3] @ neutral[:3, :3].T)
    home = record.neutral_head_pose
    distance = home[2, 3] / neutral[2, 3] if neutral[2, 3] > 0.05 else 1.0
    shift = (pose[:3, 3] - neutral[:3, 3]) * distance * settings.translation_gain
    margin = np.repeat([settings.rotation_margin, settings.translation_margin], 3)
    motion = soft_clamp(np.concatenate([vector, shift]), record.pose_min, record.pose_max, margin)
    result = home.copy()
    result[:3, :3] = rotation_matrix(motion[:3]) @ home[:3, :3]
    result[:3, 3] = home[:3, 3] + motion[3:]
    return result
