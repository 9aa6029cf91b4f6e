"""Photometric losses (eq. 8)."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional

__all__ = ["huber", "photometric_loss"]


def huber(image: Tensor, target: Tensor, delta: float = 0.1) -> Tensor:
    """Mean Huber loss: d^2 / 2 below ``delta``, delta (|d| - delta / 2) above (Huber 1964)."""
    return functional.huber_loss(image, target, delta=delta)


def photometric_loss(
    image: Tensor, target: Tensor, mouth: Tensor, mouth_weight: float = 40.0, delta: float = 0.1
) -> Tensor:
    """L_c = L_H(I, I') + lambda_mouth L_H(I M, I' M), both means over all pixels (eq. 8).

    Args:
        image: rendered, [H, W, 3].
        target: [H, W, 3].
        mouth: mask M in [0, 1], [H, W].
        mouth_weight: lambda_mouth.
        delta: of the Huber loss.
    """
    loss = huber(image, target, delta)
    rows, columns = mouth.any(1).nonzero(), mouth.any(0).nonzero()
    if mouth_weight <= 0 or len(rows) == 0:
        return loss
    # Outside the mask the masked difference is 0: only its bounding box is computed.
    box = (slice(int(rows[0]), int(rows[-1]) + 1), slice(int(columns[0]), int(columns[-1]) + 1))
    mask = mouth[box][..., None]
    inside = huber(image[box] * mask, target[box] * mask, delta)
    return loss + mouth_weight * inside * (mask.numel() / mouth.numel())
