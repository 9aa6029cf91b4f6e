"""What MediaPipe says of a dataset's frames, and how far that is from their codes."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from cag_avatar_training.dataset import Dataset
from numpy.typing import NDArray

from cag_avatar.errors import InputError
from cag_avatar.head_models import HeadModel
from cag_avatar.tracking.code_regressor import CodeRegressor
from cag_avatar.tracking.face_landmarker import FaceLandmarker

__all__ = ["Readings", "code_errors", "read_faces"]

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class Readings:
    """What MediaPipe says of some frames of a dataset."""

    frames: NDArray[np.int64]
    """Their numbers in the dataset, ascending, [N]."""
    landmarks: NDArray[np.float32]
    """Pixels, [N, 478, 3]."""
    scores: NDArray[np.float32]
    """[N, 52]."""

    def of(self, frames: Sequence[int]) -> Readings:
        """Those of some frames, as far as there are any."""
        kept = np.isin(self.frames, np.asarray(frames))
        return Readings(self.frames[kept], self.landmarks[kept], self.scores[kept])


def read_faces(
    dataset: Dataset,
    frames: Sequence[int] | None = None,
    show: Callable[[int, int], None] | None = None,
) -> Readings:
    """Landmarks and scores of a dataset's frames: from the dataset; those it lacks by running
    MediaPipe over its images, each by itself as preprocessing does (frames without a face are left
    out).

    Args:
        dataset: the dataset.
        frames: of interest; None: all.
        show: called with (frames done, frames) while images are looked at.

    Raises:
        InputError: MediaPipe cannot run here, or finds no face.
    """
    numbers = sorted(range(len(dataset)) if frames is None else frames)
    tracking = dataset.tracking
    if tracking.scores is not None and tracking.landmarks is not None:
        index = np.array(numbers, np.int64)
        return Readings(index, tracking.landmarks[index], tracking.scores[index])
    _LOG.info("%s: keeps no scores, its images are looked at", dataset.path)
    found = []
    with FaceLandmarker() as landmarker:
        for done, number in enumerate(numbers):
            faces = landmarker.detect(dataset.image(number))
            if faces:
                found.append((number, faces[0].landmarks, faces[0].scores))
            if show is not None:
                show(done + 1, len(numbers))
    if not found:
        raise InputError(f"{dataset.path}: no face is found in its images")
    kept, landmarks, scores = zip(*found, strict=True)
    index = np.array(kept, np.int64)
    own = tracking.landmarks
    return Readings(index, np.stack(landmarks) if own is None else own[index], np.stack(scores))


def code_errors(
    regressor: CodeRegressor | None,
    readings: Readings,
    codes: NDArray[np.floating],
    head: HeadModel,
) -> dict[str, float | int | None]:
    """Mean absolute error of MediaPipe's raw scores and of a regressor against codes [N, E]."""
    raw = head.arkit_to_code(torch.from_numpy(readings.scores)).numpy()
    result: dict[str, float | int | None] = {
        "raw_scores": round(float(np.abs(raw - codes).mean()), 5),
        "regressor": None,
        "frames": len(codes),
    }
    if regressor is not None:
        own = regressor.codes(readings.landmarks, readings.scores)
        result["regressor"] = round(float(np.abs(own - codes).mean()), 5)
    return result
