"""Reach: how much each token moves the surface under each Gaussian, before anything is learned."""

from __future__ import annotations

import torch
from torch import Tensor

from cag_avatar.fusion.tokens import NECK_TOKENS, token_groups, token_names
from cag_avatar.head_models.base import HeadModel

__all__ = ["token_reach"]

#: Displacement at which a token's reach is one half, metres.
_HALF = 0.0005


def token_reach(
    head: HeadModel, rest: Tensor, corner: Tensor, barycentric: Tensor, neck: bool
) -> Tensor:
    """Reach of T tokens at N surface points, [N, T] in [0, 1).

    It is d / (d + 0.5 mm), d the displacement when the token's coefficient goes from neutral to 1
    (by one ``code_deviation`` where it has no bounds; of several coefficients, the largest). The
    turning neck shades and stretches everything: its reach is 1.

    Args:
        head: head model.
        rest: rest vertices of the person, canonical space, metres, [V, 3].
        corner: vertices of the triangle of each point, [N, 3].
        barycentric: weights of the corners, [N, 3].
        neck: whether the neck's tokens are there.
    """
    names = head.code_tokens
    groups = token_groups(token_names(names, neck))
    still = torch.eye(4, device=rest.device)[None]
    neutral = head.neutral_code.to(rest)
    bounded = torch.isfinite(head.code_high)
    step = torch.where(bounded, head.code_high - neutral, head.code_deviation.to(rest))

    def points(code: Tensor) -> Tensor:
        vertices = head.posed_vertices(rest, code[None], still, still)[0]
        return (vertices[corner] * barycentric[..., None]).sum(1)

    start = points(neutral)
    moved = rest.new_zeros(len(corner), max(groups) + 1)
    with torch.no_grad():
        for index in range(len(names)):
            code = neutral.clone()
            code[index] += step[index]
            column = groups[index]
            distance = (points(code) - start).norm(dim=1)
            moved[:, column] = torch.maximum(moved[:, column], distance)
    reach = moved / (moved + _HALF)
    if neck:
        reach[:, -len(NECK_TOKENS) :] = 1
    return reach
