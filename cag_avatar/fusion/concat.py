"""Global conditioning by concatenation, as in FlashAvatar: for comparison."""

from __future__ import annotations

from torch import Tensor

from cag_avatar.fusion.base import Fusion

__all__ = ["ConcatFusion"]


class ConcatFusion(Fusion):
    """The context is the expression code itself, the same for every Gaussian.

    Args:
        num_values: length D of psi.
    """

    def __init__(self, num_values: int) -> None:
        super().__init__()
        self.context_size = num_values

    def static(self, encoding: Tensor, reach: Tensor | None = None) -> None:
        """Nothing depends on the position."""
        return

    def context(self, static: Tensor | None, values: Tensor) -> Tensor:
        """Values [D] -> [1, D]."""
        return values[None]
