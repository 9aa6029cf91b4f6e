"""What an avatar keeps of the motion it was trained on."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from cag_avatar_training.dataset import Dataset
from cag_avatar_training.motion import Motion
from numpy.typing import NDArray
from torch import Tensor

from cag_avatar.avatar.code_distribution import CodeDistribution
from cag_avatar.avatar.driver import CodeLayout, resting_code
from cag_avatar.avatar.record import CaptureRecord
from cag_avatar.geometry import matrix_to_rotation_vector
from cag_avatar.head_models import HeadModel

__all__ = ["capture_record", "neutral_frame"]


def _motion_from(poses: Tensor, neutral: Tensor) -> NDArray[np.float64]:
    """Rotation vectors and translations [T, 6] of poses [T, 4, 4] since ``neutral`` [4, 4]."""
    turn = poses[:, :3, :3] @ neutral[:3, :3].T
    vectors = matrix_to_rotation_vector(turn)
    shift = poses[:, :3, 3] - neutral[:3, 3]
    return np.concatenate([vectors.numpy(), shift.numpy()], 1)


def neutral_frame(motion: Motion, frames: Sequence[int], neutral_code: Tensor | None = None) -> int:
    """The frame whose head is closest to the median pose while its face is quiet.

    Distance in radians plus metres / 0.1, plus a tenth of the sum of the coefficients'
    distances from ``neutral_code`` [E] (zero if None).
    """
    poses = motion.head_pose[list(frames)].double()
    relative = _motion_from(poses, poses[0])
    relative -= np.median(relative, axis=0)
    distance = (
        np.linalg.norm(relative[:, :3], axis=1) + np.linalg.norm(relative[:, 3:], axis=1) * 10
    )
    codes = motion.codes[list(frames)]
    change = codes if neutral_code is None else codes - neutral_code.to(codes)
    quiet = change.double().abs().sum(1).numpy()
    return list(frames)[int(np.argmin(distance + 0.1 * quiet))]


def capture_record(
    dataset: Dataset,
    motion: Motion,
    frames: Sequence[int],
    background: tuple[float, float, float],
    head: HeadModel,
) -> CaptureRecord:
    """Camera, neutral poses, ranges and the distribution of the codes of the frames trained on."""
    motion = motion.cpu()
    neutral = neutral_frame(motion, frames, head.neutral_code)
    codes = motion.codes[list(frames)].double().numpy()
    poses = motion.head_pose[list(frames)].double()
    relative = _motion_from(poses, motion.head_pose[neutral].double())
    return CaptureRecord(
        camera=dataset.info.camera,
        neutral_head_pose=motion.head_pose[neutral].double().numpy(),
        neutral_torso_pose=motion.torso_pose[neutral].double().numpy(),
        code_min=np.percentile(codes, 1, axis=0),
        code_max=np.percentile(codes, 99, axis=0),
        pose_min=np.minimum(np.percentile(relative, 1, axis=0), 0.0),
        pose_max=np.maximum(np.percentile(relative, 99, axis=0), 0.0),
        background=background,
        distribution=CodeDistribution.of(codes, resting_code(codes, CodeLayout.of(head))),
    )
