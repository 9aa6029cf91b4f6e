"""The driving signal psi as a list of tokens."""

from __future__ import annotations

import torch
from torch import Tensor

from cag_avatar.geometry import matrix_to_rotation_vector

__all__ = ["NECK_TOKENS", "driving_values", "token_groups", "token_names"]

#: Tokens for the head's rotation relative to the torso: a rotation vector in torso axes, radians.
NECK_TOKENS: tuple[str, ...] = ("neckPitch", "neckYaw", "neckRoll")


def token_names(code_tokens: tuple[str, ...], neck: bool) -> tuple[str, ...]:
    """Token of every driving value: of each coefficient, and with ``neck`` three for the neck."""
    return (*code_tokens, *(NECK_TOKENS if neck else ()))


def token_groups(names: tuple[str, ...]) -> tuple[int, ...]:
    """Number of the token of every driving value, counted from 0 in the order of appearance."""
    number = {name: i for i, name in enumerate(dict.fromkeys(names))}
    return tuple(number[name] for name in names)


def driving_values(code: Tensor, head_pose: Tensor, torso_pose: Tensor, neck: bool) -> Tensor:
    """Psi: zero at rest.

    Args:
        code: expression code minus the neutral code, [E].
        head_pose: canonical to camera space, [4, 4].
        torso_pose: canonical to camera space, [4, 4].
        neck: append the rotation of the head relative to the torso.

    Returns:
        [D], D = E or E + 3.
    """
    if not neck:
        return code
    relative = torso_pose[:3, :3].transpose(0, 1) @ head_pose[:3, :3]
    return torch.cat([code, matrix_to_rotation_vector(relative)])
