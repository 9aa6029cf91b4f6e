"""Stage: the dataset's pictures."""

from __future__ import annotations

import numpy as np
from cag_avatar_training.dataset import DatasetWriter
from cag_avatar_training.matting import MatteConfig, estimate_foreground, make_parser
from cag_avatar_training.preprocess.crop import COMMIT_EVERY
from cag_avatar_training.preprocess.frame_store import FrameStore
from cag_avatar_training.preprocess.parallel import ordered_map
from cag_avatar_training.preprocess.torso import NOTHING
from cag_avatar_training.preprocess.workspace import StageStore
from cag_avatar_training.progress import Advance
from numpy.typing import NDArray

__all__ = ["write_frames"]


def write_frames(
    writer: DatasetWriter,
    images: FrameStore,
    alphas: FrameStore,
    own_alpha: bool,
    landmarks: NDArray[np.float32],
    labels: FrameStore,
    config: MatteConfig,
    stage: StageStore,
    advance: Advance,
) -> None:
    """Write image, alpha and part labels of every frame, on all cores.

    Args:
        writer: of the dataset; frames before ``stage.done`` are there.
        images: frames [S, S, 3].
        alphas: their mattes [S, S].
        own_alpha: the matte is the video's own, so that the images hold the foreground's colours.
        landmarks: pixels of the images, [T, 478, 3].
        labels: regions of the fitted head (follow_torso), which help to label the parts.
        config: names the parser.
        stage: notes how far it is.
        advance: told the frames done.
    """
    count = len(landmarks)
    parser = make_parser(lambda t: images[t], landmarks, config)

    def write(t: int) -> int:
        image, alpha = images[t], alphas[t]
        drawn = labels[t].astype(np.int64)
        drawn[drawn == NOTHING] = -1
        parts = parser.parse(image, alpha, landmarks[t], drawn)
        if not own_alpha:
            image = estimate_foreground(image, alpha)
        writer.write_frame(t, image, alpha, parts)
        return t

    for t in ordered_map(write, range(stage.done, count)):
        advance(t + 1)
        if (t + 1) % COMMIT_EVERY == 0:
            stage.commit(t + 1)
    stage.commit(count)
