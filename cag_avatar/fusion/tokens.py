"""The driving signal psi as a list of tokens."""

from __future__ import annotations

import torch
from torch import Tensor

from cag_avatar.geometry import matrix_to_rotation_vector

__all__ = ["NECK_TOKENS", "driving_tokens", "token_names"]

#: Tokens for the head's rotation relative to the torso: a rotation vector in torso axes, radians.
NECK_TOKENS: tuple[str, ...] = ("neckPitch", "neckYaw", "neckRoll")


def token_names(expression_names: tuple[str, ...], neck: bool) -> tuple[str, ...]:
    """Name of every token: one for each coefficient, and with ``neck`` three for the neck."""
    return (*expression_names, *(NECK_TOKENS if neck else ()))


def driving_tokens(code: Tensor, head_pose: Tensor, torso_pose: Tensor, neck: bool) -> Tensor:
    """The value of every token.

    Args:
        code: expression code, [E].
        head_pose: canonical to camera space, [4, 4].
        torso_pose: canonical to camera space, [4, 4].
        neck: append the rotation of the head relative to the torso.

    Returns:
        [T], T = E or E + 3.
    """
    if not neck:
        return code
    relative = torso_pose[:3, :3].transpose(0, 1) @ head_pose[:3, :3]
    return torch.cat([code, matrix_to_rotation_vector(relative)])
