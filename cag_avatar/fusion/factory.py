"""Fusion modules by name."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

from cag_avatar.errors import InputError
from cag_avatar.fusion.base import Fusion
from cag_avatar.fusion.concat import ConcatFusion
from cag_avatar.fusion.cross_attention import AttentionName, CrossAttentionFusion
from cag_avatar.fusion.one_token import OneTokenFusion

__all__ = ["FusionName", "make_fusion"]

FusionName = Literal["cross-attention", "concat", "one-token"]


def make_fusion(
    name: str,
    encoding_size: int,
    num_values: int,
    heads: int,
    head_size: int,
    groups: Sequence[int] | None = None,
    attention: AttentionName = "softmax",
) -> Fusion:
    """Build a fusion module; arguments as for CrossAttentionFusion.

    Raises InputError on an unknown name.
    """
    if name == "cross-attention":
        return CrossAttentionFusion(encoding_size, num_values, heads, head_size, groups, attention)
    if name == "one-token":
        return OneTokenFusion(encoding_size, num_values, heads, head_size)
    if name == "concat":
        return ConcatFusion(num_values)
    raise InputError(f"fusion: unknown '{name}', choose from {', '.join(get_args(FusionName))}")
