"""Cross-attention with the whole expression code as its only key: for comparison."""

from __future__ import annotations

import math

from torch import Tensor, nn

from cag_avatar.fusion.base import Fusion

__all__ = ["OneTokenFusion"]


class OneTokenFusion(Fusion):
    """Eq. 5 with psi W_K as the one key and psi W_V as the one value.

    A softmax over one key is 1 whatever the query, so every Gaussian gets the context psi W_V:
    there is no adaptation by position, and W_Q and W_K get no gradient. Kept to show just that.

    Args: as for CrossAttentionFusion, without groups.
    """

    def __init__(self, encoding_size: int, num_values: int, heads: int, head_size: int) -> None:
        super().__init__()
        self.heads = heads
        self.head_size = head_size
        self.context_size = heads * head_size
        self.query = nn.Linear(encoding_size, self.context_size, bias=False)
        self.key = nn.Linear(num_values, self.context_size, bias=False)
        self.value = nn.Linear(num_values, self.context_size, bias=False)

    def _split(self, rows: Tensor) -> Tensor:
        """[R, heads * head_size] -> [heads, R, head_size]."""
        return rows.unflatten(-1, (self.heads, self.head_size)).transpose(0, 1)

    def static(self, encoding: Tensor, reach: Tensor | None = None) -> Tensor:
        """Queries of encoded positions [N, P]: [heads, N, head_size]."""
        return self._split(self.query(encoding))

    def context(self, static: Tensor | None, values: Tensor) -> Tensor:
        """Attention of queries [heads, N, head_size] to one key: [N, C], all rows equal."""
        assert static is not None
        code = values[None].to(static.dtype)
        key, value = self._split(self.key(code)), self._split(self.value(code))
        weight = (static @ key.transpose(1, 2) / math.sqrt(self.head_size)).softmax(-1)
        return (weight @ value).transpose(0, 1).flatten(1)
