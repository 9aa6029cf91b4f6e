"""Video to dataset: landmarks, crop, fit, matte, torso, masks."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from cag_avatar_training.dataset import Dataset, DatasetInfo, DatasetWriter, Tracking
from cag_avatar_training.matting import (
    MatteConfig,
    check_networks,
    estimate_foreground,
    make_parser,
    matte_clip,
)
from cag_avatar_training.progress import progress_bars
from cag_avatar_training.video import VideoInfo, probe_video, read_frames
from numpy.typing import NDArray

import cag_avatar
from cag_avatar.camera import PinholeCamera
from cag_avatar.errors import InputError
from cag_avatar.head_models import load_head_model
from cag_avatar.head_models.base import REGIONS
from cag_avatar.tracking.clip_fit import ClipFit, fit_clip
from cag_avatar.tracking.face_landmarker import NUM_LANDMARKS, FaceLandmarker
from cag_avatar.tracking.fitting import FitConfig
from cag_avatar.tracking.silhouette import RimPoints, find_rim
from cag_avatar.tracking.torso import torso_poses

__all__ = ["PreprocessConfig", "preprocess"]

_LOG = logging.getLogger(__name__)

#: Frames looked at for a second face.
_SURVEY = 12
#: Frames whose outline determines the shape.
_RIM_FRAMES = 40
#: Note in the dataset on how its images are composited.
_BACKGROUND = "foreground colours where alpha < 1; composite with alpha over any colour"


@dataclass(frozen=True)
class PreprocessConfig:
    """How a video becomes a dataset."""

    size: int = 512
    """Width and height of the dataset's images, pixels."""
    head_model: str = "anny"
    """Head model that is fitted."""
    landmarker: Path | None = None
    """Face landmarker model file; by default it is looked for (see the README)."""
    min_seconds: float = 2.0
    """Shortest video accepted."""
    fit: FitConfig = field(default_factory=FitConfig)
    """Weights of the fit."""
    matte: MatteConfig = field(default_factory=MatteConfig)
    """Settings of the matte."""
    progress: bool = True
    """Show progress bars."""

    def __post_init__(self) -> None:
        if self.size % 2 or not 128 <= self.size <= 2048:
            raise InputError(f"size: {self.size} must be even and between 128 and 2048")
        if self.min_seconds < 0:
            raise InputError(f"min_seconds: {self.min_seconds} must not be negative")


@dataclass(frozen=True)
class _Detections:
    frames: NDArray[np.int64]  # [T] numbers in the video
    landmarks: NDArray[np.float32]  # [T, 478, 3] source pixels
    scores: NDArray[np.float32]  # [T, 52]
    total: int  # frames in the video


class _Stages:
    """Progress bars, one a stage, and the seconds each took."""

    def __init__(self, show: bool) -> None:
        self._progress = progress_bars(show)
        self.seconds: dict[str, float] = {}

    @contextmanager
    def stage(self, name: str, total: int | None) -> Iterator[Any]:
        start = time.perf_counter()
        task = self._progress.add_task(name, total=total)

        def advance(_done: int = 0, _total: int = 0) -> None:
            self._progress.advance(task)

        yield advance
        count = self._progress.tasks[task].completed or 1
        self._progress.update(task, total=count, completed=count)
        self.seconds[name] = round(time.perf_counter() - start, 2)

    def __enter__(self) -> _Stages:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()


def preprocess(
    video: Path | str, out: Path | str, config: PreprocessConfig | None = None
) -> Dataset:
    """Make a dataset folder from a video of one head.

    Frames without a face are left out. Nothing is left at ``out`` unless the whole succeeds.

    Args:
        video: file that FFmpeg reads.
        out: dataset folder to write; a dataset already there is replaced.
        config: settings.

    Raises:
        InputError: not a video, too short, no face, two faces, a frame size that changes.
    """
    settings = config or PreprocessConfig()
    check_networks(settings.matte)
    info = probe_video(video)
    if 0 < info.frames < settings.min_seconds * info.fps:
        raise _too_short(info, info.frames, settings)
    model = load_head_model(settings.head_model)
    with _Stages(settings.progress) as stages, DatasetWriter.create(out) as writer:
        with stages.stage("landmarks", info.frames or None) as advance:
            found = _detect(info, settings, advance)
        crop = _crop(found.landmarks, info)
        scale = settings.size / crop[2]
        landmarks = found.landmarks.copy()
        landmarks[..., :2] -= np.array(crop[:2], np.float32)
        landmarks *= np.float32(scale)
        centre = ((info.width / 2 - crop[0]) * scale, (info.height / 2 - crop[1]) * scale)
        with stages.stage("crop", len(found.frames)) as advance:
            images = _cropped(info, found.frames, crop, settings.size, advance)
        with stages.stage("fit", 1):
            fit = fit_clip(
                model, landmarks, found.scores, (settings.size, settings.size), centre, settings.fit
            )
        landmarks_only = fit.landmark_rmse()
        count = len(images)
        with stages.stage("matte", count) as advance:
            alphas = list(
                matte_clip(lambda i: images[i], fit.labels, count, settings.matte, progress=advance)
            )
        with stages.stage("outline", None) as advance:
            fit = _fit_outline(fit, alphas, landmarks, advance)
        with stages.stage("torso", count) as advance:
            torso = _torso(fit, images, alphas, advance)
        with stages.stage("write", count) as advance:
            parser = make_parser(lambda i: images[i], landmarks, settings.matte)

            def planes(index: int) -> tuple[NDArray[np.uint8], ...]:
                picture, alpha = images[index], alphas[index]
                parts = parser.parse(picture, alpha, landmarks[index], fit.labels(index))
                return estimate_foreground(picture, alpha), alpha, parts

            with ThreadPoolExecutor(1) as pool:  # compute a frame while the last one is written
                for image, alpha, parts in pool.map(planes, range(count)):
                    writer.add_frame(image, alpha, parts)
                    advance()
        figures = {
            "landmark_rmse_interocular": round(fit.landmark_rmse(), 5),
            "landmark_rmse_before_outline": round(landmarks_only, 5),
            "frames_in_video": found.total,
            "frames_with_face": count,
            "seconds": stages.seconds,
        }
        writer.finish(
            DatasetInfo(
                camera=fit.camera,
                fps=info.fps,
                source=info.path.name,
                head_model=model.name,
                crop={"x": crop[0], "y": crop[1], "size": crop[2]},
                background=_BACKGROUND,
                tool_version=cag_avatar.__version__,
                tracking=figures,
            ),
            Tracking(
                identity=fit.identity.numpy(),
                vertex_offsets=fit.offsets.numpy(),
                codes=fit.state.code.numpy(),
                head_pose=fit.state.head_pose().numpy(),
                torso_pose=torso.astype(np.float32),
                landmarks=landmarks,
                timestamps=found.frames / info.fps,
            ),
        )
    return Dataset.open(out)


def _too_short(info: VideoInfo, frames: int, config: PreprocessConfig) -> InputError:
    return InputError(
        f"{info.path}: {frames / info.fps:.1f} s long, at least {config.min_seconds:g} s are "
        "needed; record a longer video (a minute is good)"
    )


def _detect(info: VideoInfo, config: PreprocessConfig, advance: Any) -> _Detections:
    wanted = set(np.linspace(0, max(info.frames - 1, 0), _SURVEY).astype(int).tolist())
    frames, landmarks, scores = [], [], []
    crowded = surveyed = total = 0
    with (
        FaceLandmarker(video=True, model=config.landmarker) as landmarker,
        FaceLandmarker(max_faces=2, model=config.landmarker) as census,
    ):
        for index, image in enumerate(read_frames(info)):
            if index in wanted:
                faces = census.detect(image)
                surveyed += 1
                if len(faces) == 2:
                    heights = sorted(f.box()[3] - f.box()[1] for f in faces)
                    crowded += heights[0] > 0.4 * heights[1]
            found = landmarker.detect(image, index / info.fps)
            if found:
                frames.append(index)
                landmarks.append(found[0].landmarks)
                scores.append(found[0].scores)
            total = index + 1
            advance()
    if total < config.min_seconds * info.fps:
        raise _too_short(info, total, config)
    if 4 * crowded > surveyed:
        raise InputError(
            f"{info.path}: two faces in {crowded} of {surveyed} frames looked at; crop the video "
            "to one person"
        )
    if len(frames) < 0.5 * total:
        what = "no face" if not frames else f"a face in only {len(frames)} of {total} frames"
        raise InputError(
            f"{info.path}: {what}; film one face that fills about half of the picture's height"
        )
    if len(frames) < total:
        _LOG.warning(
            "%s: no face in %d of %d frames, left out", info.path, total - len(frames), total
        )
    assert landmarks[0].shape == (NUM_LANDMARKS, 3)
    return _Detections(np.array(frames), np.stack(landmarks), np.stack(scores), total)


def _crop(landmarks: NDArray[np.float32], info: VideoInfo) -> tuple[int, int, int]:
    """Square round the head in every frame, with hair and shoulders: x, y, size in pixels.

    The picture's own border is kept as the limit: a square that does not fit is made smaller.
    """
    low = np.percentile(landmarks[..., :2].min(1), 1, axis=0)
    high = np.percentile(landmarks[..., :2].max(1), 99, axis=0)
    height = float(np.median(np.ptp(landmarks[..., 1], axis=1)))
    left, right = low[0] - 0.45 * height, high[0] + 0.45 * height
    top, bottom = low[1] - 0.45 * height, high[1] + 0.45 * height
    size = round(min(float(max(right - left, bottom - top)), info.width, info.height))
    x = int(np.clip(round((left + right - size) / 2), 0, info.width - size))
    y = int(np.clip(round((top + bottom - size) / 2), 0, info.height - size))
    return x, y, size


def _cropped(
    info: VideoInfo, frames: NDArray[np.int64], crop: tuple[int, int, int], size: int, advance: Any
) -> list[NDArray[np.uint8]]:
    x, y, side = crop
    shrink = cv2.INTER_AREA if side > size else cv2.INTER_CUBIC
    wanted = set(frames.tolist())
    images = []
    for index, image in enumerate(read_frames(info)):
        if index in wanted:
            cut = image[y : y + side, x : x + side]
            if side != size:
                cut = cv2.resize(cut, (size, size), interpolation=shrink)  # type: ignore[assignment]
            images.append(np.ascontiguousarray(cut))
            advance()
    return images


def _fit_outline(
    fit: ClipFit, alphas: list[NDArray[np.uint8]], landmarks: NDArray[np.float32], advance: Any
) -> ClipFit:
    """Two rounds: each finds the outline again, because the first moves it."""

    def rim(frame: int) -> RimPoints:
        advance()
        height = float(np.ptp(landmarks[frame, :, 1]))
        return find_rim(fit.model, fit.rest.numpy(), fit.buffers(frame), alphas[frame], height)

    count = len(alphas)
    some = np.unique(np.linspace(0, count - 1, min(_RIM_FRAMES, count)).round().astype(int))
    for _ in range(2):
        fit = fit.with_rims({int(t): rim(int(t)) for t in some})
    return fit.with_all_rims([rim(t) for t in range(count)])


def _torso(
    fit: ClipFit, images: list[NDArray[np.uint8]], alphas: list[NDArray[np.uint8]], advance: Any
) -> NDArray[np.float64]:
    torso = np.array([REGIONS.index("shoulders"), REGIONS.index("neck")])
    head_pose = fit.state.head_pose().double().numpy()

    def grey(frame: int) -> NDArray[np.uint8]:
        advance()
        return cv2.cvtColor(images[frame], cv2.COLOR_RGB2GRAY)  # type: ignore[return-value]

    def mask(frame: int) -> NDArray[np.uint8]:
        labels = fit.labels(frame)
        head = (labels >= 0) & ~np.isin(labels, torso)
        head = cv2.dilate(head.astype(np.uint8), np.ones((25, 25), np.uint8)) > 0
        bottom = np.flatnonzero(head.any(1)).max(initial=0)
        rows = np.arange(len(labels))[:, None]
        below = rows > 0.5 * bottom
        return np.where((alphas[frame] > 200) & ~head & below, 255, 0).astype(np.uint8)

    camera: PinholeCamera = fit.camera
    return torso_poses(grey, mask, head_pose, camera.fx, (camera.cx, camera.cy))
