"""The offset network F_theta (eq. 6) and its bounded outputs."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

__all__ = ["OffsetBounds", "OffsetNetwork", "Offsets", "bounded_offsets"]

#: Raw outputs per Gaussian: position, rotation, log-scale, colour.
_OUTPUTS = 12


@dataclass(frozen=True)
class OffsetBounds:
    """Largest offsets, reached when the network's tanh saturates."""

    position: Tensor
    """Along each axis, metres, [N, 1]."""
    rotation: float
    """Each imaginary part of the quaternion, before it is normalised (its real part is 1)."""
    log_scale: float
    """Each axis, natural logarithm."""
    color: float
    """Each RGB channel; 0 leaves colours alone."""


@dataclass(frozen=True)
class Offsets:
    """Offsets of N Gaussians, in the frame of the rest surface."""

    position: Tensor
    """Metres, [N, 3]."""
    rotation: Tensor
    """Quaternions wxyz, not normalised, [N, 4]."""
    log_scale: Tensor
    """[N, 3]."""
    color: Tensor
    """Added to RGB, [N, 3]."""


def bounded_offsets(raw: Tensor, bounds: OffsetBounds) -> Offsets:
    """Squash raw outputs [N, 12] into their bounds with tanh.

    Unbounded offsets are why codes outside the training range make avatars explode.
    """
    squashed = torch.tanh(raw if raw.dtype == torch.float64 else raw.float())
    return Offsets(
        position=squashed[:, 0:3] * bounds.position,
        rotation=torch.nn.functional.pad(squashed[:, 3:6] * bounds.rotation, (1, 0), value=1.0),
        log_scale=squashed[:, 6:9] * bounds.log_scale,
        color=squashed[:, 9:12] * bounds.color,
    )


class OffsetNetwork(nn.Module):
    """ReLU network on concat(c_psi, gamma(mu_T)) -> raw offsets (eq. 6).

    The first layer is kept as two products, of the encoding and of the context, so that the first
    can be computed once for an avatar and a context that all Gaussians share costs one row.

    Args:
        encoding_size: length D of an encoded position.
        context_size: length C of a context vector.
        width: neurons in a hidden layer.
        depth: hidden layers, at least 1.
    """

    def __init__(self, encoding_size: int, context_size: int, width: int, depth: int) -> None:
        super().__init__()
        self.encoding_size = encoding_size
        self.first = nn.Linear(encoding_size + context_size, width)
        self.hidden = nn.ModuleList(nn.Linear(width, width) for _ in range(depth - 1))
        self.last = nn.Linear(width, _OUTPUTS)
        # Training starts from the motion of the mesh: offsets near zero, gradients not.
        nn.init.normal_(self.last.weight, std=1e-3)
        nn.init.zeros_(self.last.bias)

    def static(self, encoding: Tensor) -> Tensor:
        """The part of the first layer that depends on positions [N, D] alone: [N, width]."""
        weight = self.first.weight[:, : self.encoding_size]
        return nn.functional.linear(encoding, weight, self.first.bias)

    def from_static(self, static: Tensor, context: Tensor) -> Tensor:
        """Raw offsets [N, 12] of a static part [N, width] and contexts [N, C] or [1, C]."""
        weight = self.first.weight[:, self.encoding_size :]
        value = torch.relu_(static + nn.functional.linear(context, weight))
        for layer in self.hidden:
            value = torch.relu_(layer(value))
        return self.last(value)

    def forward(self, encoding: Tensor, context: Tensor) -> Tensor:
        """Raw offsets [N, 12] of encodings [N, D] and contexts [N, C] or [1, C]."""
        return self.from_static(self.static(encoding), context)
