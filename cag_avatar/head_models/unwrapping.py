"""A texture atlas without overlaps for any mesh.

Faces that look the same way along an axis and hang together are projected along it to one chart, so
areas shrink by at most 1 / sqrt(3) and no face is seen from behind. Where a fold covers another
part of its chart, the folded faces go to a chart of their own.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree

__all__ = ["overlapping_pairs", "unwrap"]

Array = NDArray[np.float64]
Index = NDArray[np.int64]

#: Space between charts, fraction of the atlas.
_MARGIN = 1 / 256
#: Least cosine between a face's normal and the axis of its chart.
_LEAST_FACING = 0.3
#: For each axis (+x, -x, +y, -y, +z, -z) the two directions that make a right-handed picture.
_PICTURE = np.array(
    [[[0, 0, -1], [0, 1, 0]], [[0, 0, 1], [0, 1, 0]], [[1, 0, 0], [0, 0, -1]],
     [[1, 0, 0], [0, 0, 1]], [[1, 0, 0], [0, 1, 0]], [[-1, 0, 0], [0, 1, 0]]], dtype=np.float64,
)  # fmt: skip
_AXES = np.cross(_PICTURE[:, 0], _PICTURE[:, 1])


def unwrap(
    vertices: Array, faces: Index, part: Index, scale: Array | None = None
) -> tuple[Array, Index]:
    """Make an atlas.

    Args:
        vertices: [V, 3].
        faces: [F, 3].
        part: of each face, [F]; faces of different parts never share a chart.
        scale: magnification of each part, by its number; 1 for all if None.

    Returns:
        Texture coordinates [U, 2] in [0, 1] and the corner indices into them, [F, 3].
    """
    corners = vertices[faces]
    normal = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    length = np.linalg.norm(normal, axis=1, keepdims=True)
    facing = normal / np.where(length == 0, 1.0, length) @ _AXES.T  # [F, 6]
    neighbour = _adjacency(faces, part)
    axis = _axes(facing, neighbour)
    charts: list[tuple[Index, Array]] = []  # faces, their corners in the plane [., 3, 2]
    waiting = np.arange(len(faces))
    while len(waiting):
        label = _components(waiting, axis, neighbour)
        order = np.argsort(label, kind="stable")
        groups = np.split(waiting[order], np.flatnonzero(np.diff(label[order])) + 1)
        left: list[Index] = []
        for group in groups:
            flat = corners[group] @ _PICTURE[axis[group[0]]].T
            kept = _without_overlaps(flat)
            size = 1.0 if scale is None else scale[part[group[0]]]
            charts.append((group[kept], flat[kept] * size))
            left.append(group[~kept])
        waiting = np.concatenate(left)
    return _pack(charts, faces)


def _adjacency(faces: Index, part: Index) -> Index:
    """Pairs [P, 2] of faces of one part that share an edge."""
    edges = np.sort(np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]]), 1)
    owner = np.tile(np.arange(len(faces)), 3)
    order = np.lexsort((edges[:, 1], edges[:, 0]))
    edges, owner = edges[order], owner[order]
    same = (edges[1:] == edges[:-1]).all(1)
    pairs = np.stack([owner[:-1][same], owner[1:][same]], 1)
    return pairs[part[pairs[:, 0]] == part[pairs[:, 1]]]


def _axes(facing: Array, pairs: Index) -> Index:
    """Axis of each face: the one it faces, pulled towards its neighbours' to avoid crumbs."""
    count = len(facing)
    both = np.concatenate([pairs, pairs[:, ::-1]])
    near = coo_matrix((np.ones(len(both)), (both[:, 0], both[:, 1])), shape=(count, count)).tocsr()
    axis = facing.argmax(1)
    allowed = facing >= np.minimum(_LEAST_FACING, facing.max(1, keepdims=True))
    for _ in range(8):
        votes = near @ np.eye(6)[axis]
        axis = np.where(allowed, facing + 0.25 * votes, -np.inf).argmax(1)
    return axis


def _components(chosen: Index, axis: Index, pairs: Index) -> Index:
    """Number of the connected component of one axis that each of the ``chosen`` faces is in."""
    place = np.full(len(axis), -1)
    place[chosen] = np.arange(len(chosen))
    local = place[pairs]
    fits = (local >= 0).all(1) & (axis[pairs[:, 0]] == axis[pairs[:, 1]])
    a, b = local[fits].T
    graph = coo_matrix((np.ones(len(a)), (a, b)), shape=(len(chosen),) * 2)
    return connected_components(graph, directed=False)[1].astype(np.int64)


def overlapping_pairs(triangles: Array) -> Index:
    """Pairs [P, 2] of triangles [N, 3, 2] whose interiors meet (separating axes)."""
    if len(triangles) < 2:
        return np.zeros((0, 2), np.int64)
    area = _cross(triangles[:, 1] - triangles[:, 0], triangles[:, 2] - triangles[:, 0])
    solid = np.flatnonzero(np.abs(area) > 1e-14)
    shapes = triangles[solid]
    flip = area[solid] < 0
    shapes[flip] = shapes[flip][:, ::-1]  # counter-clockwise
    centre = shapes.mean(1)
    reach = np.linalg.norm(shapes - centre[:, None], axis=2).max(1)
    # Small triangles look only as far as small ones need; large ones look at all.
    pairs = []
    order = np.argsort(reach)
    for block in np.array_split(order, 8):
        if not len(block):
            continue
        smaller = np.flatnonzero(reach <= reach[block].max())
        found = cKDTree(centre[smaller]).query_ball_point(
            centre[block], reach[block] + reach[block].max()
        )
        counts = [len(f) for f in found]
        other = smaller[np.concatenate([np.asarray(f, np.int64) for f in found])]
        pairs.append(np.stack([np.repeat(block, counts), other], 1))
    pair = np.sort(np.concatenate(pairs), 1)
    pair = np.unique(pair[pair[:, 0] != pair[:, 1]], axis=0)
    low, high = shapes.min(1), shapes.max(1)
    a, b = pair.T
    pair = pair[(low[a] < high[b]).all(1) & (low[b] < high[a]).all(1)]
    apart = _separated(shapes, pair) | _separated(shapes, pair[:, ::-1])
    return solid[pair[~apart]]


def _separated(shapes: Array, pair: Index) -> NDArray[np.bool_]:
    """Whether an edge of the first triangle has all of the second on its outer side."""
    first, second = shapes[pair[:, 0]], shapes[pair[:, 1]]
    apart = np.zeros(len(pair), bool)
    for k in range(3):
        start, edge = first[:, k], first[:, (k + 1) % 3] - first[:, k]
        inward = _cross(edge[:, None], second - start[:, None])
        apart |= inward.max(1) <= 1e-9 * np.abs(edge).max(1) ** 2
    return apart


def _cross(a: Array, b: Array) -> Array:
    return a[..., 0] * b[..., 1] - a[..., 1] * b[..., 0]


def _without_overlaps(flat: Array) -> NDArray[np.bool_]:
    """Which triangles [N, 3, 2] to keep so that none of them overlap."""
    kept = np.ones(len(flat), bool)
    pairs = overlapping_pairs(flat)
    while len(pairs):
        worst = int(np.bincount(pairs.flatten(), minlength=len(flat)).argmax())
        kept[worst] = False
        pairs = pairs[(pairs != worst).all(1)]
    return kept


def _pack(charts: list[tuple[Index, Array]], faces: Index) -> tuple[Array, Index]:
    """Lay charts out on shelves, at the largest common scale that fits."""
    pieces = []
    for chosen, flat in charts:
        size = np.ptp(flat.reshape(-1, 2), axis=0)
        turned = flat[..., ::-1] * [1, -1] if size[1] > size[0] else flat  # lie down
        points = turned - turned.reshape(-1, 2).min(0)
        pieces.append((chosen, points, points.reshape(-1, 2).max(0)))
    pieces.sort(key=lambda piece: -piece[2][1])
    sizes = np.array([piece[2] for piece in pieces])

    def place(scale: float) -> Array | None:
        at = np.zeros((len(sizes), 2))
        x, y, shelf = _MARGIN, _MARGIN, 0.0
        for index, (width, height) in enumerate(sizes * scale):
            if x + width + _MARGIN > 1:
                x, y, shelf = _MARGIN, y + shelf + _MARGIN, 0.0
            if x + width + _MARGIN > 1 or y + height + _MARGIN > 1:
                return None
            at[index] = x, y
            x, shelf = x + width + _MARGIN, max(shelf, height)
        return at

    low, high = 0.0, 1.0 / max(float(sizes.max()), 1e-9)
    for _ in range(40):
        middle = 0.5 * (low + high)
        low, high = (middle, high) if place(middle) is not None else (low, middle)
    at = place(low)
    assert at is not None
    uv: list[Array] = []
    face_uv = np.zeros_like(faces)
    total = 0
    for (chosen, points, _), corner in zip(pieces, at, strict=True):
        index, first, inverse = np.unique(faces[chosen], return_index=True, return_inverse=True)
        uv.append(points.reshape(-1, 2)[first] * low + corner)
        face_uv[chosen] = inverse.reshape(-1, 3) + total
        total += len(index)
    return np.concatenate(uv), face_uv
