"""Named sets of training settings."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Literal, get_args

from cag_avatar_training.config import (
    LearningRates,
    LossConfig,
    RefinementConfig,
    TrainConfig,
)

from cag_avatar.avatar.config import AvatarConfig
from cag_avatar.errors import InputError

__all__ = ["Profile", "profile_config"]

#: ``quick``: minutes on two cores. ``standard``: the defaults. ``paper``: the sizes and the
#: schedule of the CAG-Avatar paper; hours without a GPU.
Profile = Literal["quick", "standard", "paper"]


def _quick() -> TrainConfig:
    return TrainConfig(
        iterations=1700,
        sizes=((0.0, 256), (0.4, 512)),
        # The defaults are for three times as many iterations.
        rates=LearningRates(network=4e-3, local=8e-3),
        refinement=RefinementConfig(at=(0.4,), steps=6),
    )


def _paper() -> TrainConfig:
    return TrainConfig(
        avatar=AvatarConfig(
            uv_resolution=128,
            density={},  # one Gaussian a texel everywhere
            width=256,
            depth=6,
            max_color=0.0,  # colours do not depend on the expression
            attention="softmax",
            local_size=0,  # one network for all
            sh_degree=2,  # FlashAvatar's is 3, which the renderer does not have
        ),
        iterations=15_000,
        sizes=((0.0, 512),),
        # The perceptual term sets in after the last iteration.
        loss=LossConfig(
            perceptual_weight=0.05, perceptual_net="vgg", perceptual_from=1.0, perceptual_every=1
        ),
        rates=LearningRates(network=1e-4, network_decay=1.0),
        max_growth=1e6,
        local_smoothing=0.0,
        initial_colors=False,
        attention_every=1,
        gradient_fraction=1.0,
        refinement=RefinementConfig(at=()),
    )


_PROFILES: dict[str, Callable[[], TrainConfig]] = {
    "quick": _quick,
    "standard": TrainConfig,
    "paper": _paper,
}


def profile_config(profile: Profile) -> TrainConfig:
    """Settings of a profile; its name is kept in them, for the protocol.

    Raises:
        InputError: no such profile.
    """
    if profile not in _PROFILES:
        raise InputError(
            f"profile: unknown '{profile}', choose from {', '.join(get_args(Profile))}"
        )
    return replace(_PROFILES[profile](), profile=profile)
