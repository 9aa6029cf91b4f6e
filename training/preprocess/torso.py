"""Stage: the torso's pose in every frame."""

from __future__ import annotations

import cv2
import numpy as np
from cag_avatar_training.preprocess.frame_store import FrameStore
from cag_avatar_training.preprocess.workspace import StageStore
from cag_avatar_training.progress import Advance
from numpy.typing import NDArray

from cag_avatar.head_models.base import REGIONS
from cag_avatar.tracking.clip_fit import ClipFit
from cag_avatar.tracking.torso import torso_poses

__all__ = ["follow_torso"]

_TORSO = np.array([REGIONS.index("shoulders"), REGIONS.index("neck")])


def follow_torso(
    fit: ClipFit, images: FrameStore, alphas: FrameStore, stage: StageStore, advance: Advance
) -> NDArray[np.float32]:
    """Canonical to camera space, [T, 4, 4]; see :func:`cag_avatar.tracking.torso.torso_poses`."""
    if not stage.whole:
        poses = _poses(fit, images, alphas, advance)
        stage.save("poses", {"torso_pose": poses.astype(np.float32)})
        stage.commit(len(poses), whole=True)
    return stage.load("poses")[0]["torso_pose"]


def _poses(
    fit: ClipFit, images: FrameStore, alphas: FrameStore, advance: Advance
) -> NDArray[np.float64]:
    done = 0

    def grey(frame: int) -> NDArray[np.uint8]:
        nonlocal done
        advance(done := done + 1)
        return cv2.cvtColor(images[frame], cv2.COLOR_RGB2GRAY)  # type: ignore[return-value]

    def mask(frame: int) -> NDArray[np.uint8]:
        labels = fit.labels(frame)
        head = (labels >= 0) & ~np.isin(labels, _TORSO)
        head = cv2.dilate(head.astype(np.uint8), np.ones((25, 25), np.uint8)) > 0
        bottom = np.flatnonzero(head.any(1)).max(initial=0)
        rows = np.arange(len(labels))[:, None]
        below = rows > 0.5 * bottom
        return np.where((alphas[frame] > 200) & ~head & below, 255, 0).astype(np.uint8)

    camera = fit.camera
    head_pose = fit.state.head_pose().double().numpy()
    return torso_poses(grey, mask, head_pose, camera.fx, (camera.cx, camera.cy))
