"""Steady head poses: what trembles is averaged over time, what moves is left alone.

A bilateral filter (Tomasi and Manduchi, 1998) along the clip. Each pose becomes the mean of those
around it, weighted by nearness in time and by likeness of pose. Poses count in pairs, one before
and one after, with the less alike one's weight: a steady turn is not bent, and a sudden one is not
begun early.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation
from torch import Tensor

from cag_avatar.errors import InputError

__all__ = ["SteadyConfig", "steady_poses"]


@dataclass(frozen=True)
class SteadyConfig:
    """How far poses tremble. Deviations of the weights."""

    frames: float = 3.0
    """Nearness in time; 0 leaves the poses as they are."""
    rotation: float = 0.014
    """Likeness of rotations, radians: three times what a fitted head trembles."""
    sideways: float = 0.0015
    """Likeness of translations across the view, metres."""
    depth: float = 0.006
    """Likeness of translations along the view, metres."""

    def __post_init__(self) -> None:
        if self.frames < 0 or not min(self.rotation, self.sideways, self.depth) > 0:
            raise InputError("steady: frames must not be negative, the deviations positive")


def steady_poses(
    rotation: Tensor,
    translation: Tensor,
    runs: Iterable[tuple[int, int]],
    config: SteadyConfig | None = None,
) -> tuple[Tensor, Tensor]:
    """Average poses with like ones near in time.

    Args:
        rotation: canonical to camera space, [T, 3, 3].
        translation: metres, camera space (x right, y down, z along the view), [T, 3].
        runs: ranges [first, end) of frames that follow each other; the others stay.
        config: weights.

    Returns:
        Rotation [T, 3, 3] and translation [T, 3], of the same dtypes.
    """
    settings = config or SteadyConfig()
    turned, moved = rotation.double().numpy().copy(), translation.double().numpy().copy()
    for first, end in runs:
        if settings.frames > 0 and end - first > 2:
            turned[first:end], moved[first:end] = _steady(
                turned[first:end], moved[first:end], settings
            )
    return torch.from_numpy(turned).to(rotation), torch.from_numpy(moved).to(translation)


def _steady(
    rotation: NDArray[np.float64], translation: NDArray[np.float64], config: SteadyConfig
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    poses = Rotation.from_matrix(rotation)
    count = len(rotation)
    spread = np.array([config.sideways, config.sideways, config.depth])
    turns, shifts, total = np.zeros((count, 3)), np.zeros((count, 3)), np.ones(count)
    for distance in range(1, min(int(3 * config.frames) + 1, (count - 1) // 2 + 1)):
        middle = np.arange(distance, count - distance)
        pair = []
        for other in (middle - distance, middle + distance):
            turn = (poses[middle].inv() * poses[other]).as_rotvec()
            shift = translation[other] - translation[middle]
            unlike = (turn**2).sum(1) / config.rotation**2 + ((shift / spread) ** 2).sum(1)
            pair.append((turn, shift, unlike))
        unlike = np.maximum(pair[0][2], pair[1][2])
        weight = np.exp(-0.5 * ((distance / config.frames) ** 2 + unlike))
        for turn, shift, _ in pair:
            turns[middle] += weight[:, None] * turn
            shifts[middle] += weight[:, None] * shift
        total[middle] += 2 * weight
    steady = poses * Rotation.from_rotvec(turns / total[:, None])
    return steady.as_matrix(), translation + shifts / total[:, None]
