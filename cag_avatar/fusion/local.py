"""Offsets that each Gaussian reads from its context by a matrix of its own."""

from __future__ import annotations

from torch import Tensor, nn

from cag_avatar.fusion.offsets import NUM_OUTPUTS

__all__ = ["LocalOffsets"]


class LocalOffsets(nn.Module):
    """Adds gain_i L_i c_i to the raw offsets of Gaussian i, L_i learned for each: zero at first.

    The network is shared by all Gaussians and smooth in their positions; a wrinkle, a gap between
    two teeth or the rim of a lid is not. What belongs to one place is kept there. It generalises
    only where the context does: behind gates a Gaussian's matrix sees what moves its own place.

    Args:
        size: numbers K of the context that are read, from its start.
        gain: factor on each output, [N, 12]; where offsets may be large it should be small, or a
            step of the optimiser moves hair and clothes several times as far as skin.
    """

    def __init__(self, size: int, gain: Tensor) -> None:
        super().__init__()
        self.weight = nn.Parameter(gain.new_zeros(len(gain), size, NUM_OUTPUTS))
        """[N, K, 12]."""
        self.register_buffer("gain", gain, persistent=False)

    gain: Tensor

    def forward(self, context: Tensor, rows: Tensor | None = None) -> Tensor:
        """Additions [R, 12] to the raw offsets of Gaussians ``rows`` [R] (all if None).

        Args:
            context: [R, C] with C >= K, or [1, C].
            rows: indices of the Gaussians.
        """
        weight = self.weight if rows is None else self.weight[rows]
        gain = self.gain if rows is None else self.gain[rows]
        read = context[:, None, : weight.shape[1]].to(weight.dtype)
        return (read @ weight)[:, 0] * gain
