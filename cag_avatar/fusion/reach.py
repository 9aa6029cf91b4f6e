"""Reach: how much each token moves the surface under each Gaussian, before anything is learned."""

from __future__ import annotations

import torch
from torch import Tensor

from cag_avatar.fusion.tokens import NECK_TOKENS, token_groups, token_names
from cag_avatar.head_models.base import HeadModel

__all__ = ["token_reach"]

#: Displacement at which a token's reach is one half, metres.
_HALF = 0.0005
#: Codes that are posed together.
_TOGETHER = 8


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

    def points(codes: Tensor) -> Tensor:
        poses = still.expand(len(codes), 4, 4)
        vertices = head.posed_vertices(rest, codes, poses, poses)
        return (vertices[:, corner] * barycentric[..., None]).sum(2)

    moved = rest.new_zeros(len(corner), max(groups) + 1)
    with torch.no_grad():
        start = points(neutral[None])
        for index in range(0, len(names), _TOGETHER):
            columns = range(index, min(index + _TOGETHER, len(names)))
            distances = (points(neutral + step.diag()[list(columns)]) - start).norm(dim=-1)
            for column, distance in zip(columns, distances, strict=True):
                token = groups[column]
                moved[:, token] = torch.maximum(moved[:, token], distance)
    reach = moved / (moved + _HALF)
    if neck:
        reach[:, -len(NECK_TOKENS) :] = 1
    return reach
