"""The prior of a clip's codes, as torch has it, for any head model."""

from __future__ import annotations

import torch
from torch import Tensor

from cag_avatar.head_models.arkit import ARKIT_NAMES
from cag_avatar.head_models.base import HeadModel
from cag_avatar.tracking.code_prior import ArrayPrior, CodePrior
from cag_avatar.tracking.fit_config import FitConfig

__all__ = ["ClipPrior", "clip_prior", "model_prior"]

ClipPrior = CodePrior[Tensor]


def clip_prior(prior: ArrayPrior) -> ClipPrior:
    """The same in torch."""
    return CodePrior(*map(torch.from_numpy, prior))


def model_prior(model: HeadModel, arkit: ClipPrior, config: FitConfig) -> ClipPrior:
    """Prior of a head model's own code from the prior of ARKit's 52 coefficients."""
    if model.expression_names == ARKIT_NAMES:
        return arkit
    deviation = model.code_deviation
    smooth = deviation * (config.smooth_code / config.code_deviation)
    smooth[[i for i, name in enumerate(model.expression_names) if name.startswith("eye")]] *= 5
    mean = model.arkit_to_code(arkit.mean)
    return CodePrior(mean, deviation, smooth, model.code_low, model.code_high)
