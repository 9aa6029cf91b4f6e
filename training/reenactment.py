"""Drive an avatar by a dataset or a video, and write the result as a video."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import cv2
import numpy as np
from cag_avatar_training.dataset import Dataset
from cag_avatar_training.regressor.readings import read_faces
from cag_avatar_training.video import VideoInfo, probe_video, read_frames
from numpy.typing import NDArray

from cag_avatar.avatar.animator import Animator
from cag_avatar.avatar.driver import measure_driver
from cag_avatar.avatar.retargeting import Gaze, Retargeting
from cag_avatar.errors import InputError
from cag_avatar.files import replacing
from cag_avatar.head_models import ARKIT_NAMES, load_head_model
from cag_avatar.tracking.estimator import ExpressionEstimator, FaceEstimate

__all__ = ["DriveConfig", "Expression", "Head", "Regressor", "is_own_dataset", "reenact"]

_LOG = logging.getLogger(__name__)

Expression = Literal["auto", "relative", "absolute"]
Head = Literal["auto", "relative", "absolute", "none"]
Regressor = Literal["auto", "on", "off"]

#: Root mean square distance (metres) of two rest heads that are one and the same fit.
_SAME_FIT = 2e-4


@dataclass(frozen=True)
class DriveConfig:
    """How a driver moves an avatar."""

    expression: Expression = "auto"
    """``relative``: what changes in the driver's face since its rest is added to the avatar's own
    rest; ``absolute``: codes are taken as they are. ``auto``: absolute for the avatar's own
    dataset, else relative."""
    head: Head = "auto"
    """``relative``: the head moves from its own rest pose as the driver's does from theirs;
    ``absolute``: it takes the driver's pose; ``none``: it rests. ``auto`` as for expression."""
    gaze: Gaze = "follow"
    """``follow``: the eyes look where the driver's look, relative to the head; ``none``: ahead."""
    regressor: Regressor = "auto"
    """Codes by the avatar's own regressor, which only knows the avatar's person: ``on`` says that
    it is they who drive; ``auto``: for a video of the name that the avatar was made from, or whose
    face is that of the avatar; a dataset's own codes are kept then."""
    retargeting: Retargeting = field(default_factory=Retargeting)
    """Margins and gains."""


@dataclass(frozen=True)
class _Clip:
    """The motion of a driver, T frames, in codes of the avatar."""

    codes: NDArray[np.float64]
    """[T, E]."""
    poses: NDArray[np.float64]
    """Head poses, [T, 4, 4]."""


def is_own_dataset(animator: Animator, dataset: Dataset) -> bool:
    """Whether a dataset is the one that the avatar was trained on: the same fitted head."""
    if dataset.info.code_names != animator.expression_names:
        return False
    tracking = dataset.tracking
    ours = animator.rest_vertices
    if tracking.vertex_offsets.shape != ours.shape:
        return False
    # The avatar keeps no identity components, so the dataset's head is built anew.
    head = load_head_model(dataset.info.head_model)
    theirs = head.identity_basis.numpy().reshape(head.num_identity, -1)
    rest = head.vertices.numpy() + (tracking.identity @ theirs).reshape(-1, 3)
    offset = rest + tracking.vertex_offsets - ours
    return bool(np.sqrt(np.square(offset).sum(1).mean()) < _SAME_FIT)


def reenact(
    animator: Animator,
    drive: Path | str,
    output: Path | str,
    progress: Callable[[int, int], None] | None = None,
    config: DriveConfig | None = None,
) -> int:
    """Render an avatar with the motion of ``drive``.

    A video is looked at twice: the driver's rest is found over the whole of it.

    Args:
        animator: the avatar.
        drive: dataset folder, or video of an operator (shown beside the avatar).
        output: MP4 to write.
        progress: called with (frames done, frames announced).
        config: how; by default the avatar's own dataset as it is, everybody else relative to their
            rest.

    Returns:
        Number of frames written.

    Raises:
        InputError: ``drive`` is neither, shows no face, is of another head model, or OpenCV cannot
            write MP4 here.
    """
    drive, output, config = Path(drive), Path(output), config or DriveConfig()
    report = progress or (lambda done, total: None)
    if drive.is_dir():
        dataset = Dataset.open(drive)
        fps, total, before = dataset.info.fps, len(dataset), 0
        frames = _from_dataset(animator, dataset, config)
    else:
        info = probe_video(drive)
        clip, relative = _watch(animator, info, config, report)
        fps, total = info.fps, len(clip.codes)
        before = total
        frames = _from_video(animator, info, clip, config, relative)
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
                report(before + written, before + max(total, written))
        finally:
            if writer is not None:
                writer.release()
        if written == 0:
            raise InputError(f"{drive}: no frame to drive the avatar with")
    return written


def _from_dataset(
    animator: Animator, dataset: Dataset, config: DriveConfig
) -> Iterator[NDArray[np.uint8]]:
    own = is_own_dataset(animator, dataset)
    expression, head = _decide(config, own)
    _LOG.info(
        "%s is %s: expression %s, head %s",
        dataset.path, "the avatar's own dataset" if own else "another person's", expression, head,
    )  # fmt: skip
    tracking = dataset.tracking
    codes = _dataset_codes(animator, dataset, config)
    clip = _Clip(codes, tracking.head_pose.astype(np.float64))
    if own and expression == "absolute" and config.gaze == "follow":
        shown = list(codes)
    else:
        shown = _transferred(animator, clip, config, expression == "relative")
    for index, pose in enumerate(_head_poses(animator, clip, config, head)):
        torso = tracking.torso_pose[index] if head == "absolute" else None
        yield animator.render(shown[index], pose, torso)


def _decide(config: DriveConfig, own: bool) -> tuple[Expression, Head]:
    by_default: Literal["relative", "absolute"] = "absolute" if own else "relative"
    expression = by_default if config.expression == "auto" else config.expression
    return expression, by_default if config.head == "auto" else config.head


def _dataset_codes(
    animator: Animator, dataset: Dataset, config: DriveConfig
) -> NDArray[np.float64]:
    """The dataset's codes as codes of the avatar, [T, E]."""
    regressor = animator.record.regressor
    if config.regressor == "on":
        if regressor is None:
            raise InputError(_NO_REGRESSOR)
        readings = read_faces(dataset)
        found = regressor.codes(readings.landmarks, readings.scores).astype(np.float64)
        return _filled(found, readings.frames, len(dataset))
    codes, names = dataset.tracking.codes, dataset.info.code_names
    if names == animator.expression_names:
        return codes.astype(np.float64)
    if names == ARKIT_NAMES:
        return np.stack([animator.code_of_arkit(code) for code in codes]).astype(np.float64)
    raise InputError(
        f"{dataset.path}: its code of {len(names)} coefficients (head model "
        f"'{dataset.info.head_model}') cannot drive this avatar; give the video, or preprocess it "
        "with the bundled head model"
    )


_NO_REGRESSOR = (
    "the avatar has no regressor: drive it with regressor auto or off, or make one with "
    "'cag-avatar train-regressor'"
)


def _watch(
    animator: Animator, info: VideoInfo, config: DriveConfig, report: Callable[[int, int], None]
) -> tuple[_Clip, bool]:
    """Estimate a whole video; also whether its expression is to be relative."""
    regressor = animator.record.regressor
    if config.regressor == "on" and regressor is None:
        raise InputError(_NO_REGRESSOR)
    estimates: list[FaceEstimate] = []
    before = 0
    with ExpressionEstimator(
        regressor=None if config.regressor == "off" else regressor
    ) as estimator:
        for index, image in enumerate(read_frames(info)):
            estimates.append(estimator.estimate(image, round(index / info.fps * 1e9)))
            before += not estimator.calibrated
            report(index + 1, 2 * max(info.frames, index + 1))
        if estimator.calibrated:
            # The first frames once more, now that the driver's own shape is known.
            for index, image in enumerate(itertools.islice(read_frames(info), before)):
                time = round((len(estimates) + index) / info.fps * 1e9)
                estimates[index] = estimator.estimate(image, time)
        looks_own = estimator.own_person
    valid = np.flatnonzero([estimate.is_valid for estimate in estimates])
    if not len(valid):
        raise InputError(f"{info.path}: shows no face to drive the avatar with")
    same_clip = animator.record.protocol.get("source") == info.path.name
    own = regressor is not None and (
        config.regressor == "on" or (config.regressor == "auto" and bool(same_clip or looks_own))
    )
    # Whoever says that it is the avatar's person says that codes mean the same.
    relative = config.expression == "relative" or (
        config.expression == "auto" and not (own and config.regressor == "on")
    )
    _LOG.info(
        "%s: codes by %s, expression %s", info.path,
        "the avatar's own regressor" if own else "the fit of a head",
        "relative to the driver's rest" if relative else "as it is",
    )  # fmt: skip
    codes = [
        regressed
        if own and (regressed := estimates[t].regressed) is not None
        else animator.code_of_arkit(estimates[t].code)
        for t in valid
    ]
    poses = np.stack([estimates[t].head_pose for t in valid])
    nearest = np.abs(np.arange(len(estimates))[:, None] - valid).argmin(1)
    filled = _filled(np.stack(codes).astype(np.float64), valid, len(estimates))
    return _Clip(filled, poses[nearest]), relative


def _filled(
    codes: NDArray[np.float64], frames: NDArray[np.int64], count: int
) -> NDArray[np.float64]:
    """Codes [count, E] of all frames from those [N, E] of some, linear in between."""
    time = np.arange(count)
    return np.stack([np.interp(time, frames, column) for column in codes.T], 1)


def _from_video(
    animator: Animator, info: VideoInfo, clip: _Clip, config: DriveConfig, relative: bool
) -> Iterator[NDArray[np.uint8]]:
    height, width = animator.camera.height, animator.camera.width
    head: Head = "relative" if config.head == "auto" else config.head
    codes = _transferred(animator, clip, config, relative)
    poses = _head_poses(animator, clip, config, head)
    for image, code, pose in zip(read_frames(info), codes, poses, strict=False):
        shown = animator.render(code, pose)
        side = cv2.resize(image, (round(info.width * height / info.height), height))
        yield np.ascontiguousarray(np.concatenate([side, shown[:, :width]], 1))


def _transferred(
    animator: Animator, clip: _Clip, config: DriveConfig, relative: bool
) -> list[NDArray[np.float32]]:
    """Codes of the avatar for each frame."""
    driver = measure_driver(clip.codes, animator.layout) if relative else None
    return [animator.transfer(c, driver, config.retargeting, config.gaze) for c in clip.codes]


def _head_poses(
    animator: Animator, clip: _Clip, config: DriveConfig, head: Head
) -> Iterator[NDArray[np.float64] | None]:
    """Head pose of the avatar for each frame; None: at rest."""
    rest = _middle_pose(clip.poses)
    for pose in clip.poses:
        if head == "none":
            yield None
        elif head == "absolute":
            yield pose
        else:
            yield animator.follow(pose, rest, config.retargeting)


def _middle_pose(poses: NDArray[np.float64]) -> NDArray[np.float64]:
    """Median of poses [T, 4, 4], its rotation the nearest to the median matrix, [4, 4]."""
    result = np.median(poses, axis=0)
    left, _, right = np.linalg.svd(result[:3, :3])
    sign = np.diag([1.0, 1.0, np.sign(np.linalg.det(left @ right))])
    result[:3, :3] = left @ sign @ right
    return np.asarray(result)
