"""Which Gaussians the offset network learns from in an iteration.

A few Gaussians of a frame decide nearly all of the gradient: on a real clip, 99 % of it lies on a
fifth of them; the others are hidden, off the picture or already right. The network therefore runs
forward for all, and with gradients only for a random part: each row is kept with a probability p
that grows with the size of its gradient and weighted by 1 / p, so that the weights' gradient is
right on average.
"""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["probabilities_on_device", "sample_rows", "sampling_probabilities"]


def sampling_probabilities(size: Tensor, fraction: float) -> Tensor:
    """Probabilities [N] in proportion to ``size`` [N] >= 0, at most 1, that keep ``fraction``.

    Fewer are kept where fewer than that are not 0.
    """
    if size.device.type != "cpu":
        return probabilities_on_device(size, fraction)
    wanted = fraction * len(size)
    total = float(size.sum())
    if fraction >= 1 or total <= 0:
        return torch.ones_like(size)
    probability = (size * (wanted / total)).clamp_max(1.0)
    for _ in range(4):  # what the clamp cut off is given to the others
        sure = float((probability == 1).sum())
        others = float(probability.sum()) - sure
        if others <= 0 or sure + others > 0.98 * wanted:
            break
        probability = (probability * ((wanted - sure) / others)).clamp_max(1.0)
    return probability


def probabilities_on_device(size: Tensor, fraction: float) -> Tensor:
    """As sampling_probabilities() up to rounding, without the host's waiting for any value."""
    if fraction >= 1:
        return torch.ones_like(size)
    wanted = fraction * len(size)
    total = size.sum()
    probability = (size * (wanted / total)).clamp_max(1.0)
    for _ in range(4):
        sure = (probability == 1).sum()
        others = probability.sum() - sure
        more = (others > 0) & (sure + others <= 0.98 * wanted)
        factor = torch.where(more, (wanted - sure) / others, torch.ones_like(others))
        probability = (probability * factor).clamp_max(1.0)
    return torch.where(total > 0, probability, torch.ones_like(size))


def sample_rows(gradient: Tensor, fraction: float, seed: int) -> tuple[Tensor, Tensor]:
    """Pick rows of a gradient.

    Args:
        gradient: of a loss with respect to the network's outputs, [N, K].
        fraction: of the rows to keep on average, in (0, 1]; 1 keeps every row that is not 0.
        seed: of the draw; equal seeds give equal samples.

    Returns:
        Kept rows, [R] int64, and their gradients over their probabilities, [R, K].
    """
    size = torch.linalg.vector_norm(gradient, dim=1)
    probability = sampling_probabilities(size, fraction)
    generator = torch.Generator(device=gradient.device).manual_seed(seed)
    draw = torch.rand(len(size), generator=generator, device=gradient.device)
    rows = torch.nonzero((draw < probability) & (size > 0)).flatten()
    return rows, gradient[rows] / probability[rows, None]
