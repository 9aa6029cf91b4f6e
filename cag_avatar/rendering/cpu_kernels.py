"""Numba kernels of the CPU rasteriser.

Stages, forward: project (parallel over Gaussians), sort by depth, bin into tiles (parallel over
tile columns), blend (parallel over tiles). Backward: blend back to front (parallel over tiles),
then sum per Gaussian and go back through the projection (parallel over Gaussians).

Per-Gaussian work runs in double precision (it is cheap), per-pixel work in single precision. To
lose nothing to cancellation, the quadratic form of a Gaussian is factored as d^T S^-1 d = u^2 + v^2
with u = a dx + b dy, v = c dy, and u, v are evaluated from their values at the tile's corner.

Tiles are TILE_WIDTH pixels wide so that one row is one 256-bit vector, and tall so that few
(Gaussian, tile) pairs arise. Pixels of a tile are stored row by row; a pair visits only the rows
that its ellipse reaches, as one loop over contiguous pixels without branches, which LLVM
vectorises.

Every pair owns one slot for its gradients, so results do not depend on the number of threads.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit, prange

from cag_avatar.rendering.rasterizer import (
    ALPHA_THRESHOLD,
    FAR_PLANE,
    MAX_ALPHA,
    MIN_TRANSMITTANCE,
    NEAR_PLANE,
)

__all__ = [
    "GEOMETRY_COLUMNS",
    "PAIR_GRADIENTS",
    "TILE_HEIGHT",
    "TILE_PIXELS",
    "TILE_WIDTH",
    "VIEW_CHUNK",
    "bin_pairs",
    "blend_backward",
    "blend_forward",
    "count_pairs",
    "project_backward",
    "project_forward",
    "sort_by_depth",
]

TILE_WIDTH = 8
TILE_HEIGHT = 32
TILE_PIXELS = TILE_WIDTH * TILE_HEIGHT
#: Gradient sums a (Gaussian, tile) pair leaves behind: g, gu, gv, guu, guv, gvv, red, green, blue.
PAIR_GRADIENTS = 9
#: Columns of the per-Gaussian table: mean x, mean y, a, b, c, log2 opacity.
GEOMETRY_COLUMNS = 6
#: Gaussians summed into one partial gradient of the view matrix: fixed, so that the sum is too.
VIEW_CHUNK = 256

_LOG2_E = math.log2(math.e)
# u and v are scaled so that alpha = 2^(log2 opacity - u^2 - v^2).
_WHITEN = math.sqrt(0.5 * _LOG2_E)
_LOG2_THRESHOLD = math.log2(ALPHA_THRESHOLD)
#: Supports are widened by this much in log2(alpha), to be safe from single precision.
_SUPPORT_MARGIN = 2e-5
_KEY_BITS = 44
_RADIX_BITS = 11

# float32 and unsigned constants: a bare number would turn the arithmetic to double or signed.
_ZERO, _ONE = np.float32(0), np.float32(1)
_F_MAX_ALPHA, _F_THRESHOLD = np.float32(MAX_ALPHA), np.float32(ALPHA_THRESHOLD)
_F_MIN_TRANSMITTANCE = np.float32(MIN_TRANSMITTANCE)

_NUM_FIELDS = 8
#: Distance of the fields of a tile's state. Not a power of two: fields 4096 bytes apart would look
#: to the CPU like the same address, and every load would wait for an unrelated store.
_STRIDE = TILE_PIXELS + 24
_FIELD_1, _FIELD_2, _FIELD_3 = np.uint64(_STRIDE), np.uint64(2 * _STRIDE), np.uint64(3 * _STRIDE)
_FIELD_4, _FIELD_5 = np.uint64(4 * _STRIDE), np.uint64(5 * _STRIDE)
_FIELD_6, _FIELD_7 = np.uint64(6 * _STRIDE), np.uint64(7 * _STRIDE)

# 2^f on [0, 1] as a polynomial of degree 5 through Chebyshev nodes, relative error 1e-7.
_NODES = 0.5 + 0.5 * np.cos((np.arange(6) + 0.5) * np.pi / 6)
_E0, _E1, _E2, _E3, _E4, _E5 = (
    np.float32(c) for c in np.polynomial.polynomial.polyfit(_NODES, np.exp2(_NODES), 5)
)
_E_FLOOR = np.float32(-20.0)
_E_BIAS, _E_UNIT = np.float32(127), np.float32(1 << 23)

# Reassociation and contraction only: NaN and infinity keep their meaning.
_FAST = {"reassoc", "contract", "arcp", "nsz"}


@njit(inline="always")
def _exp2(x):  # type: ignore[no-untyped-def]
    """2^x in single precision, relative error below 1e-6; x below -20 counts as -20."""
    x = max(x, _E_FLOOR)
    whole = np.floor(x)
    f = x - whole
    power = ((((_E5 * f + _E4) * f + _E3) * f + _E2) * f + _E1) * f + _E0
    # 2^whole, by its exponent bits: the product is exact in single precision.
    return power * np.int32((whole + _E_BIAS) * _E_UNIT).view(np.float32)


# -------------------------------------------------------------------------------------------------
# Projection
# -------------------------------------------------------------------------------------------------


@njit(nogil=True, cache=True, error_model="numpy")
def _rotation(w: float, x: float, y: float, z: float, out: np.ndarray) -> None:
    """Rotation matrix of a unit quaternion."""
    out[0, 0] = 1 - 2 * (y * y + z * z)
    out[0, 1] = 2 * (x * y - w * z)
    out[0, 2] = 2 * (x * z + w * y)
    out[1, 0] = 2 * (x * y + w * z)
    out[1, 1] = 1 - 2 * (x * x + z * z)
    out[1, 2] = 2 * (y * z - w * x)
    out[2, 0] = 2 * (x * z - w * y)
    out[2, 1] = 2 * (y * z + w * x)
    out[2, 2] = 1 - 2 * (x * x + y * y)


@njit(nogil=True, cache=True, error_model="numpy")
def _project_range(
    start: int,
    stop: int,
    means: np.ndarray,
    quaternions: np.ndarray,
    scales: np.ndarray,
    opacities: np.ndarray,
    colors: np.ndarray,
    view: np.ndarray,
    lens: np.ndarray,
    width: int,
    height: int,
    tile_width: int,
    tile_height: int,
    geometry: np.ndarray,
    boxes: np.ndarray,
    keys: np.ndarray,
) -> None:
    """Project Gaussians start..stop; keys[i] = -1 marks those that cannot be seen."""
    fx, fy, cx, cy, x_min, x_max, y_min, y_max, blur = lens
    rotation = np.empty((3, 3))
    for i in range(start, stop):
        keys[i] = -1
        px, py, pz = float(means[i, 0]), float(means[i, 1]), float(means[i, 2])
        qw, qx = float(quaternions[i, 0]), float(quaternions[i, 1])
        qy, qz = float(quaternions[i, 2]), float(quaternions[i, 3])
        s0, s1, s2 = float(scales[i, 0]), float(scales[i, 1]), float(scales[i, 2])
        opacity = float(opacities[i])
        # One sum finds any NaN or infinity (float32 values cannot overflow a double).
        total = px + py + pz + qw + qx + qy + qz + s0 + s1 + s2 + opacity
        total += float(colors[i, 0]) + float(colors[i, 1]) + float(colors[i, 2])
        if not math.isfinite(total) or opacity < ALPHA_THRESHOLD:
            continue
        z = view[2, 0] * px + view[2, 1] * py + view[2, 2] * pz + view[2, 3]
        if not (NEAR_PLANE <= z <= FAR_PLANE):
            continue
        x = view[0, 0] * px + view[0, 1] * py + view[0, 2] * pz + view[0, 3]
        y = view[1, 0] * px + view[1, 1] * py + view[1, 2] * pz + view[1, 3]
        norm = max(math.sqrt(qw * qw + qx * qx + qy * qy + qz * qz), 1e-12)
        _rotation(qw / norm, qx / norm, qy / norm, qz / norm, rotation)
        j00, j11 = fx / z, fy / z
        j02 = -j00 * min(max(x / z, x_min), x_max)
        j12 = -j11 * min(max(y / z, y_min), y_max)
        t00, t10 = j00 * view[0, 0] + j02 * view[2, 0], j11 * view[1, 0] + j12 * view[2, 0]
        t01, t11 = j00 * view[0, 1] + j02 * view[2, 1], j11 * view[1, 1] + j12 * view[2, 1]
        t02, t12 = j00 * view[0, 2] + j02 * view[2, 2], j11 * view[1, 2] + j12 * view[2, 2]
        n00 = s0 * (t00 * rotation[0, 0] + t01 * rotation[1, 0] + t02 * rotation[2, 0])
        n01 = s1 * (t00 * rotation[0, 1] + t01 * rotation[1, 1] + t02 * rotation[2, 1])
        n02 = s2 * (t00 * rotation[0, 2] + t01 * rotation[1, 2] + t02 * rotation[2, 2])
        n10 = s0 * (t10 * rotation[0, 0] + t11 * rotation[1, 0] + t12 * rotation[2, 0])
        n11 = s1 * (t10 * rotation[0, 1] + t11 * rotation[1, 1] + t12 * rotation[2, 1])
        n12 = s2 * (t10 * rotation[0, 2] + t11 * rotation[1, 2] + t12 * rotation[2, 2])
        sxx, syy = n00 * n00 + n01 * n01 + n02 * n02, n10 * n10 + n11 * n11 + n12 * n12
        xy = n00 * n10 + n01 * n11 + n02 * n12
        xx, yy = sxx + blur, syy + blur
        # See projection.py for this form of the determinant.
        m0, m1, m2 = n01 * n12 - n02 * n11, n02 * n10 - n00 * n12, n00 * n11 - n01 * n10
        determinant = m0 * m0 + m1 * m1 + m2 * m2 + blur * (sxx + syy + blur)
        if not math.isfinite(determinant):
            continue
        mean_x, mean_y = fx * x / z + cx, fy * y / z + cy
        log_opacity = math.log2(opacity)
        reach = math.sqrt(log_opacity - _LOG2_THRESHOLD + _SUPPORT_MARGIN) / _WHITEN
        half_x, half_y = reach * math.sqrt(xx), reach * math.sqrt(yy)
        # First and last pixel whose centre is inside; clamped before the conversion to integers.
        left = max(math.ceil(max(mean_x - half_x - 0.5, -1.0)), 0)
        right = math.floor(min(mean_x + half_x - 0.5, width - 1.0))
        top = max(math.ceil(max(mean_y - half_y - 0.5, -1.0)), 0)
        bottom = math.floor(min(mean_y + half_y - 0.5, height - 1.0))
        if not (mean_x + half_x >= 0.5 and mean_x - half_x <= width - 0.5):
            continue
        if not (mean_y + half_y >= 0.5 and mean_y - half_y <= height - 0.5):
            continue
        if right < left or bottom < top:
            continue
        geometry[i, 0], geometry[i, 1] = mean_x, mean_y
        root = math.sqrt(yy / determinant)
        geometry[i, 2] = _WHITEN * root
        geometry[i, 3] = -_WHITEN * xy / (determinant * root)
        geometry[i, 4] = _WHITEN / math.sqrt(yy)
        geometry[i, 5] = log_opacity
        boxes[i, 0], boxes[i, 1] = left // tile_width, right // tile_width
        boxes[i, 2], boxes[i, 3] = top // tile_height, bottom // tile_height
        keys[i] = np.int64(z * (2.0**_KEY_BITS / (FAR_PLANE * 1.0000001)))


@njit(nogil=True, cache=True, parallel=True, error_model="numpy")
def project_forward(
    threads: int,
    means: np.ndarray,
    quaternions: np.ndarray,
    scales: np.ndarray,
    opacities: np.ndarray,
    colors: np.ndarray,
    view: np.ndarray,
    lens: np.ndarray,
    width: int,
    height: int,
    tile_width: int,
    tile_height: int,
    geometry: np.ndarray,
    boxes: np.ndarray,
    keys: np.ndarray,
) -> None:
    """Project N Gaussians in parallel.

    Args:
        threads: number of shares.
        means, quaternions, scales, opacities, colors: float32 [N, 3], [N, 4], [N, 3], [N], [N, 3].
        view: world to camera, float64 [4, 4].
        lens: fx, fy, cx, cy, the four limits of ``frustum_limits`` and the blur's variance (px^2),
            float64 [9].
        width, height: image size.
        tile_width, tile_height: size of the tiles that boxes count, pixels.
        geometry: out, float64 [N, GEOMETRY_COLUMNS].
        boxes: out, int32 [N, 4]: first and last tile column, first and last tile row.
        keys: out, int64 [N]: depth as an integer, -1 if not visible.
    """
    n = means.shape[0]
    for share in prange(threads):
        _project_range(
            share * n // threads, (share + 1) * n // threads, means, quaternions, scales, opacities,
            colors, view, lens, width, height, tile_width, tile_height, geometry, boxes, keys,
        )  # fmt: skip


# -------------------------------------------------------------------------------------------------
# Sorting and binning
# -------------------------------------------------------------------------------------------------


@njit(nogil=True, cache=True)
def sort_by_depth(keys: np.ndarray) -> np.ndarray:
    """Indices of the keys >= 0 in ascending order, stable: int32. Least-significant-digit radix."""
    count = 0
    order = np.empty(keys.shape[0], np.int32)
    for i in range(keys.shape[0]):
        if keys[i] >= 0:
            order[count] = i
            count += 1
    order = order[:count]
    other = np.empty(count, np.int32)
    buckets = np.empty(1 << _RADIX_BITS, np.int64)
    mask = np.int64((1 << _RADIX_BITS) - 1)
    for shift in range(0, _KEY_BITS, _RADIX_BITS):
        buckets[:] = 0
        for k in range(count):
            buckets[(keys[order[k]] >> shift) & mask] += 1
        total = 0
        for k in range(buckets.shape[0]):
            total, buckets[k] = total + buckets[k], total
        for k in range(count):
            digit = (keys[order[k]] >> shift) & mask
            other[buckets[digit]] = order[k]
            buckets[digit] += 1
        order, other = other, order
    return order


@njit(nogil=True, cache=True)
def count_pairs(
    order: np.ndarray, boxes: np.ndarray, tile_rows: int, slots: np.ndarray, starts: np.ndarray
) -> int:
    """Room that each tile's list and each Gaussian's gradient slots need, from the bounding boxes.

    Args:
        order: visible Gaussians, int32.
        boxes: from ``project_forward``.
        tile_rows: tiles in a column.
        slots: out, int64 [N]: first slot of each visible Gaussian.
        starts: out, int64 [tiles + 1]: first place of each tile's list; tiles run down the columns.

    Returns:
        The number of (Gaussian, tile) pairs.
    """
    starts[:] = 0
    pairs = 0
    for k in range(order.shape[0]):
        g = order[k]
        first, last, top, bottom = boxes[g, 0], boxes[g, 1], boxes[g, 2], boxes[g, 3]
        slots[g] = pairs
        pairs += (last - first + 1) * (bottom - top + 1)
        for column in range(first, last + 1):
            for row in range(top, bottom + 1):
                starts[column * tile_rows + row + 1] += 1
    for tile in range(1, starts.shape[0]):
        starts[tile] += starts[tile - 1]
    return pairs


@njit(nogil=True, cache=True, error_model="numpy")
def _bin_columns(
    first_column: int,
    end_column: int,
    order: np.ndarray,
    geometry: np.ndarray,
    boxes: np.ndarray,
    slots: np.ndarray,
    starts: np.ndarray,
    tile_rows: int,
    height: int,
    ends: np.ndarray,
    work: np.ndarray,
    pair_gaussian: np.ndarray,
    pair_rows: np.ndarray,
    pair_slot: np.ndarray,
) -> None:
    """Fill the lists of the tiles in columns first_column..end_column, front to back."""
    for tile in range(first_column * tile_rows, end_column * tile_rows):
        ends[tile] = starts[tile]
        work[tile] = TILE_HEIGHT
    for k in range(order.shape[0]):
        g = order[k]
        first, last = max(boxes[g, 0], first_column), min(boxes[g, 1], end_column - 1)
        if first > last:
            continue
        rows = boxes[g, 3] - boxes[g, 2] + 1
        mean_x, mean_y = geometry[g, 0], geometry[g, 1]
        a, b, c = geometry[g, 2], geometry[g, 3], geometry[g, 4]
        reach2 = geometry[g, 5] - _LOG2_THRESHOLD + _SUPPORT_MARGIN
        tip_y = math.sqrt(reach2) / c
        tip_x = -b / a * tip_y  # the lowest point of the ellipse; the highest is its mirror image
        norm = b * b + c * c
        slant, inner, outer = -a * b / norm, norm * reach2, (a * c) ** 2
        for column in range(first, last + 1):
            # Vertical range of the ellipse between the first and last pixel centre of the column.
            x0 = column * TILE_WIDTH + 0.5 - mean_x
            x1 = x0 + (TILE_WIDTH - 1)
            if x0 <= tip_x <= x1:
                low = tip_y
            else:
                x = x1 if tip_x > x1 else x0
                low = slant * x + math.sqrt(max(inner - outer * x * x, 0.0)) / norm
            if x0 <= -tip_x <= x1:
                high = -tip_y
            else:
                x = x1 if -tip_x > x1 else x0
                high = slant * x - math.sqrt(max(inner - outer * x * x, 0.0)) / norm
            top = math.ceil(max(mean_y + high - 0.5, 0.0))
            bottom = math.floor(min(mean_y + low - 0.5, height - 1.0))
            if bottom < top:
                continue
            slot = slots[g] + (column - boxes[g, 0]) * rows
            for row in range(max(top // TILE_HEIGHT, boxes[g, 2]), bottom // TILE_HEIGHT + 1):
                if row > boxes[g, 3]:
                    break
                from_row = max(top - row * TILE_HEIGHT, 0)
                to_row = min(bottom - row * TILE_HEIGHT + 1, TILE_HEIGHT)
                tile = column * tile_rows + row
                place = ends[tile]
                ends[tile] = place + 1
                work[tile] += to_row - from_row + 4
                pair_gaussian[place] = g
                pair_rows[place] = from_row | (to_row << 8)
                pair_slot[place] = slot + row - boxes[g, 2]


@njit(nogil=True, cache=True, parallel=True, error_model="numpy")
def bin_pairs(
    threads: int,
    order: np.ndarray,
    geometry: np.ndarray,
    boxes: np.ndarray,
    slots: np.ndarray,
    starts: np.ndarray,
    tile_columns: int,
    tile_rows: int,
    height: int,
    ends: np.ndarray,
    work: np.ndarray,
    pair_gaussian: np.ndarray,
    pair_rows: np.ndarray,
    pair_slot: np.ndarray,
) -> None:
    """List the Gaussians of every tile, front to back, with the rows that each reaches.

    Args:
        threads: number of shares.
        order: visible Gaussians by depth.
        geometry, boxes: from ``project_forward``.
        slots, starts: from ``count_pairs``.
        tile_columns, tile_rows: size of the image in tiles.
        height: image height.
        ends: out, int64 [tiles]: end of each tile's list (it may not fill its room).
        work: out, int64 [tiles]: estimated cost of each tile.
        pair_gaussian: out, int32 [pairs].
        pair_rows: out, int32 [pairs]: first row + 256 * end row, within the tile.
        pair_slot: out, int64 [pairs]: gradient slot.
    """
    total = starts[starts.shape[0] - 1]
    for share in prange(threads):
        bounds = np.empty(2, np.int64)
        for side in range(2):
            # The column at which this share of the pairs is reached.
            goal = total * (share + side) // threads
            column = 0
            while column < tile_columns and starts[column * tile_rows] < goal:
                column += 1
            bounds[side] = column
        if share == 0:
            bounds[0] = 0
        if share == threads - 1:
            bounds[1] = tile_columns
        _bin_columns(
            bounds[0], bounds[1], order, geometry, boxes, slots, starts, tile_rows, height, ends,
            work, pair_gaussian, pair_rows, pair_slot,
        )  # fmt: skip


@njit(nogil=True, cache=True)
def _tile_range(share: int, threads: int, work: np.ndarray) -> tuple[int, int]:
    """The tiles of one share: contiguous, about equal in work."""
    total = work.sum()
    low, high = total * share // threads, total * (share + 1) // threads
    running = 0
    first, end = work.shape[0], work.shape[0]
    for tile in range(work.shape[0]):
        if running >= low and first == work.shape[0]:
            first = tile
        if running >= high and share < threads - 1:
            end = tile
            break
        running += work[tile]
    return min(first, end), end


# -------------------------------------------------------------------------------------------------
# Blending
# -------------------------------------------------------------------------------------------------
# The state of a tile is one array of _NUM_FIELDS fields of _STRIDE float32 each: in one array
# at constant distances the fields provably do not overlap, which vectorisation needs. Fields 6 and
# 7 hold the coordinates x and y within the tile. Unsigned indices avoid numba's check for negative
# ones.


@njit(nogil=True, cache=True)
def _new_state() -> np.ndarray:
    """Tile state with the coordinate fields filled in."""
    state = np.zeros(_NUM_FIELDS * _STRIDE, np.float32)
    for k in range(TILE_PIXELS):
        state[6 * _STRIDE + k] = k % TILE_WIDTH
        state[7 * _STRIDE + k] = k // TILE_WIDTH
    return state


@njit(inline="always")
def _blend_pair(  # type: ignore[no-untyped-def]
    state, offset, pixels, u0, v0, a, b, c, log_opacity, red, green, blue, following, keep
):
    """Blend one Gaussian over ``pixels`` pixels of a tile from ``offset`` on.

    A pixel that has stopped holds its T with a minus sign. Stopping is arithmetic, not a choice of
    what to store: masked stores would stall the next loads.
    """
    for j in range(pixels):
        at = offset + np.uint64(j)
        u = u0 + a * state[at + _FIELD_6] + b * state[at + _FIELD_7]
        v = v0 + c * state[at + _FIELD_7]
        value = min(_exp2(log_opacity - u * u - v * v), _F_MAX_ALPHA)
        value = value if value >= _F_THRESHOLD else _ZERO
        before = state[at]
        weight = max(before, _ZERO) * value
        after = before - weight
        going = after > _F_MIN_TRANSMITTANCE
        state[at] = after if going else -abs(before)
        weight = weight if going else _ZERO
        if keep:
            state[at + _FIELD_4] = following if going else state[at + _FIELD_4]
        state[at + _FIELD_1] += weight * red
        state[at + _FIELD_2] += weight * green
        state[at + _FIELD_3] += weight * blue


@njit(nogil=True, cache=True, fastmath=_FAST, error_model="numpy")
def _blend_tiles(
    first: int,
    end: int,
    geometry: np.ndarray,
    colors: np.ndarray,
    background: np.ndarray,
    tile_rows: int,
    starts: np.ndarray,
    ends: np.ndarray,
    pair_gaussian: np.ndarray,
    pair_rows: np.ndarray,
    image: np.ndarray,
    alpha: np.ndarray,
    keep: bool,
    final: np.ndarray,
    stop: np.ndarray,
    used: np.ndarray,
) -> None:
    """Blend tiles first..end front to back.

    Fields: 0 T, negative once the pixel has stopped; 1-3 RGB; 4 stop.
    """
    height, width = alpha.shape
    state = _new_state()
    for tile in range(first, end):
        tile_x = (tile // tile_rows) * TILE_WIDTH
        tile_y = (tile % tile_rows) * TILE_HEIGHT
        for k in range(TILE_PIXELS):
            state[k] = _ONE
            state[_STRIDE + k] = _ZERO
            state[2 * _STRIDE + k] = _ZERO
            state[3 * _STRIDE + k] = _ZERO
            state[4 * _STRIDE + k] = _ZERO
        n = ends[tile] - starts[tile]
        count = 0
        while count < n:
            pair = starts[tile] + count
            g = pair_gaussian[pair]
            from_row, to_row = pair_rows[pair] & 255, pair_rows[pair] >> 8
            dx, dy = tile_x + 0.5 - geometry[g, 0], tile_y + 0.5 - geometry[g, 1]
            a, b = np.float32(geometry[g, 2]), np.float32(geometry[g, 3])
            c = np.float32(geometry[g, 4])
            u0 = np.float32(geometry[g, 2] * dx + geometry[g, 3] * dy)
            v0 = np.float32(geometry[g, 4] * dy)
            log_opacity = np.float32(geometry[g, 5])
            red, green, blue = colors[g, 0], colors[g, 1], colors[g, 2]
            following = np.float32(count + 1)
            offset = np.uint64(from_row * TILE_WIDTH)
            pixels = (to_row - from_row) * TILE_WIDTH
            if keep:
                _blend_pair(
                    state, offset, pixels, u0, v0, a, b, c, log_opacity, red, green, blue,
                    following, True,
                )  # fmt: skip
            else:
                _blend_pair(
                    state, offset, pixels, u0, v0, a, b, c, log_opacity, red, green, blue,
                    following, False,
                )  # fmt: skip
            count += 1
            if count & 31 == 0:
                largest = _ZERO
                for k in range(TILE_PIXELS):
                    largest = max(largest, state[k])
                if largest == _ZERO:
                    break
        if keep:
            used[tile] = count
            for k in range(TILE_PIXELS):
                final[tile, k] = abs(state[k])
                stop[tile, k] = state[4 * _STRIDE + k]
        for row in range(min(TILE_HEIGHT, height - tile_y)):
            for column in range(min(TILE_WIDTH, width - tile_x)):
                k = row * TILE_WIDTH + column
                t = abs(state[k])
                alpha[tile_y + row, tile_x + column] = _ONE - t
                for channel in range(3):
                    image[tile_y + row, tile_x + column, channel] = (
                        state[(channel + 1) * _STRIDE + k] + t * background[channel]
                    )


@njit(nogil=True, cache=True, parallel=True, error_model="numpy")
def blend_forward(
    threads: int,
    geometry: np.ndarray,
    colors: np.ndarray,
    background: np.ndarray,
    tile_rows: int,
    starts: np.ndarray,
    ends: np.ndarray,
    work: np.ndarray,
    pair_gaussian: np.ndarray,
    pair_rows: np.ndarray,
    image: np.ndarray,
    alpha: np.ndarray,
    keep: bool,
    final: np.ndarray,
    stop: np.ndarray,
    used: np.ndarray,
) -> None:
    """Blend all tiles.

    Args:
        threads: number of shares.
        geometry: from ``project_forward``.
        colors, background: float32 [N, 3], [3].
        tile_rows: tiles in a column.
        starts, ends, work, pair_gaussian, pair_rows: from ``bin_pairs``.
        image, alpha: out, float32 [H, W, 3], [H, W].
        keep: whether to fill the remaining outputs, which the backward pass needs.
        final: out, float32 [tiles, TILE_PIXELS]: final transmittance.
        stop: out, float32 [tiles, TILE_PIXELS]: end of the part of the list that the pixel used.
        used: out, int64 [tiles]: how much of each tile's list was visited.
    """
    for share in prange(threads):
        first, end = _tile_range(share, threads, work)
        _blend_tiles(
            first, end, geometry, colors, background, tile_rows, starts, ends, pair_gaussian,
            pair_rows, image, alpha, keep, final, stop, used,
        )  # fmt: skip


@njit(nogil=True, cache=True, fastmath=_FAST, error_model="numpy")
def _blend_tiles_backward(
    first: int,
    end: int,
    geometry: np.ndarray,
    colors: np.ndarray,
    background: np.ndarray,
    tile_rows: int,
    starts: np.ndarray,
    pair_gaussian: np.ndarray,
    pair_rows: np.ndarray,
    pair_slot: np.ndarray,
    final: np.ndarray,
    stop: np.ndarray,
    used: np.ndarray,
    grad_image: np.ndarray,
    grad_alpha: np.ndarray,
    pair_gradients: np.ndarray,
    grad_background: np.ndarray,
) -> None:
    """Go through tiles first..end back to front.

    Fields: 0 T, 1 S, 2-4 the image's gradient G, 5 stop. S is what lies behind the current
    Gaussian, sum of w_j (colour_j . G) + T_final (background . G - gradient of alpha): then
    dL/dalpha_i = T_i (colour_i . G) - S_i / (1 - alpha_i).
    """
    height, width = grad_alpha.shape
    state = _new_state()
    for tile in range(first, end):
        tile_x = (tile // tile_rows) * TILE_WIDTH
        tile_y = (tile % tile_rows) * TILE_HEIGHT
        sums = np.zeros(3)
        for k in range(TILE_PIXELS):
            t = final[tile, k]
            row, column = tile_y + k // TILE_WIDTH, tile_x + k % TILE_WIDTH
            state[k] = t
            state[5 * _STRIDE + k] = stop[tile, k]
            behind = _ZERO
            if row < height and column < width:
                for channel in range(3):
                    gradient = grad_image[row, column, channel]
                    state[(channel + 2) * _STRIDE + k] = gradient
                    behind += background[channel] * gradient
                    sums[channel] += t * gradient
                behind -= grad_alpha[row, column]
            else:
                for channel in range(3):
                    state[(channel + 2) * _STRIDE + k] = _ZERO
            state[_STRIDE + k] = t * behind
        for channel in range(3):
            grad_background[tile, channel] = sums[channel]
        for count in range(used[tile] - 1, -1, -1):
            pair = starts[tile] + count
            g = pair_gaussian[pair]
            from_row, to_row = pair_rows[pair] & 255, pair_rows[pair] >> 8
            dx, dy = tile_x + 0.5 - geometry[g, 0], tile_y + 0.5 - geometry[g, 1]
            a, b = np.float32(geometry[g, 2]), np.float32(geometry[g, 3])
            c = np.float32(geometry[g, 4])
            u0 = np.float32(geometry[g, 2] * dx + geometry[g, 3] * dy)
            v0 = np.float32(geometry[g, 4] * dy)
            log_opacity = np.float32(geometry[g, 5])
            red, green, blue = colors[g, 0], colors[g, 1], colors[g, 2]
            index = np.float32(count)
            offset = np.uint64(from_row * TILE_WIDTH)
            sum_g = sum_u = sum_v = sum_uu = sum_uv = sum_vv = _ZERO
            sum_red = sum_green = sum_blue = _ZERO
            for j in range((to_row - from_row) * TILE_WIDTH):
                at = offset + np.uint64(j)
                u = u0 + a * state[at + _FIELD_6] + b * state[at + _FIELD_7]
                v = v0 + c * state[at + _FIELD_7]
                raw = _exp2(log_opacity - u * u - v * v)
                raw = raw if raw >= _F_THRESHOLD and index < state[at + _FIELD_5] else _ZERO
                value = min(raw, _F_MAX_ALPHA)
                inverse = _ONE / (_ONE - value)
                before = state[at] * inverse
                weight = value * before
                g0, g1, g2 = state[at + _FIELD_2], state[at + _FIELD_3], state[at + _FIELD_4]
                along = red * g0 + green * g1 + blue * g2
                behind = state[at + _FIELD_1]
                # Gradient of log(alpha); a clamped alpha has none.
                slope = (before * along - behind * inverse) * raw
                slope = slope if raw <= _F_MAX_ALPHA else _ZERO
                state[at] = before
                state[at + _FIELD_1] = behind + weight * along
                slope_u, slope_v = slope * u, slope * v
                sum_g += slope
                sum_u += slope_u
                sum_v += slope_v
                sum_uu += slope_u * u
                sum_uv += slope_u * v
                sum_vv += slope_v * v
                sum_red += weight * g0
                sum_green += weight * g1
                sum_blue += weight * g2
            slot = pair_slot[pair]
            pair_gradients[slot, 0] = sum_g
            pair_gradients[slot, 1] = sum_u
            pair_gradients[slot, 2] = sum_v
            pair_gradients[slot, 3] = sum_uu
            pair_gradients[slot, 4] = sum_uv
            pair_gradients[slot, 5] = sum_vv
            pair_gradients[slot, 6] = sum_red
            pair_gradients[slot, 7] = sum_green
            pair_gradients[slot, 8] = sum_blue


@njit(nogil=True, cache=True, parallel=True, error_model="numpy")
def blend_backward(
    threads: int,
    geometry: np.ndarray,
    colors: np.ndarray,
    background: np.ndarray,
    tile_rows: int,
    starts: np.ndarray,
    work: np.ndarray,
    pair_gaussian: np.ndarray,
    pair_rows: np.ndarray,
    pair_slot: np.ndarray,
    final: np.ndarray,
    stop: np.ndarray,
    used: np.ndarray,
    grad_image: np.ndarray,
    grad_alpha: np.ndarray,
    pair_gradients: np.ndarray,
    grad_background: np.ndarray,
) -> None:
    """Gradients of every (Gaussian, tile) pair.

    Args:
        threads: number of shares.
        geometry .. used: as in ``blend_forward``.
        grad_image, grad_alpha: float32 [H, W, 3], [H, W].
        pair_gradients: out, float32 [pairs, PAIR_GRADIENTS], zeros on entry (pairs that were
            dropped or never visited are not written).
        grad_background: out, float32 [tiles, 3].
    """
    for share in prange(threads):
        first, end = _tile_range(share, threads, work)
        _blend_tiles_backward(
            first, end, geometry, colors, background, tile_rows, starts, pair_gaussian, pair_rows,
            pair_slot, final, stop, used, grad_image, grad_alpha, pair_gradients, grad_background,
        )  # fmt: skip


# -------------------------------------------------------------------------------------------------
# Back through the projection
# -------------------------------------------------------------------------------------------------


@njit(nogil=True, cache=True, error_model="numpy")
def _project_range_backward(
    start: int,
    stop: int,
    means: np.ndarray,
    quaternions: np.ndarray,
    scales: np.ndarray,
    opacities: np.ndarray,
    view: np.ndarray,
    lens: np.ndarray,
    geometry: np.ndarray,
    boxes: np.ndarray,
    keys: np.ndarray,
    slots: np.ndarray,
    pair_gradients: np.ndarray,
    grad_means: np.ndarray,
    grad_quaternions: np.ndarray,
    grad_scales: np.ndarray,
    grad_opacities: np.ndarray,
    grad_colors: np.ndarray,
    grad_view: np.ndarray,
) -> None:
    """Gradients of Gaussians start..stop; grad_view [3, 4] is added to."""
    fx, fy, _, _, x_min, x_max, y_min, y_max, _ = lens
    rotation = np.empty((3, 3))
    sums = np.empty(PAIR_GRADIENTS)
    jw = np.empty((2, 3))  # J W
    bare = np.empty((2, 3))  # J W R, before scaling
    d_bare = np.empty((2, 3))
    d_jw = np.empty((2, 3))
    d_rotation = np.empty((3, 3))
    for i in range(start, stop):
        if keys[i] < 0:
            grad_means[i, :] = _ZERO
            grad_quaternions[i, :] = _ZERO
            grad_scales[i, :] = _ZERO
            grad_opacities[i] = _ZERO
            grad_colors[i, :] = _ZERO
            continue
        sums[:] = 0.0
        count = (boxes[i, 1] - boxes[i, 0] + 1) * (boxes[i, 3] - boxes[i, 2] + 1)
        for slot in range(slots[i], slots[i] + count):
            for k in range(PAIR_GRADIENTS):
                sums[k] += pair_gradients[slot, k]
        for k in range(3):
            grad_colors[i, k] = sums[6 + k]
        grad_opacities[i] = sums[0] / opacities[i]

        # log alpha = log opacity - |w|^2 / 2 with w = L^T d, S^-1 = L L^T; u and v are _WHITEN w.
        a, b = geometry[i, 2] / _WHITEN, geometry[i, 3] / _WHITEN
        c = geometry[i, 4] / _WHITEN
        su, sv = sums[1] / _WHITEN, sums[2] / _WHITEN
        scale2 = 0.5 / (_WHITEN * _WHITEN)
        suu, suv, svv = sums[3] * scale2, sums[4] * scale2, sums[5] * scale2
        d_mean_x, d_mean_y = a * su, b * su + c * sv
        # dL/dS = L M L^T with M = half the sum of slope w w^T.
        d_xx = a * a * suu
        d_xy = a * (b * suu + c * suv)
        d_yy = b * b * suu + 2 * b * c * suv + c * c * svv

        px, py, pz = float(means[i, 0]), float(means[i, 1]), float(means[i, 2])
        qw, qx = float(quaternions[i, 0]), float(quaternions[i, 1])
        qy, qz = float(quaternions[i, 2]), float(quaternions[i, 3])
        norm = max(math.sqrt(qw * qw + qx * qx + qy * qy + qz * qz), 1e-12)
        qw, qx, qy, qz = qw / norm, qx / norm, qy / norm, qz / norm
        _rotation(qw, qx, qy, qz, rotation)
        x = view[0, 0] * px + view[0, 1] * py + view[0, 2] * pz + view[0, 3]
        y = view[1, 0] * px + view[1, 1] * py + view[1, 2] * pz + view[1, 3]
        z = view[2, 0] * px + view[2, 1] * py + view[2, 2] * pz + view[2, 3]
        ratio_x, ratio_y = x / z, y / z
        free_x, free_y = x_min <= ratio_x <= x_max, y_min <= ratio_y <= y_max
        ratio_x = min(max(ratio_x, x_min), x_max)
        ratio_y = min(max(ratio_y, y_min), y_max)
        j00, j11 = fx / z, fy / z
        j02, j12 = -j00 * ratio_x, -j11 * ratio_y
        for k in range(3):
            jw[0, k] = j00 * view[0, k] + j02 * view[2, k]
            jw[1, k] = j11 * view[1, k] + j12 * view[2, k]
        for k in range(3):
            s = float(scales[i, k])
            for r in range(2):
                bare[r, k] = (
                    jw[r, 0] * rotation[0, k]
                    + jw[r, 1] * rotation[1, k]
                    + jw[r, 2] * rotation[2, k]
                )
            # S = F F^T, F = bare diag(s): dL/dF = 2 (dL/dS) F.
            d_0 = 2 * s * (d_xx * bare[0, k] + d_xy * bare[1, k])
            d_1 = 2 * s * (d_xy * bare[0, k] + d_yy * bare[1, k])
            grad_scales[i, k] = d_0 * bare[0, k] + d_1 * bare[1, k]
            d_bare[0, k], d_bare[1, k] = d_0 * s, d_1 * s
        for r in range(3):
            for k in range(3):
                d_rotation[r, k] = jw[0, r] * d_bare[0, k] + jw[1, r] * d_bare[1, k]
            for k in range(2):
                d_jw[k, r] = (
                    d_bare[k, 0] * rotation[r, 0]
                    + d_bare[k, 1] * rotation[r, 1]
                    + d_bare[k, 2] * rotation[r, 2]
                )
        m = d_rotation
        d_qw = 2 * (qx * (m[2, 1] - m[1, 2]) + qy * (m[0, 2] - m[2, 0]) + qz * (m[1, 0] - m[0, 1]))
        d_qx = 2 * (
            qy * (m[0, 1] + m[1, 0]) + qz * (m[0, 2] + m[2, 0]) + qw * (m[2, 1] - m[1, 2])
            - 2 * qx * (m[1, 1] + m[2, 2])
        )  # fmt: skip
        d_qy = 2 * (
            qx * (m[0, 1] + m[1, 0]) + qz * (m[1, 2] + m[2, 1]) + qw * (m[0, 2] - m[2, 0])
            - 2 * qy * (m[0, 0] + m[2, 2])
        )  # fmt: skip
        d_qz = 2 * (
            qx * (m[0, 2] + m[2, 0]) + qy * (m[1, 2] + m[2, 1]) + qw * (m[1, 0] - m[0, 1])
            - 2 * qz * (m[0, 0] + m[1, 1])
        )  # fmt: skip
        along = d_qw * qw + d_qx * qx + d_qy * qy + d_qz * qz
        grad_quaternions[i, 0] = (d_qw - along * qw) / norm
        grad_quaternions[i, 1] = (d_qx - along * qx) / norm
        grad_quaternions[i, 2] = (d_qy - along * qy) / norm
        grad_quaternions[i, 3] = (d_qz - along * qz) / norm

        d_j00 = d_j02 = d_j11 = d_j12 = 0.0
        for k in range(3):
            d_j00 += d_jw[0, k] * view[0, k]
            d_j02 += d_jw[0, k] * view[2, k]
            d_j11 += d_jw[1, k] * view[1, k]
            d_j12 += d_jw[1, k] * view[2, k]
        # j00 = fx / z, j02 = -fx ratio / z, mean = fx x / z + cx; the ratio is constant if clamped.
        d_x = d_mean_x * j00
        d_y = d_mean_y * j11
        d_z = -(d_mean_x * j00 * x + d_mean_y * j11 * y) / z
        d_z -= (d_j00 * j00 + d_j02 * j02 + d_j11 * j11 + d_j12 * j12) / z
        if free_x:
            d_x -= d_j02 * j00 / z
            d_z += d_j02 * j00 * ratio_x / z
        if free_y:
            d_y -= d_j12 * j11 / z
            d_z += d_j12 * j11 * ratio_y / z
        for k in range(3):
            grad_means[i, k] = d_x * view[0, k] + d_y * view[1, k] + d_z * view[2, k]
            p = float(means[i, k])
            grad_view[0, k] += d_x * p + d_jw[0, k] * j00
            grad_view[1, k] += d_y * p + d_jw[1, k] * j11
            grad_view[2, k] += d_z * p + d_jw[0, k] * j02 + d_jw[1, k] * j12
        grad_view[0, 3] += d_x
        grad_view[1, 3] += d_y
        grad_view[2, 3] += d_z


@njit(nogil=True, cache=True, parallel=True, error_model="numpy")
def project_backward(
    threads: int,
    means: np.ndarray,
    quaternions: np.ndarray,
    scales: np.ndarray,
    opacities: np.ndarray,
    view: np.ndarray,
    lens: np.ndarray,
    geometry: np.ndarray,
    boxes: np.ndarray,
    keys: np.ndarray,
    slots: np.ndarray,
    pair_gradients: np.ndarray,
    grad_means: np.ndarray,
    grad_quaternions: np.ndarray,
    grad_scales: np.ndarray,
    grad_opacities: np.ndarray,
    grad_colors: np.ndarray,
    grad_view: np.ndarray,
) -> None:
    """Sum the pairs of each Gaussian and go back through the projection.

    Args:
        threads: number of shares.
        means .. keys: as in ``project_forward``.
        slots: from ``count_pairs``.
        pair_gradients: from ``blend_backward``.
        grad_means .. grad_colors: out, float32, the shapes of the inputs.
        grad_view: out, float64 [chunks of VIEW_CHUNK Gaussians, 3, 4], zeros on entry.
    """
    n = means.shape[0]
    chunks = grad_view.shape[0]
    for share in prange(threads):
        for chunk in range(share * chunks // threads, (share + 1) * chunks // threads):
            _project_range_backward(
                chunk * VIEW_CHUNK, min((chunk + 1) * VIEW_CHUNK, n), means, quaternions, scales,
                opacities, view, lens, geometry, boxes, keys, slots, pair_gradients, grad_means,
                grad_quaternions, grad_scales, grad_opacities, grad_colors, grad_view[chunk],
            )  # fmt: skip
