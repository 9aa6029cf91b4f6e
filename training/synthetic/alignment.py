"""The truth of a synthetic recording, as a dataset made from it shows it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from cag_avatar_training.dataset import Dataset
from cag_avatar_training.synthetic.truth import Truth, load_truth, truth_folder
from numpy.typing import NDArray

from cag_avatar.errors import InputError

__all__ = ["find_truth", "in_crop", "video_frames"]


def find_truth(dataset: Dataset, folders: Sequence[Path] = ()) -> Truth | None:
    """Truth of the video that a dataset was made from; None if the video was not synthesized.

    ``folders`` come first: the one named after the video (``NAME.truth`` of ``NAME.mp4``). Else
    the folder that ``synthesize`` writes beside the video is looked for beside the dataset and one
    level up, where ``create`` and ``demo`` have the video.

    Raises:
        InputError: the folder is damaged or of another video.
    """
    name = truth_folder(Path(dataset.info.source)).name
    here = dataset.path.resolve().parent
    for folder in (*(f for f in folders if f.name == name), here / name, here.parent / name):
        if folder.is_dir():
            truth = load_truth(folder)
            video_frames(dataset, truth)
            return truth
    return None


def video_frames(dataset: Dataset, truth: Truth) -> NDArray[np.int64]:
    """Number in the video of each of the dataset's frames, [T].

    Raises:
        InputError: the dataset was not made from that video.
    """
    frames = np.rint(dataset.tracking.timestamps * truth.fps).astype(np.int64)
    if frames.max() >= len(truth.codes) or not {"x", "y", "size"} <= set(dataset.info.crop):
        raise InputError(f"{dataset.path}: was not made from the video that {truth.folder} is of")
    return frames


def in_crop(mask: NDArray[np.uint8], dataset: Dataset, outside: int = 0) -> NDArray[np.uint8]:
    """A mask [h, w] of the source picture as the dataset's square shows it, [H, W].

    Nearest neighbour; ``outside`` is the value beyond the picture.
    """
    crop, camera = dataset.info.crop, dataset.info.camera
    scale = camera.width / crop["size"]
    move = np.array([[scale, 0, -crop["x"] * scale], [0, scale, -crop["y"] * scale]])
    # Pixel centres lie at half integers here and at integers in OpenCV.
    move[:, 2] += 0.5 * scale - 0.5
    size = (camera.width, camera.height)
    warped = cv2.warpAffine(mask, move, size, flags=cv2.INTER_NEAREST, borderValue=outside)
    return np.asarray(warped, np.uint8)
