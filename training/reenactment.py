"""Drive an avatar by a dataset or a video, and write the result as a video."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np
from cag_avatar_training.dataset import Dataset
from cag_avatar_training.video import probe_video, read_frames
from numpy.typing import NDArray

from cag_avatar.avatar.animator import Animator
from cag_avatar.errors import InputError
from cag_avatar.files import replacing
from cag_avatar.tracking.estimator import ExpressionEstimator

__all__ = ["reenact"]


def reenact(
    animator: Animator,
    drive: Path | str,
    output: Path | str,
    progress: Callable[[int, int], None] | None = None,
) -> int:
    """Render an avatar with the motion of ``drive``; a dataset's poses are taken as they are.

    Args:
        animator: the avatar.
        drive: dataset folder, or video of an operator (shown beside the avatar).
        output: MP4 to write.
        progress: called with (frames done, frames announced).

    Returns:
        Number of frames written.

    Raises:
        InputError: ``drive`` is neither, or OpenCV cannot write MP4 here.
    """
    drive, output = Path(drive), Path(output)
    if drive.is_dir():
        dataset = Dataset.open(drive)
        fps, total = dataset.info.fps, len(dataset)
        frames = _from_dataset(animator, dataset)
    else:
        info = probe_video(drive)
        fps, total = info.fps, info.frames
        frames = _from_video(animator, drive)
    written = 0
    with replacing(output) as temporary:
        writer: cv2.VideoWriter | None = None
        try:
            for image in frames:
                if writer is None:
                    size = (image.shape[1], image.shape[0])
                    fourcc = cv2.VideoWriter.fourcc(*"mp4v")
                    writer = cv2.VideoWriter(str(temporary), fourcc, fps, size)
                    if not writer.isOpened():
                        raise InputError(f"{output}: OpenCV cannot write it; name a .mp4 file")
                writer.write(cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
                written += 1
                if progress is not None:
                    progress(written, max(total, written))
        finally:
            if writer is not None:
                writer.release()
        if written == 0:
            raise InputError(f"{drive}: no frame to drive the avatar with")
    return written


def _from_dataset(animator: Animator, dataset: Dataset) -> Iterator[NDArray[np.uint8]]:
    tracking = dataset.tracking
    for index in range(len(dataset)):
        yield animator.render(
            tracking.codes[index], tracking.head_pose[index], tracking.torso_pose[index]
        )


def _from_video(animator: Animator, video: Path) -> Iterator[NDArray[np.uint8]]:
    info = probe_video(video)
    height, width = animator.camera.height, animator.camera.width
    neutral: NDArray[np.float64] | None = None
    with ExpressionEstimator() as estimator:
        calibrated = False
        for index, image in enumerate(read_frames(info)):
            estimate = estimator.estimate(image, round(index / info.fps * 1e9))
            if estimator.calibrated and not calibrated:
                calibrated, neutral = True, None  # another shape and focal length: rest again
            if estimate.is_valid and neutral is None:
                neutral = estimate.head_pose
            pose = estimate.head_pose if estimate.is_valid else None
            code = animator.code_of_arkit(estimate.code)
            shown = animator.render_relative(code, pose, neutral)
            side = cv2.resize(image, (round(info.width * height / info.height), height))
            yield np.ascontiguousarray(np.concatenate([side, shown[:, :width]], 1))
