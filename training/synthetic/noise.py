"""Smooth random fields over space, the same everywhere for the same seed."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit, prange
from numpy.typing import NDArray

__all__ = ["fractal_noise", "streak_tile"]


def fractal_noise(
    points: NDArray[Any], frequency: float, octaves: int = 1, seed: int = 0
) -> NDArray[np.float32]:
    """Sum of octaves of lattice value noise.

    Args:
        points: positions in metres, [N, 3].
        frequency: lattice cells per metre of the first octave; each further octave doubles it at
            half the strength.
        octaves: how many to add.
        seed: chooses the field.

    Returns:
        [N] float32, mean about 0, within [-1, 1].
    """
    return _fractal(np.ascontiguousarray(points, np.float32), np.float32(frequency), octaves, seed)


def streak_tile(rng: np.random.Generator, size: int = 256) -> NDArray[np.float32]:
    """A tile of streaks along the second axis: strands of hair, seen from above.

    Both axes wrap around. Values have mean 0.5 and stay within [0, 1]; [size, size] float32.
    """
    white = rng.normal(size=(size, size))
    spectrum = np.fft.rfft2(white)
    across = np.fft.fftfreq(size)[:, None] * size
    along = np.fft.rfftfreq(size)[None] * size
    fine = np.exp(-((along / 3.0) ** 2)) * np.exp(-((across / 90.0) ** 2))
    clumps = 2.2 * np.exp(-((along / 2.0) ** 2)) * np.exp(-((across / 18.0) ** 2))
    tile = np.fft.irfft2(spectrum * (fine + clumps), s=(size, size))
    tile /= tile.std()
    return np.asarray(np.clip(0.5 + 0.2 * tile, 0, 1), np.float32)


@njit(cache=True, nogil=True)
def _hash(x, y, z, seed):  # type: ignore[no-untyped-def]
    h = np.uint32(x * 73856093) ^ np.uint32(y * 19349663) ^ np.uint32(z * 83492791)
    h = np.uint32(h ^ np.uint32(seed * 2654435761))
    h = np.uint32((h ^ (h >> np.uint32(16))) * np.uint32(0x7FEB352D))
    h = np.uint32((h ^ (h >> np.uint32(15))) * np.uint32(0x846CA68B))
    h = np.uint32(h ^ (h >> np.uint32(16)))
    return np.float32(h & np.uint32(0xFFFFFF)) * np.float32(2.0 / 16777215.0) - np.float32(1.0)


@njit(cache=True, nogil=True, parallel=True)
def _fractal(points, frequency, octaves, seed):  # type: ignore[no-untyped-def]
    out = np.zeros(len(points), np.float32)
    corner = np.array([0, 1], np.int64)
    for n in prange(len(points)):
        total = np.float32(0)
        scale = frequency
        strength = np.float32(1)
        norm = np.float32(0)
        for octave in range(octaves):
            x, y, z = points[n, 0] * scale, points[n, 1] * scale, points[n, 2] * scale
            i, j, k = int(np.floor(x)), int(np.floor(y)), int(np.floor(z))
            u, v, w = x - i, y - j, z - k
            u, v, w = u * u * (3 - 2 * u), v * v * (3 - 2 * v), w * w * (3 - 2 * w)
            value = np.float32(0)
            for a in corner:
                wa = u if a else 1 - u
                for b in corner:
                    wb = v if b else 1 - v
                    for c in corner:
                        wc = w if c else 1 - w
                        value += wa * wb * wc * _hash(i + a, j + b, k + c, seed + 101 * octave)
            total += strength * value
            norm += strength
            strength *= np.float32(0.5)
            scale *= np.float32(2)
        out[n] = total / norm
    return out
