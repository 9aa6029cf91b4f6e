"""What is expected of expression codes before landmarks and pictures are looked at."""

from __future__ import annotations

from typing import Any, Generic, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from cag_avatar.head_models.arkit import ARKIT_INDEX, ARKIT_NAMES
from cag_avatar.tracking.fit_config import FitConfig
from cag_avatar.tracking.landmark_correction import Corrected

__all__ = ["ArrayPrior", "CodePrior", "code_prior", "corrected_prior", "with_free_gaze"]

#: Blinks and saccades are faster than a frame.
_EYES = [index for name, index in ARKIT_INDEX.items() if name.startswith("eye")]
_EYES_FASTER = 5
_GAZE = [index for name, index in ARKIT_INDEX.items() if name.startswith("eyeLook")]
#: Coefficients of one eye that turn it in opposite directions.
_OPPOSED = [
    (ARKIT_INDEX[f"eyeLook{one}{side}"], ARKIT_INDEX[f"eyeLook{other}{side}"])
    for one, other in (("Up", "Down"), ("In", "Out"))
    for side in ("Left", "Right")
]
_HARDLY_SEEN = [ARKIT_INDEX[name] for name in ("tongueOut", "cheekPuff", "jawForward")]

#: numpy's, float32, for live frames; torch's for clips.
Array = TypeVar("Array")


class CodePrior(NamedTuple, Generic[Array]):
    """What is expected of the codes before the landmarks are looked at."""

    mean: Array
    """[T, E]."""
    deviation: Array
    """Standard deviation of a coefficient from its mean, [E]."""
    smooth: Array
    """Of a coefficient from the mean of its neighbours in time, [E]."""
    low: Array
    """Smallest coefficients, [E]; -inf where there is no bound."""
    high: Array
    """Largest coefficients, [E]; inf where there is no bound."""

    def at(self, frames: Any) -> CodePrior[Array]:
        """The prior of some frames (indices or a slice)."""
        mean: Any = self.mean
        return self._replace(mean=mean[frames])


ArrayPrior = CodePrior[NDArray[np.float32]]


def code_prior(scores: NDArray[np.floating], config: FitConfig) -> ArrayPrior:
    """Prior from MediaPipe's scores [T, 52] alone.

    A score that never falls to zero in a clip is a bias of the face (frowning brows, narrow eyes),
    so its fifth percentile counts as neutral. Gaze is left to the irises.
    """
    scores = np.asarray(scores, np.float32)
    floor = np.quantile(scores, 0.05, axis=0) if len(scores) > 1 else np.zeros(scores.shape[1])
    mean = np.clip((scores - floor) / np.maximum(1 - floor, 0.2), 0, 1).astype(np.float32)
    deviation = np.full(len(ARKIT_NAMES), config.code_deviation, np.float32)
    mean[:, _GAZE] = 0
    deviation[_GAZE] = 1.0
    deviation[_HARDLY_SEEN] = 0.05
    return _in_unit_interval(mean, deviation, config)


def corrected_prior(corrected: Corrected, config: FitConfig) -> ArrayPrior:
    """Prior from the codes that a LandmarkCorrection predicts."""
    deviation = np.maximum(corrected.deviation, np.float32(config.predicted_deviation))
    return _in_unit_interval(corrected.codes, deviation, config)


def with_free_gaze(prior: ArrayPrior, config: FitConfig) -> ArrayPrior:
    """The same, the gaze left to irises that were found in the pictures.

    Of two coefficients that turn an eye in opposite directions one is expected to be 0.
    """
    mean, deviation = prior.mean.copy(), prior.deviation.copy()
    deviation[_GAZE] = np.maximum(deviation[_GAZE], np.float32(config.gaze_deviation))
    for one, other in _OPPOSED:
        turned = mean[..., one] - mean[..., other]
        mean[..., one], mean[..., other] = np.maximum(turned, 0), np.maximum(-turned, 0)
    return prior._replace(mean=mean, deviation=deviation)


def _in_unit_interval(
    mean: NDArray[np.float32], deviation: NDArray[np.float32], config: FitConfig
) -> ArrayPrior:
    smooth = np.full_like(deviation, config.smooth_code)
    smooth[_EYES] *= _EYES_FASTER
    return CodePrior(mean, deviation, smooth, np.zeros_like(deviation), np.ones_like(deviation))
