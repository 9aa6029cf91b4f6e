"""What every fusion module does: position and driving signal in, context vector out."""

from __future__ import annotations

from abc import ABC, abstractmethod

from torch import Tensor, nn

__all__ = ["Fusion"]


class Fusion(nn.Module, ABC):
    """Fuses the driving values psi with the encoded positions of N Gaussians into c_psi (eq. 5).

    The work is split by what it depends on: :meth:`static` sees only the position, so its result
    can be kept for an avatar; :meth:`context` adds the values of a frame.
    """

    context_size: int
    """Length C of a context vector."""

    @abstractmethod
    def static(self, encoding: Tensor, reach: Tensor | None = None) -> Tensor | None:
        """What depends on the Gaussians alone; None if nothing does.

        Args:
            encoding: encoded positions, [N, P].
            reach: of :func:`token_reach`, [N, T]; only for fusions that ask for it.
        """

    @abstractmethod
    def context(self, static: Tensor | None, values: Tensor) -> Tensor:
        """Context vectors of values [D]: [N, C], or [1, C] where all Gaussians get the same."""

    def forward(self, encoding: Tensor, values: Tensor, reach: Tensor | None = None) -> Tensor:
        """Context vectors [N, C] of encoded positions [N, P] and values [D]."""
        context = self.context(self.static(encoding, reach), values)
        return context.expand(encoding.shape[0], self.context_size)

    def attention(self, static: Tensor | None) -> Tensor | None:
        """How much each Gaussian listens to each token: [heads, N, T] of :meth:`static`'s result.

        Not negative; T in the order in which token names first appear (see ``tokens.py``). None
        where a fusion has no such weights, or they say nothing.
        """
        return None

    def rows(self, static: Tensor | None, rows: Tensor) -> Tensor | None:
        """The part of :meth:`static`'s result that belongs to some Gaussians, ``rows`` [R]."""
        return None if static is None else static[:, rows]
