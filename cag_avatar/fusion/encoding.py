"""Positional encoding gamma of a canonical position (Mildenhall et al. 2020)."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["encode_positions", "encoded_size"]


def encoded_size(octaves: int, dimensions: int = 3) -> int:
    """Length of an encoded vector: 3 coordinates and 8 octaves give 51."""
    return dimensions * (1 + 2 * octaves)


def encode_positions(positions: Tensor, octaves: int = 8, scale: float = 0.15) -> Tensor:
    """gamma(p): p / scale, then sin and cos of 2^k p / scale for k = 0 .. octaves - 1.

    Dividing by about the radius of a head makes the coarsest wave as long as the head (0.94 m) and
    the finest 7.4 mm; raw metres would make the finest 5 cm, too long for a lip.

    Args:
        positions: canonical space, metres, [..., 3].
        octaves: number of frequencies.
        scale: length that becomes 1, metres.

    Returns:
        [..., 3 + 6 * octaves]: the input first, then per octave the sines and the cosines.
    """
    unit = positions / scale
    frequencies = 2.0 ** torch.arange(octaves, dtype=unit.dtype, device=unit.device)
    angles = unit[..., None, :] * frequencies[:, None]  # [..., octaves, 3]
    waves = torch.stack([angles.sin(), angles.cos()], -2)  # [..., octaves, 2, 3]
    return torch.cat([unit, waves.flatten(-3)], -1)
