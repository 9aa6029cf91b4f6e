"""Stage: the irises in the pictures, which the landmarks follow too little (tracking/irises.py)."""

from __future__ import annotations

import logging
from collections.abc import Callable

import numpy as np
from cag_avatar_training.preprocess.parallel import ordered_map
from cag_avatar_training.preprocess.workspace import StageStore
from cag_avatar_training.progress import Advance
from numpy.typing import NDArray

from cag_avatar.tracking.irises import (
    EyeLook,
    IrisTemplate,
    combined_shifts,
    eye_axes,
    look_at,
)

__all__ = ["find_irises"]

_LOG = logging.getLogger(__name__)

#: Frames that the eyes' templates are learned from, at most.
_LEARNING_FRAMES = 100


def find_irises(
    images: Callable[[int], NDArray[np.uint8]],
    landmarks: NDArray[np.float32],
    stage: StageStore,
    advance: Advance,
) -> NDArray[np.float32]:
    """What to add to the landmarks of the irises, pixels, [T, 2, 2]: right eye, left eye.

    Args:
        images: frame t, [H, W, 3] RGB; may be called from several threads.
        landmarks: pixels of the images, [T, 478, 3].
        stage: where the result is kept.
        advance: told the frames done.
    """
    if not stage.whole:
        stage.save("irises", {"shift": _measure(images, landmarks, advance)})
        stage.commit(len(landmarks), whole=True)
    return stage.load("irises")[0]["shift"]


def _measure(
    images: Callable[[int], NDArray[np.uint8]], landmarks: NDArray[np.float32], advance: Advance
) -> NDArray[np.float32]:
    count = len(landmarks)
    axes = eye_axes(landmarks)

    def look(frame: int) -> list[EyeLook | None]:
        image = images(frame)
        return [look_at(image, landmarks[frame], axes[frame], eye) for eye in range(2)]

    chosen = np.unique(np.linspace(0, count - 1, min(count, _LEARNING_FRAMES)).astype(int))
    looks = list(ordered_map(look, chosen.tolist()))
    templates = list(
        ordered_map(
            IrisTemplate.learn, ([one for one in eye if one] for eye in zip(*looks, strict=True))
        )
    )
    del looks
    if not any(templates):
        _LOG.info("hardly an eye is seen open: irises stay where the landmarker has them")

    def measure(frame: int) -> NDArray[np.float64]:
        centres = np.full((2, 2), np.nan)
        for eye, (one, template) in enumerate(zip(look(frame), templates, strict=True)):
            if one is not None and template is not None:
                centres[eye] = template.centre(one)
        return centres

    centres = np.empty((count, 2, 2))
    for frame, found in enumerate(ordered_map(measure, range(count))):
        centres[frame] = found
        advance(frame + 1)
    return combined_shifts(centres, landmarks, axes)
