"""Stage: the square round the head, cut from every frame and kept on disk."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from cag_avatar_training.preprocess.frame_store import FrameStore
from cag_avatar_training.preprocess.landmarks import Detections
from cag_avatar_training.preprocess.parallel import ordered_map, prefetched
from cag_avatar_training.preprocess.workspace import StageStore
from cag_avatar_training.progress import Advance
from cag_avatar_training.video import VideoFrame, VideoInfo, read_video
from numpy.typing import NDArray

__all__ = ["COMMIT_EVERY", "Crop", "crop_frames", "find_crop"]

#: Frames after which a stage that works frame by frame notes how far it is.
COMMIT_EVERY = 64


@dataclass(frozen=True)
class Crop:
    """A square of the video's pictures, brought to the dataset's size."""

    x: int
    y: int
    side: int
    size: int
    """Width and height of the dataset's images."""

    def landmarks(self, found: NDArray[np.float32]) -> NDArray[np.float32]:
        """Landmarks [T, 478, 3] of the video in pixels of the crop."""
        moved = found.copy()
        moved[..., :2] -= np.array([self.x, self.y], np.float32)
        moved *= np.float32(self.size / self.side)
        return moved

    def centre(self, info: VideoInfo) -> tuple[float, float]:
        """The middle of the video's picture, in pixels of the crop."""
        scale = self.size / self.side
        return (info.width / 2 - self.x) * scale, (info.height / 2 - self.y) * scale

    def cut(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """The crop of a picture [H, W, C]."""
        part: Any = image[self.y : self.y + self.side, self.x : self.x + self.side]
        if self.side != self.size:
            shrink = cv2.INTER_AREA if self.side > self.size else cv2.INTER_CUBIC
            part = cv2.resize(part, (self.size, self.size), interpolation=shrink)
        return np.ascontiguousarray(part)


def find_crop(landmarks: NDArray[np.float32], info: VideoInfo, size: int) -> Crop:
    """Square round the head in every frame, with hair and shoulders.

    The picture's own border is kept as the limit: a square that does not fit is made smaller.

    Args:
        landmarks: pixels of the video, [T, 478, 3].
        info: of the video.
        size: of the dataset's images.
    """
    low = np.percentile(landmarks[..., :2].min(1), 1, axis=0)
    high = np.percentile(landmarks[..., :2].max(1), 99, axis=0)
    height = float(np.median(np.ptp(landmarks[..., 1], axis=1)))
    left, right = low[0] - 0.45 * height, high[0] + 0.45 * height
    top, bottom = low[1] - 0.45 * height, high[1] + 0.45 * height
    side = round(min(float(max(right - left, bottom - top)), info.width, info.height))
    x = int(np.clip(round((left + right - side) / 2), 0, info.width - side))
    y = int(np.clip(round((top + bottom - side) / 2), 0, info.height - side))
    return Crop(x, y, side, size)


def crop_frames(
    info: VideoInfo,
    found: Detections,
    crop: Crop,
    stage: StageStore,
    advance: Advance,
    resources: ExitStack,
) -> tuple[FrameStore, FrameStore | None]:
    """Cut all frames with a face.

    Returns:
        Images [S, S, 3], and their own alpha [S, S] if it is a matte; ``resources`` closes them.
    """
    size = crop.size
    images = resources.enter_context(FrameStore(stage.folder / "images.rgb", (size, size, 3)))
    alphas = resources.enter_context(FrameStore(stage.folder / "alpha.grey", (size, size)))
    if not stage.whole:
        _cut_all(info, found, crop, stage, advance, images, alphas)
    return images, alphas if found.transparent else None


def _cut_all(
    info: VideoInfo,
    found: Detections,
    crop: Crop,
    stage: StageStore,
    advance: Advance,
    images: FrameStore,
    alphas: FrameStore,
) -> None:
    wanted = {int(frame): t for t, frame in enumerate(found.frames)}

    def cut(frame: VideoFrame) -> int:
        t = wanted[frame.number]
        if found.transparent and frame.alpha is not None:
            images.write(t, _straight(crop, frame.image, frame.alpha))
            alphas.write(t, crop.cut(frame.alpha))
        else:
            images.write(t, crop.cut(frame.image))
        return t

    with prefetched(read_video(info)) as frames:
        left = (f for f in frames if wanted.get(f.number, -1) >= stage.done)
        for t in ordered_map(cut, left):
            advance(t + 1)
            if (t + 1) % COMMIT_EVERY == 0:
                stage.commit(t + 1)
    stage.commit(len(wanted), whole=True)


def _straight(crop: Crop, image: NDArray[np.uint8], alpha: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The crop of colours that count only where alpha is: weighted by it while resizing."""
    share = np.maximum(alpha.astype(np.float32) / 255, 1e-3)[..., None]
    part = np.concatenate([image * share, share], -1).astype(np.float32)
    x, y, side = crop.x, crop.y, crop.side
    if side != crop.size:
        size = (crop.size, crop.size)
        shrink = cv2.INTER_AREA if side > crop.size else cv2.INTER_LINEAR
        part = np.asarray(
            cv2.resize(part[y : y + side, x : x + side], size, interpolation=shrink), np.float32
        )
    else:
        part = part[y : y + side, x : x + side]
    colours = part[..., :3] / np.maximum(part[..., 3:], 1e-6)
    return np.ascontiguousarray(np.rint(np.clip(colours, 0, 255)).astype(np.uint8))
