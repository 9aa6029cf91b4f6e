"""Which Gaussians each tile of a picture meets, in tensors whose shapes are known beforehand.

gsplat's own ``isect_tiles`` counts the (Gaussian, tile) pairs, reads the count back to the host and
allocates as many: no CUDA graph can hold that. Here the number of pairs has a fixed bound, what is
left of it is sorted to the end, and how many there were is a tensor like any other.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

__all__ = ["TILE", "TileLists", "TileTable"]

#: Side of a tile, pixels: gsplat's.
TILE = 16
_LAST = torch.iinfo(torch.int64).max


class TileTable(NamedTuple):
    """Lists of all tiles of I pictures, one after the other."""

    gaussians: Tensor
    """Gaussians of the tiles, nearest first, counted through all pictures, int32 [capacity]; what
    lies beyond the last real pair belongs to no tile that shows."""
    start: Tensor
    """Where each tile's list starts, int32 [I, rows + 1, columns]. The last row of tiles lies below
    the picture: gsplat takes the last list of all to reach to the end of ``gaussians``, and skips
    a tile without pixels."""
    pairs: Tensor
    """(Gaussian, tile) pairs that there are, int64 [1]; above the capacity, some are missing."""


class TileLists(nn.Module):
    """Makes the lists; without control flow, allocation or copies that depend on the values.

    Args:
        images: pictures I.
        gaussians: N of each.
        width: of the pictures, pixels.
        height: of the pictures, pixels.
        capacity: pairs that there is room for.
    """

    slot: Tensor
    tile: Tensor

    def __init__(self, images: int, gaussians: int, width: int, height: int, capacity: int) -> None:
        super().__init__()
        self.gaussians = gaussians
        self.columns, self.rows = -(-width // TILE), -(-height // TILE)
        self.images = images
        self.capacity = capacity
        count = images * (self.rows + 1) * self.columns
        self.register_buffer("slot", torch.arange(capacity), persistent=False)
        self.register_buffer("tile", torch.arange(count), persistent=False)

    def forward(self, means2d: Tensor, radii: Tensor, depths: Tensor) -> TileTable:
        """Lists of projected Gaussians.

        Args:
            means2d: centres, pixels, [I, N, 2].
            radii: half sizes of the boxes, pixels, int32 [I, N, 2]; 0 for what is not seen, whose
                other values may be anything.
            depths: positive, [I, N] float32.
        """
        seen = (radii > 0).all(-1)
        centre, reach = means2d / TILE, radii / TILE
        low, high = (centre - reach).floor(), (centre + reach).ceil()
        left, right = (v[..., 0].clamp(0, self.columns) for v in (low, high))
        top, bottom = (v[..., 1].clamp(0, self.rows) for v in (low, high))
        across = right - left
        count = torch.where(seen, across * (bottom - top), 0.0).long().flatten()
        end = count.cumsum(0)
        box = torch.stack([left, top, across], -1).long().flatten(0, 1)
        # A slot for each pair: its Gaussian, and which of that one's tiles.
        owner = torch.searchsorted(end, self.slot, right=True)
        owner = owner.clamp_max(self.images * self.gaussians - 1)
        left, top, across = box[owner].unbind(-1)
        across = across.clamp_min(1)
        nth = self.slot - (end - count)[owner]
        row = (owner // self.gaussians) * (self.rows + 1) + top + nth // across
        tile = row * self.columns + left + nth % across
        # Bits of positive floats rise with their value.
        depth = depths.contiguous().view(torch.int32).flatten()[owner].long()
        key = torch.where(self.slot < end[-1:], (tile << 32) | depth, _LAST)
        ordered, order = torch.sort(key, stable=True)
        start = torch.searchsorted(ordered, self.tile << 32)
        return TileTable(
            owner[order].int(),
            start.int().reshape(self.images, self.rows + 1, self.columns),
            end[-1:],
        )
