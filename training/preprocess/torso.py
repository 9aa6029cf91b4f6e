"""Stage: the torso's pose in every frame, and the regions of the drawn head."""

from __future__ import annotations

import itertools
from contextlib import ExitStack

import cv2
import numpy as np
from cag_avatar_training.preprocess.crop import COMMIT_EVERY
from cag_avatar_training.preprocess.frame_store import FrameStore
from cag_avatar_training.preprocess.parallel import ordered_map
from cag_avatar_training.preprocess.workspace import StageStore
from cag_avatar_training.progress import Advance
from numpy.typing import NDArray

from cag_avatar.head_models.base import REGIONS
from cag_avatar.tracking.clip_fit import ClipFit
from cag_avatar.tracking.torso import torso_poses

__all__ = ["NOTHING", "follow_torso"]

#: Stands for "no region" in the labels.
NOTHING = 255
_NO_HEAD = np.array([REGIONS.index("shoulders"), REGIONS.index("neck"), NOTHING])


def follow_torso(
    fit: ClipFit,
    images: FrameStore,
    alphas: FrameStore,
    stage: StageStore,
    advance: Advance,
    resources: ExitStack,
) -> tuple[NDArray[np.float32], FrameStore]:
    """Torso poses, and the region of the fitted mesh at each pixel.

    The mesh is drawn for the torso's sake and labels the parts of the face later.

    Returns:
        Canonical to camera space, [T, 4, 4] (see :func:`cag_avatar.tracking.torso.torso_poses`),
        and frames [S, S] of indices into REGIONS, NOTHING where there is none.
    """
    labels = resources.enter_context(FrameStore(stage.folder / "labels.grey", alphas.shape))
    if not stage.whole:
        drawn = ordered_map(fit.labels, range(stage.done, fit.count))
        for t, regions in enumerate(drawn, stage.done):
            labels.write(t, np.where(regions >= 0, regions, NOTHING).astype(np.uint8))
            advance((t + 1) // 2)
            if (t + 1) % COMMIT_EVERY == 0:
                stage.commit(t + 1)
        poses = _poses(fit, images, alphas, labels, advance)
        stage.save("poses", {"torso_pose": poses.astype(np.float32)})
        stage.commit(fit.count, whole=True)
    return stage.load("poses")[0]["torso_pose"], labels


def _poses(
    fit: ClipFit, images: FrameStore, alphas: FrameStore, labels: FrameStore, advance: Advance
) -> NDArray[np.float64]:
    done = itertools.count(1)

    def grey(frame: int) -> NDArray[np.uint8]:
        advance((fit.count + next(done)) // 2)
        return cv2.cvtColor(images[frame], cv2.COLOR_RGB2GRAY)  # type: ignore[return-value]

    def mask(frame: int) -> NDArray[np.uint8]:
        head = ~np.isin(labels[frame], _NO_HEAD)
        head = cv2.dilate(head.astype(np.uint8), np.ones((25, 25), np.uint8)) > 0
        bottom = np.flatnonzero(head.any(1)).max(initial=0)
        rows = np.arange(len(head))[:, None]
        below = rows > 0.5 * bottom
        return np.where((alphas[frame] > 200) & ~head & below, 255, 0).astype(np.uint8)

    camera = fit.camera
    head_pose = fit.state.head_pose().double().numpy()
    return torso_poses(grey, mask, head_pose, camera.fx, (camera.cx, camera.cy))
