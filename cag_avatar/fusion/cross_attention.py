"""Cross-attention between positions and expression tokens (eq. 5 of the paper)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from cag_avatar.fusion.base import Fusion

__all__ = ["AttentionName", "CrossAttentionFusion"]

AttentionName = Literal["gates", "softmax"]

#: Gates before training of tokens that do not reach a Gaussian at all, and of those that do wholly.
_CLOSED, _OPEN = 0.1, 0.95


class CrossAttentionFusion(Fusion):
    """Every Gaussian asks, by its position, which coefficients concern it.

    The query is gamma(mu_T) W_Q. The expression code is not one key but T tokens, one a
    coefficient (or a few that belong together): with a single key the softmax is 1 everywhere and
    nothing adapts (see ``one_token.py``). A token's key is learned and does not depend on the
    frame; its value is the coefficient times a learned embedding (the sum of them). So the
    attention weights belong to the avatar, not to the frame: :meth:`static` returns them, they can
    be computed once, and a frame costs one small product.

    Two ways to weigh (``attention``). A *softmax* spreads over 50 tokens and hardly leaves the
    uniform, so that everything still reacts to everything. *Gates*, a sigmoid for each token, need
    not share: they start from the tokens' reach (``reach.py``), so that upper teeth begin deaf to
    lips and cheeks, and queries and keys learn what the mesh does not know (shading, wrinkles).

    With a softmax, values are multiplied by T: its weights start near 1 / T, and without the factor
    the context would start T times smaller than the concatenated code that it replaces.

    Args:
        encoding_size: length P of an encoded position.
        num_values: length D of psi.
        heads: attention heads.
        head_size: length of a head's query, key and value.
        groups: token of each value, D numbers that cover 0 .. T - 1; None gives each its own.
        attention: ``softmax`` or ``gates``.
    """

    def __init__(
        self,
        encoding_size: int,
        num_values: int,
        heads: int,
        head_size: int,
        groups: Sequence[int] | None = None,
        attention: AttentionName = "softmax",
    ) -> None:
        super().__init__()
        self.gates = attention == "gates"
        own = list(range(num_values))
        groups = own if groups is None else list(groups)
        self.num_tokens = max(groups) + 1
        #: None where values and tokens are the same: saves the sum over each token.
        self.groups = None if groups == own else groups
        self.heads = heads
        self.head_size = head_size
        self.context_size = heads * head_size
        self.query = nn.Linear(encoding_size, heads * head_size, bias=False)
        self.key = nn.Parameter(torch.randn(heads, self.num_tokens, head_size))
        self.embedding = nn.Parameter(
            torch.randn(heads, num_values, head_size) / math.sqrt(num_values)
        )
        if self.gates:  # gates start from the reach alone
            nn.init.zeros_(self.query.weight)

    def static(self, encoding: Tensor, reach: Tensor | None = None) -> Tensor:
        """Attention weights of encoded positions [N, P] over the tokens: [heads, N, T].

        Gates need the ``reach`` of the tokens, [N, T].
        """
        query = self.query(encoding).unflatten(-1, (self.heads, self.head_size)).transpose(0, 1)
        score = (query / math.sqrt(self.head_size)) @ self.key.transpose(1, 2)
        if not self.gates:
            return score.softmax(-1)
        assert reach is not None
        return torch.sigmoid(score + torch.logit(_CLOSED + (_OPEN - _CLOSED) * reach))

    def attention(self, static: Tensor | None) -> Tensor | None:
        """The weights themselves: [heads, N, T]; a softmax's rows sum to 1, gates lie in (0, 1)."""
        return static

    def values(self, values: Tensor) -> Tensor:
        """What the tokens say of psi [D]: [heads, T, head_size]."""
        each = values[:, None] * self.embedding
        if not self.gates:
            each = each * self.num_tokens
        if self.groups is None:
            return each
        index = torch.tensor(self.groups, device=each.device)
        total = each.new_zeros(self.heads, self.num_tokens, self.head_size)
        return total.index_add(1, index, each)

    def context(self, static: Tensor | None, values: Tensor) -> Tensor:
        """Weighted sum of the tokens' values: weights [heads, N, T], psi [D] -> [N, C]."""
        assert static is not None
        return (static @ self.values(values).to(static.dtype)).transpose(0, 1).flatten(1)
