"""Blending of projected Gaussians on the CPU, forward and backward: compiled C, else numba."""

from __future__ import annotations

import ctypes
import logging
from abc import ABC, abstractmethod
from ctypes import c_int32, c_void_p
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from cag_avatar.native.library import NativeUnavailableError, check_layout, load_library
from cag_avatar.rendering import cpu_kernels as kernels

__all__ = ["Blending", "NativeBlending", "NumbaBlending", "Projected", "blending_class"]

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Projected:
    """Projected Gaussians and the room of each tile's list; see ``cpu_kernels`` for the arrays."""

    width: int
    height: int
    tile_columns: int
    tile_rows: int
    geometry: NDArray[np.float64]
    boxes: NDArray[np.int32]
    keys: NDArray[np.int64]
    order: NDArray[np.int32]
    slots: NDArray[np.int64]
    starts: NDArray[np.int64]
    pairs: int

    @property
    def tiles(self) -> int:
        """Number of tiles."""
        return self.tile_columns * self.tile_rows


class Blending(ABC):
    """One picture's blending; keeps what its gradients need."""

    TILE_WIDTH: ClassVar[int]
    """Pixels; what Projected counts in."""
    TILE_HEIGHT: ClassVar[int]
    """Pixels."""

    def __init__(self, projected: Projected) -> None:
        self.projected = projected

    @abstractmethod
    def forward(
        self, threads: int, colors: NDArray[np.float32], background: NDArray[np.float32], keep: bool
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Image [H, W, 3] and alpha [H, W] from colours [N, 3] over a background [3].

        ``keep``: whether backward() will be called.
        """

    @abstractmethod
    def backward(
        self,
        threads: int,
        colors: NDArray[np.float32],
        background: NDArray[np.float32],
        grad_image: NDArray[np.float32],
        grad_alpha: NDArray[np.float32],
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Gradients of the pairs [pairs, PAIR_GRADIENTS], slot by slot, and of the background."""

    def _pictures(self) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        height, width = self.projected.height, self.projected.width
        return np.empty((height, width, 3), np.float32), np.empty((height, width), np.float32)

    def _gradients(self) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        pairs = np.zeros((self.projected.pairs, kernels.PAIR_GRADIENTS), np.float32)
        return pairs, np.empty((self.projected.tiles, 3), np.float32)


class NumbaBlending(Blending):
    """The loops of ``cpu_kernels.py``."""

    TILE_WIDTH = kernels.TILE_WIDTH
    TILE_HEIGHT = kernels.TILE_HEIGHT

    def forward(
        self, threads: int, colors: NDArray[np.float32], background: NDArray[np.float32], keep: bool
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """See Blending.forward()."""
        p, tiles = self.projected, self.projected.tiles
        ends, self._work, self._used = (np.empty(tiles, np.int64) for _ in range(3))
        kept = (tiles if keep else 0, kernels.TILE_PIXELS)
        self._final, self._stop = np.empty(kept, np.float32), np.empty(kept, np.float32)
        self._gaussian, self._rows = (np.empty(p.pairs, np.int32) for _ in range(2))
        self._slot = np.empty(p.pairs, np.int64)
        image, alpha = self._pictures()
        kernels.bin_pairs(
            threads, p.order, p.geometry, p.boxes, p.slots, p.starts, p.tile_columns, p.tile_rows,
            p.height, ends, self._work, self._gaussian, self._rows, self._slot,
        )  # fmt: skip
        kernels.blend_forward(
            threads, p.geometry, colors, background, p.tile_rows, p.starts, ends, self._work,
            self._gaussian, self._rows, image, alpha, keep, self._final, self._stop, self._used,
        )  # fmt: skip
        return image, alpha

    def backward(
        self,
        threads: int,
        colors: NDArray[np.float32],
        background: NDArray[np.float32],
        grad_image: NDArray[np.float32],
        grad_alpha: NDArray[np.float32],
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """See Blending.backward()."""
        p = self.projected
        pairs, tile_background = self._gradients()
        kernels.blend_backward(
            threads, p.geometry, colors, background, p.tile_rows, p.starts, self._work,
            self._gaussian, self._rows, self._slot, self._final, self._stop, self._used, grad_image,
            grad_alpha, pairs, tile_background,
        )  # fmt: skip
        return pairs, tile_background.sum(0, dtype=np.float64).astype(np.float32)


class _Splatting(ctypes.Structure):
    """``Splatting`` of splatting.c."""

    _fields_ = (
        *((n, c_int32) for n in ("width", "height", "columns", "rows", "threads", "count")),
        *((name, c_void_p) for name in (
            "geometry", "color", "background", "box", "order", "slot", "start", "pair", "pair_slot",
            "image", "alpha", "final", "stop", "used", "grad_image", "grad_alpha", "grad_pair",
            "grad_background",
        )),
    )  # fmt: skip


class NativeBlending(Blending):
    """``native/splatting.c``: about twice as fast."""

    TILE_WIDTH = 32
    TILE_HEIGHT = 32

    def forward(
        self, threads: int, colors: NDArray[np.float32], background: NDArray[np.float32], keep: bool
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """See Blending.forward()."""
        p = self.projected
        image, alpha = self._pictures()
        self._arrays: dict[str, NDArray[Any]] = {
            "geometry": p.geometry,
            "box": p.boxes,
            "order": p.order,
            "slot": p.slots,
            "start": p.starts,
            "pair": np.empty(p.pairs, np.int32),
            "pair_slot": np.empty(p.pairs, np.int32),
        }
        if keep:
            pixels = (p.tiles, self.TILE_WIDTH * self.TILE_HEIGHT)
            self._arrays["final"] = np.empty(pixels, np.float32)
            self._arrays["stop"] = np.empty(pixels, np.float32)
            self._arrays["used"] = np.empty(p.tiles, np.int32)
        self._call(
            "cag_splat", threads, color=colors, background=background, image=image, alpha=alpha
        )
        return image, alpha

    def backward(
        self,
        threads: int,
        colors: NDArray[np.float32],
        background: NDArray[np.float32],
        grad_image: NDArray[np.float32],
        grad_alpha: NDArray[np.float32],
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """See Blending.backward()."""
        pairs, tile_background = self._gradients()
        self._call(
            "cag_splat_backward", threads, color=colors, background=background,
            grad_image=grad_image, grad_alpha=grad_alpha, grad_pair=pairs,
            grad_background=tile_background,
        )  # fmt: skip
        return pairs, tile_background.sum(0, dtype=np.float64).astype(np.float32)

    def _call(self, function: str, threads: int, **arrays: NDArray[Any]) -> None:
        p = self.projected
        s = _Splatting(p.width, p.height, p.tile_columns, p.tile_rows, threads, len(p.order))
        for name, array in (self._arrays | arrays).items():
            setattr(s, name, array.ctypes.data)
        getattr(load_library("splatting"), function)(ctypes.byref(s))


@lru_cache(maxsize=1)
def blending_class() -> type[Blending]:
    """What this machine blends with; logged."""
    try:
        library = load_library("splatting")
    except NativeUnavailableError as error:
        _log.info("cpu rasterizer: numba (%s)", error)
        return NumbaBlending
    check_layout(library, _Splatting)
    return NativeBlending
