"""Cross-attention between positions and expression tokens (eq. 5 of the paper)."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from cag_avatar.fusion.base import Fusion

__all__ = ["CrossAttentionFusion"]


class CrossAttentionFusion(Fusion):
    """Every Gaussian asks, by its position, which coefficients concern it.

    The query is gamma(mu_T) W_Q. The expression code is not one key but T tokens, one a
    coefficient: with a single key the softmax is 1 everywhere and nothing adapts (see
    ``one_token.py``). A token's key is learned and does not depend on the frame; its value is the
    coefficient times a learned embedding. So the attention weights belong to the avatar, not to
    the frame: :meth:`static` returns them, they can be computed once, and a frame costs one small
    product.

    Values are multiplied by T. Softmax weights start near 1 / T; without the factor the context
    would start T times smaller than the concatenated code that it replaces.

    Args:
        encoding_size: length D of an encoded position.
        num_tokens: number of tokens T.
        heads: attention heads.
        head_size: length of a head's query, key and value.
    """

    def __init__(self, encoding_size: int, num_tokens: int, heads: int, head_size: int) -> None:
        super().__init__()
        self.heads = heads
        self.head_size = head_size
        self.context_size = heads * head_size
        self.query = nn.Linear(encoding_size, heads * head_size, bias=False)
        self.key = nn.Parameter(torch.randn(heads, num_tokens, head_size))
        self.embedding = nn.Parameter(
            torch.randn(heads, num_tokens, head_size) / math.sqrt(num_tokens)
        )

    def static(self, encoding: Tensor) -> Tensor:
        """Attention weights of encoded positions [N, D] over the tokens: [heads, N, T]."""
        query = self.query(encoding).unflatten(-1, (self.heads, self.head_size)).transpose(0, 1)
        score = (query / math.sqrt(self.head_size)) @ self.key.transpose(1, 2)
        return score.softmax(-1)

    def values(self, tokens: Tensor) -> Tensor:
        """Values of tokens [T]: [heads, T, head_size]."""
        return tokens[:, None] * self.embedding * len(tokens)

    def context(self, static: Tensor | None, tokens: Tensor) -> Tensor:
        """Weighted sum of the values: weights [heads, N, T], tokens [T] -> [N, C]."""
        assert static is not None
        return (static @ self.values(tokens).to(static.dtype)).transpose(0, 1).flatten(1)
