"""The offset network F_theta (eq. 6) and its bounded outputs."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

__all__ = ["NUM_OUTPUTS", "OffsetNetwork", "Offsets", "bounded_offsets", "offset_limits"]

#: Raw outputs per Gaussian: position, rotation, log-scale, colour.
NUM_OUTPUTS = 12


@dataclass(frozen=True)
class Offsets:
    """Offsets of N Gaussians, in the frame of the rest surface."""

    position: Tensor
    """Metres, [N, 3]."""
    rotation: Tensor
    """Imaginary parts of quaternions whose real part is 1, [N, 3]."""
    log_scale: Tensor
    """[N, 3]."""
    color: Tensor
    """Added to RGB, [N, 3]."""


def offset_limits(position: Tensor, rotation: float, log_scale: float, color: float) -> Tensor:
    """Largest offsets, reached where the network's tanh saturates: [N, 12].

    Args:
        position: along each axis, metres, [N].
        rotation: each imaginary part of the quaternion, before it is normalised.
        log_scale: each axis, natural logarithm.
        color: each RGB channel; 0 leaves colours alone.
    """
    others = position.new_tensor([rotation, log_scale, color]).repeat_interleave(3)
    return torch.cat([position[:, None].expand(-1, 3), others.expand(len(position), -1)], 1)


def bounded_offsets(raw: Tensor, limits: Tensor) -> Offsets:
    """Squash raw outputs [N, 12] into +- ``limits`` [N, 12] with tanh.

    Unbounded offsets are why codes outside the training range make avatars explode.
    """
    squashed = torch.tanh(raw if raw.dtype == torch.float64 else raw.float()) * limits
    return Offsets(*squashed.split(3, dim=1))


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
        self.last = nn.Linear(width, NUM_OUTPUTS)
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
