"""The matting Laplacian's rows at some of a picture's pixels (Levin, Lischinski, Weiss 2008).

pymatting builds the Laplacian of a whole picture. In a band around an outline that is mostly zeros,
and filling them takes longer than all of the rest of the solution.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

__all__ = ["laplacian_rows"]


def laplacian_rows(
    image: NDArray[np.uint8], unknown: NDArray[np.bool_], epsilon: float
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Rows of the matting Laplacian of 3 x 3 windows; windows of known pixels only count for none.

    Args:
        image: [h, w, 3], RGB.
        unknown: pixels whose rows are wanted, n of them, [h, w].
        epsilon: regulariser of a window's summed colour covariance, colours in [0, 1].

    Returns:
        (values [n, 25], columns [n, 25]): the entries of each row and the flat pixel numbers they
        belong to, the 5 x 5 neighbourhood in row order; the pixels are in row order too. Beyond
        the picture's edge the value is 0 and the column the row's own.
    """
    height, width = unknown.shape
    flat = np.flatnonzero(unknown)
    number = np.full(unknown.shape, -1, np.int64)
    number.ravel()[flat] = np.arange(len(flat))
    values = np.zeros((len(flat), 25))
    _accumulate(np.ascontiguousarray(image), number, float(epsilon), values)
    y, x = np.divmod(flat, width)
    step = np.arange(-2, 3)
    down, right = np.repeat(step, 5), np.tile(step, 5)
    rows, columns = y[:, None] + down, x[:, None] + right
    inside = (rows >= 0) & (rows < height) & (columns >= 0) & (columns < width)
    return values, np.where(inside, rows * width + columns, flat[:, None])


@njit(cache=True, nogil=True)
def _accumulate(image: Any, number: Any, epsilon: float, values: Any) -> None:
    height, width = number.shape
    c = np.empty((9, 3))
    p = np.empty((9, 3))
    for y in range(1, height - 1):
        for x in range(1, width - 1):
            wanted = False
            for k in range(9):
                if number[y + k // 3 - 1, x + k % 3 - 1] >= 0:
                    wanted = True
                    break
            if not wanted:
                continue
            for channel in range(3):
                total = 0.0
                for k in range(9):
                    value = image[y + k // 3 - 1, x + k % 3 - 1, channel] / 255.0
                    c[k, channel] = value
                    total += value
                for k in range(9):
                    c[k, channel] -= total / 9
            rr, rg, rb, gg, gb, bb = epsilon, 0.0, 0.0, epsilon, 0.0, epsilon
            for k in range(9):
                rr += c[k, 0] * c[k, 0]
                rg += c[k, 0] * c[k, 1]
                rb += c[k, 0] * c[k, 2]
                gg += c[k, 1] * c[k, 1]
                gb += c[k, 1] * c[k, 2]
                bb += c[k, 2] * c[k, 2]
            # Adjugate over determinant: the inverse of the 3 x 3 covariance, times 1 / 9.
            m00, m01, m02 = gg * bb - gb * gb, gb * rb - rg * bb, rg * gb - gg * rb
            m11, m12, m22 = rr * bb - rb * rb, rb * rg - rr * gb, rr * gg - rg * rg
            det = rr * m00 + rg * m01 + rb * m02
            for k in range(9):
                p[k, 0] = (m00 * c[k, 0] + m01 * c[k, 1] + m02 * c[k, 2]) / det
                p[k, 1] = (m01 * c[k, 0] + m11 * c[k, 1] + m12 * c[k, 2]) / det
                p[k, 2] = (m02 * c[k, 0] + m12 * c[k, 1] + m22 * c[k, 2]) / det
            for i in range(9):
                row = number[y + i // 3 - 1, x + i % 3 - 1]
                if row < 0:
                    continue
                for j in range(9):
                    near = c[i, 0] * p[j, 0] + c[i, 1] * p[j, 1] + c[i, 2] * p[j, 2]
                    column = 5 * (j // 3 - i // 3 + 2) + j % 3 - i % 3 + 2
                    values[row, column] -= 1.0 / 9 + near
                values[row, 12] += 1.0
