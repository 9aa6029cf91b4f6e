"""The inner loops of irises.py: ``native/irises.c``, or numpy where there is no compiler (some
fifteen times slower)."""

from __future__ import annotations

import ctypes
import logging
from ctypes import c_double, c_float, c_int32, c_int64, c_void_p
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cag_avatar.native.library import NativeUnavailableError, check_layout, load_library

__all__ = ["gather_rings", "template_costs"]

_LOG = logging.getLogger(__name__)

Array = NDArray[Any]


class _IrisLook(ctypes.Structure):
    """``IrisLook`` of irises.c."""

    _fields_ = (
        ("colors", c_void_p),
        ("at", c_void_p),
        ("pixels", c_int64),
        ("rings", c_void_p),
        ("count", c_int32),
        ("density", c_float),
    )


@lru_cache(maxsize=1)
def _library() -> ctypes.CDLL | None:
    try:
        library = load_library("irises")
    except NativeUnavailableError as error:
        _LOG.info("irises: numpy (%s)", error)
        return None
    check_layout(library, _IrisLook)
    library.cag_iris_costs.argtypes = [
        ctypes.POINTER(_IrisLook), c_void_p, c_int64, c_void_p, c_int64, c_double, c_void_p,
    ]  # fmt: skip
    library.cag_iris_gather.argtypes = [
        ctypes.POINTER(_IrisLook), c_void_p, c_double, c_void_p, c_void_p,
    ]  # fmt: skip
    for function in (library.cag_iris_costs, library.cag_iris_gather):
        function.restype = None
    return library


def template_costs(
    colors: NDArray[np.float32],
    at: NDArray[np.float32],
    rings: NDArray[np.float32],
    density: float,
    x: NDArray[np.float64],
    y: NDArray[np.float64],
    most: float,
) -> NDArray[np.float64]:
    """Mean differences of an eye's pixels from a template, summed over the channels, [X, Y].

    Args:
        colors: of P pixels, [P, 3].
        at: where they are, iris radii, [P, 2].
        rings: the template's colours, the last for all beyond, [R + 2, 3].
        density: rings in an iris radius.
        x: places of the centre to try, iris radii, [X].
        y: the same down, [Y].
        most: what a pixel can differ at most.
    """
    costs = np.empty((len(x), len(y)))
    library = _library()
    if library is not None:
        arrays = [np.ascontiguousarray(value, np.float64) for value in (x, y)]
        look, kept = _look_of(colors, at, rings, density)
        library.cag_iris_costs(
            look, arrays[0].ctypes.data, len(x), arrays[1].ctypes.data, len(y), most,
            costs.ctypes.data,
        )  # fmt: skip
        del kept
        return costs
    for i, column in enumerate(x):
        offset = at[None] - np.stack([np.full_like(y, column), y], 1)[:, None]
        off, _, _ = _differences(colors, offset, rings, density)
        costs[i] = np.minimum(off, most).mean(1)
    return costs


def gather_rings(
    colors: NDArray[np.float32],
    at: NDArray[np.float32],
    rings: NDArray[np.float32],
    density: float,
    centre: NDArray[np.float64],
    half: float,
    sums: NDArray[np.float64],
    weights: NDArray[np.float64],
) -> None:
    """Add an eye's pixels, seen from ``centre`` [2], to the sums [R + 2, 3] and weights [R + 2] of
    a new template's rings.

    A pixel that differs from ``rings`` by ``half`` counts half; with ``half`` 0 all count fully.
    The other arguments are those of :func:`template_costs`.
    """
    library = _library()
    if library is not None:
        middle = np.ascontiguousarray(centre, np.float64)
        look, kept = _look_of(colors, at, rings, density)
        library.cag_iris_gather(
            look, middle.ctypes.data, half, sums.ctypes.data, weights.ctypes.data
        )
        del kept
        return
    off, ring, share = _differences(colors, at - np.asarray(centre, np.float32), rings, density)
    trust = 1.0 / (1.0 + (off / half) ** 2) if half > 0 else np.ones_like(off)
    for k, part in ((0, trust * (1 - share)), (1, trust * share)):
        np.add.at(weights, ring + k, part)
        np.add.at(sums, ring + k, part[:, None] * colors)


def _look_of(colors: Array, at: Array, rings: Array, density: float) -> tuple[Any, list[Array]]:
    """The structure, and the arrays that must outlive its use."""
    arrays = [np.ascontiguousarray(value, np.float32) for value in (colors, at, rings)]
    look = _IrisLook(
        arrays[0].ctypes.data, arrays[1].ctypes.data, len(at), arrays[2].ctypes.data,
        len(rings) - 2, density,
    )  # fmt: skip
    return ctypes.byref(look), arrays


def _differences(
    colors: Array, offset: Array, rings: Array, density: float
) -> tuple[Array, Array, Array]:
    """How far pixels [P, 3] at ``offset`` [..., P, 2] from the centre are from the template; their
    rings, and the shares of the next ones; [..., P] each."""
    place = np.minimum(np.hypot(offset[..., 0], offset[..., 1]) * density, len(rings) - 2)
    ring = place.astype(np.int64)
    share = place - ring
    value = rings[ring] + share[..., None] * (rings[ring + 1] - rings[ring])
    return np.abs(colors - value).sum(-1), ring, share
