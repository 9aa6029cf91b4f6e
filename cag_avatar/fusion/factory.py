"""Fusion modules by name."""

from __future__ import annotations

from typing import Literal, get_args

from cag_avatar.errors import InputError
from cag_avatar.fusion.base import Fusion
from cag_avatar.fusion.concat import ConcatFusion
from cag_avatar.fusion.cross_attention import CrossAttentionFusion
from cag_avatar.fusion.one_token import OneTokenFusion

__all__ = ["FusionName", "make_fusion"]

FusionName = Literal["cross-attention", "concat", "one-token"]


def make_fusion(
    name: str, encoding_size: int, num_tokens: int, heads: int, head_size: int
) -> Fusion:
    """Build a fusion module. Raises InputError on an unknown name."""
    if name == "cross-attention":
        return CrossAttentionFusion(encoding_size, num_tokens, heads, head_size)
    if name == "one-token":
        return OneTokenFusion(encoding_size, num_tokens, heads, head_size)
    if name == "concat":
        return ConcatFusion(num_tokens)
    raise InputError(f"fusion: unknown '{name}', choose from {', '.join(get_args(FusionName))}")
