"""The torso's own pose: features on the clothes, followed from one reference frame."""

from __future__ import annotations

import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter1d

__all__ = ["torso_poses"]

_LOG = logging.getLogger(__name__)

_MIN_INLIERS = 8
_WINDOW = (21, 21)
_LEVELS = 3
_STOP = (cv2.TERM_CRITERIA_EPS | cv2.TERM_CRITERIA_COUNT, 20, 0.01)


def torso_poses(
    frame: Callable[[int], NDArray[np.uint8]],
    mask: Callable[[int], NDArray[np.uint8]],
    head_pose: NDArray[np.float64],
    focal: float,
    centre: tuple[float, float],
) -> NDArray[np.float64]:
    """Pose of the torso in every frame.

    The torso starts from the median head pose, so that the neck is straight there, and moves by the
    similarity transform of its picture (shift, turn about the optical axis, change of distance).
    Where too few features are followed, the pose of the nearest good frame is used, and logged.

    Args:
        frame: grey image [H, W] uint8 of a frame; called from two threads.
        mask: torso mask [H, W] uint8 of a frame, 255 where there is torso.
        head_pose: canonical to camera space, [T, 4, 4].
        focal: focal length in pixels of those images.
        centre: principal point in pixels.

    Returns:
        Canonical to camera space, [T, 4, 4].
    """
    total = len(head_pose)
    base, reference = _median_pose(head_pose)
    similarity = np.tile(np.array([1.0, 0.0, 0.0, 0.0]), (total, 1))  # a, b, tx, ty
    good = np.zeros(total, dtype=bool)
    first = frame(reference)
    features = cv2.goodFeaturesToTrack(
        first, 300, 0.005, 5, mask=cv2.erode(mask(reference), np.ones((9, 9), np.uint8))
    )
    if features is None or len(features) < _MIN_INLIERS:
        _LOG.warning("torso: no texture to follow below the head; the torso stays still")
        return np.tile(base, (total, 1, 1))
    points = features[:, 0].astype(np.float32)
    good[reference] = True

    def follow(order: range) -> None:
        current = similarity[reference]
        for t in order:
            found = _follow(first, frame(t), points, current)
            if found is not None:
                current = found
                good[t] = True
            similarity[t] = current

    with ThreadPoolExecutor(2) as pool:  # forwards and backwards from the reference
        list(pool.map(follow, (range(reference + 1, total), range(reference - 1, -1, -1))))
    if not good.all():
        _LOG.warning("torso: followed in %d of %d frames, held in the others", good.sum(), total)
    similarity = gaussian_filter1d(similarity, 0.8, axis=0, mode="nearest")
    return _lift(similarity, base, focal, centre)


def _median_pose(head_pose: NDArray[np.float64]) -> tuple[NDArray[np.float64], int]:
    u, _, vt = np.linalg.svd(head_pose[:, :3, :3].mean(0))
    base = np.eye(4)
    base[:3, :3] = u @ vt
    base[:3, 3] = np.median(head_pose[:, :3, 3], axis=0)
    turn = np.linalg.norm(head_pose[:, :3, :3] - base[:3, :3], axis=(1, 2))
    shift = np.linalg.norm(head_pose[:, :3, 3] - base[:3, 3], axis=1)
    return base, int(np.argmin(turn + 10 * shift))


def _follow(
    first: NDArray[np.uint8],
    image: NDArray[np.uint8],
    points: NDArray[np.float32],
    start: NDArray[np.float64],
) -> NDArray[np.float64] | None:
    """Similarity (a, b, tx, ty), x' = a x - b y + tx, from ``first`` to ``image``; None if lost."""
    a, b, tx, ty = start
    guess = np.stack(
        [a * points[:, 0] - b * points[:, 1] + tx, b * points[:, 0] + a * points[:, 1] + ty], 1
    ).astype(np.float32)
    there, status = _flow(first, image, points, guess)
    back, status2 = _flow(image, first, there, points)
    ok = status & status2 & (np.linalg.norm(back - points, axis=1) < 1.0)
    if ok.sum() < _MIN_INLIERS:
        return None
    matrix, inliers = cv2.estimateAffinePartial2D(
        points[ok], there[ok], method=cv2.RANSAC, ransacReprojThreshold=2.0
    )
    if matrix is None or inliers.sum() < _MIN_INLIERS:
        return None
    scale = float(np.hypot(matrix[0, 0], matrix[1, 0]))
    if not 0.7 < scale < 1.4:
        return None
    return np.array([matrix[0, 0], matrix[1, 0], matrix[0, 2], matrix[1, 2]])


def _flow(
    first: NDArray[np.uint8],
    second: NDArray[np.uint8],
    points: NDArray[np.float32],
    guess: NDArray[np.float32],
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Where points of ``first`` lie in ``second`` (pyramidal Lucas-Kanade); which were found."""
    there, status, _ = cv2.calcOpticalFlowPyrLK(
        first, second, points, guess.copy(), winSize=_WINDOW, maxLevel=_LEVELS, criteria=_STOP,
        flags=cv2.OPTFLOW_USE_INITIAL_FLOW,
    )  # fmt: skip
    return np.asarray(there, np.float32), status[:, 0] == 1


def _lift(
    similarity: NDArray[np.float64],
    base: NDArray[np.float64],
    focal: float,
    centre: tuple[float, float],
) -> NDArray[np.float64]:
    """Rigid motions of the base pose whose pictures move by the similarities."""
    # Below the head by 20 cm: about the middle of the visible torso.
    anchor = base[:3, :3] @ np.array([0.0, -0.2, -0.08]) + base[:3, 3]
    pixel = anchor[:2] / anchor[2] * focal + np.array(centre)
    poses = np.tile(base, (len(similarity), 1, 1))
    for t, (a, b, tx, ty) in enumerate(similarity):
        scale, roll = np.hypot(a, b), np.arctan2(b, a)
        moved = np.array([a * pixel[0] - b * pixel[1] + tx, b * pixel[0] + a * pixel[1] + ty])
        depth = anchor[2] / scale
        goal = np.append((moved - np.array(centre)) / focal * depth, depth)
        turn = np.array(
            [[np.cos(roll), -np.sin(roll), 0], [np.sin(roll), np.cos(roll), 0], [0, 0, 1]]
        )
        poses[t, :3, :3] = turn @ base[:3, :3]
        poses[t, :3, 3] = goal + turn @ (base[:3, 3] - anchor)
    return poses
