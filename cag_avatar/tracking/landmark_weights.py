"""How far each landmark is trusted."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from cag_avatar.tracking.face_landmarker import IRIS_LANDMARKS
from cag_avatar.tracking.fit_config import FitConfig

__all__ = ["landmark_weights"]

#: Face-oval landmarks slide over the cheek as the head turns: they say little.
_OVAL = (
    10, 338, 297, 332, 284, 251, 389, 356, 454, 323, 361, 288, 397, 365, 379, 378, 400, 377, 152,
    148, 176, 149, 150, 136, 172, 58, 132, 93, 234, 127, 162, 21, 54, 103, 67, 109,
)  # fmt: skip


def landmark_weights(
    spread: NDArray[np.floating], config: FitConfig, irises: bool = False
) -> NDArray[np.float32]:
    """Inverse variance of each landmark [478], in (inter-ocular distances)^-2, deflated for
    correlation.

    Args:
        spread: of a LandmarkEmbedding, [478].
        config: deviations.
        irises: those of the irises were found in the pictures.
    """
    weight = 1.0 / (np.asarray(spread, np.float32) ** 2 + np.float32(config.landmark_deviation**2))
    weight[list(_OVAL)] *= 0.1
    if irises:
        weight[[i for eye in IRIS_LANDMARKS for i in eye]] = config.iris_deviation**-2
    return np.asarray(weight * config.effective_landmarks / len(weight), np.float32)
