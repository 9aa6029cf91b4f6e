"""What is expected of expression codes before landmarks and pictures are looked at."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from cag_avatar.head_models.arkit import ARKIT_INDEX, ARKIT_NAMES
from cag_avatar.head_models.base import HeadModel
from cag_avatar.tracking.fit_config import FitConfig
from cag_avatar.tracking.landmark_correction import Corrected

__all__ = ["CodePrior", "code_prior", "corrected_prior", "model_prior"]


class CodePrior(NamedTuple):
    """What is expected of the codes before the landmarks are looked at."""

    mean: Tensor
    """[T, E]."""
    deviation: Tensor
    """Standard deviation of a coefficient from its mean, [E]."""
    smooth: Tensor
    """Of a coefficient from the mean of its neighbours in time, [E]."""
    low: Tensor
    """Smallest coefficients, [E]; -inf where there is no bound."""
    high: Tensor
    """Largest coefficients, [E]; inf where there is no bound."""

    def at(self, frames: Tensor) -> CodePrior:
        """The prior of some frames."""
        return self._replace(mean=self.mean[frames])


def code_prior(scores: Tensor, config: FitConfig) -> CodePrior:
    """Prior from MediaPipe's scores [T, 52] alone.

    A score that never falls to zero in a clip is a bias of the face (frowning brows, narrow eyes),
    so its fifth percentile counts as neutral. Gaze is left to the irises.
    """
    floor = torch.quantile(scores, 0.05, dim=0) if len(scores) > 1 else scores.new_zeros(52)
    mean = ((scores - floor) / (1 - floor).clamp(min=0.2)).clamp(0, 1)
    deviation = torch.full((len(ARKIT_NAMES),), config.code_deviation)
    smooth = torch.full((len(ARKIT_NAMES),), config.smooth_code)
    for name, index in ARKIT_INDEX.items():
        if name.startswith("eye"):
            smooth[index] *= 5  # blinks and saccades are faster than a frame
        if name.startswith("eyeLook"):
            mean[:, index] = 0
            deviation[index] = 1.0
        if name in ("tongueOut", "cheekPuff", "jawForward"):  # hardly seen by landmarks
            deviation[index] = 0.05
    return CodePrior(mean, deviation, smooth, *_unit_interval(deviation))


def corrected_prior(corrected: Corrected, config: FitConfig) -> CodePrior:
    """Prior from the codes that a LandmarkCorrection predicts."""
    codes, deviation = (torch.from_numpy(x) for x in (corrected.codes, corrected.deviation))
    if config.correction == "rigid":
        deviation = deviation.clamp(min=config.predicted_deviation)
    smooth = torch.full_like(deviation, config.smooth_code)
    smooth[[i for name, i in ARKIT_INDEX.items() if name.startswith("eye")]] *= 5
    return CodePrior(codes, deviation, smooth, *_unit_interval(deviation))


def model_prior(model: HeadModel, arkit: CodePrior, config: FitConfig) -> CodePrior:
    """Prior of a head model's own code from the prior of ARKit's 52 coefficients."""
    if model.expression_names == ARKIT_NAMES:
        return arkit
    deviation = model.code_deviation
    smooth = deviation * (config.smooth_code / config.code_deviation)
    smooth[[i for i, name in enumerate(model.expression_names) if name.startswith("eye")]] *= 5
    mean = model.arkit_to_code(arkit.mean)
    return CodePrior(mean, deviation, smooth, model.code_low, model.code_high)


def _unit_interval(like: Tensor) -> tuple[Tensor, Tensor]:
    return torch.zeros_like(like), torch.ones_like(like)
