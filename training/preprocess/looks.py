"""Stage: what the pictures of the face show beyond the landmarks (tracking/face_pictures.py)."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from cag_avatar_training.preprocess.parallel import ordered_map
from cag_avatar_training.preprocess.workspace import StageStore
from cag_avatar_training.progress import Advance
from numpy.typing import NDArray

from cag_avatar.tracking.face_pictures import (
    FacePlanes,
    face_planes,
    load_picture_reader,
    upright_picture,
)
from cag_avatar.tracking.landmark_correction import load_landmark_correction

__all__ = ["read_looks"]

#: Frames that tell what is typical of the person, at most; frames read together.
_TYPICAL_FRAMES, _CHUNK = 100, 16


def read_looks(
    images: Callable[[int], NDArray[np.uint8]],
    landmarks: NDArray[np.float32],
    head_model: str,
    stage: StageStore,
    advance: Advance,
) -> NDArray[np.float32] | None:
    """What a picture reader says of every frame, [T, D]; None where there is none for the model.

    Args:
        images: frame t, [H, W, 3] RGB; may be called from several threads.
        landmarks: pixels of the images, [T, 478, 3].
        head_model: name of the head model.
        stage: where the result is kept.
        advance: told the frames done.
    """
    correction = load_landmark_correction(head_model, pictures=True)
    reader = load_picture_reader(head_model)
    if correction is None or reader is None:
        return None
    if not stage.whole:
        count = len(landmarks)

        def look(frames: NDArray[np.int64]) -> FacePlanes:
            return FacePlanes.stack(
                [
                    face_planes(upright_picture(images(t), correction.frames(landmarks[t : t + 1])))
                    for t in frames.tolist()
                ]
            )

        some = np.unique(np.linspace(0, count - 1, min(count, _TYPICAL_FRAMES)).astype(int))
        chunks = np.array_split(some, -(-len(some) // _CHUNK))
        typical = FacePlanes.stack(list(ordered_map(look, chunks))).median()
        said, done = [], 0
        chunks = np.array_split(np.arange(count), -(-count // _CHUNK))
        for part in ordered_map(lambda frames: reader.read(look(frames), typical), chunks):
            said.append(part)
            advance(done := done + len(part))
        stage.save("looks", {"looks": np.concatenate(said)})
        stage.commit(count, whole=True)
    return stage.load("looks")[0]["looks"]
