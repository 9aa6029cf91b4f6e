"""Hair as volume: a shell raised over the scalp, with loose strands drawn over it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from cag_avatar_training.synthetic.identity import Traits
from cag_avatar_training.synthetic.noise import fractal_noise, streak_tile
from cag_avatar_training.synthetic.paint import Layers, ramp
from numpy.typing import NDArray

from cag_avatar.head_models import REGIONS, HeadModel
from cag_avatar.rendering.mesh import vertex_normals

__all__ = ["Hairdo", "grow_hair"]

Array = NDArray[np.float32]

#: Crown (whorl) and the middle of the skull, canonical space of the mean head.
_SKULL = np.array([0.0, 0.018, -0.072], np.float32)
_CROWN = np.array([0.008, 0.098, -0.125], np.float32)

#: Edge of the hair seen from the side: z from front to back, lowest y covered.
_EDGE_Z = np.array(
    [0.02, 0.0, -0.02, -0.034, -0.047, -0.055, -0.0605, -0.088, -0.096, -0.108, -0.2]
)
_EDGE_Y = np.array(
    [0.070, 0.062, 0.046, 0.022, -0.004, -0.016, 0.010, 0.012, -0.016, -0.045, -0.056]
)

_SUBDIVISION = 4


@dataclass(frozen=True)
class Hairdo:
    """Geometry that moves rigidly with the skull, and the streaks that colour it."""

    vertices: Array
    """Canonical space of the person, [N, 3]."""
    normals: Array
    """Unit, [N, 3]."""
    faces: NDArray[np.int64]
    """[G, 3]."""
    attributes: Array
    """Per vertex: growth direction (3, unit), streak coordinates across and along, tone; [N, 6]."""
    streaks: Array
    """Tile of strands, [S, S] in [0, 1]; first axis across, second along."""
    shell_vertices: int
    """Vertices before this one belong to the shell, the others to loose strands."""
    parted: bool
    hairline: float

    def paint_roots(
        self, layers: Layers, where: NDArray[np.int64], points: Array, traits: Traits
    ) -> None:
        """Darken the skin where hair grows, so that the shell's edge fades into it."""
        across, along, _ = _flow(points, self.parted)
        streak = _look_up(self.streaks, across, along)
        amount = ramp(_inside(points, self.hairline) + 0.006 * (streak - 0.5), -0.0055, 0.004)
        layers.cover(where, np.asarray(traits.hair, np.float32) * 0.55, 0.93 * amount)
        layers.gloss[where] *= 1 - amount


def grow_hair(
    model: HeadModel, rest: Array, traits: Traits, strands: int, rng: np.random.Generator
) -> Hairdo:
    """Grow the hair of a person on their rest head.

    Args:
        model: head model.
        rest: the person's rest head, [V, 3].
        traits: hair style.
        strands: loose strands to draw over the shell.
        rng: source of the strands and streaks.
    """
    streaks = streak_tile(rng)
    seed = int(rng.integers(2**31))
    mean = model.vertices.numpy()
    faces = model.faces.numpy()
    region = model.face_region.numpy()
    allowed = np.isin(region, [REGIONS.index(n) for n in ("scalp", "face_skin", "neck")])
    reach = _inside(mean, traits.hairline) > -0.006
    # The inside of the head (sockets, mouth) is face skin too: keep to what faces outward.
    outward = ((mean - _SKULL) * vertex_normals(mean, faces)).sum(1) > 0
    chosen = faces[allowed & (reach & outward)[faces].any(1)]
    corners, weights, shell = _subdivide(chosen, mean)

    normal_all = vertex_normals(rest, faces[np.isin(region, np.unique(region[allowed]))])
    points = _rounded(rest, normal_all, corners, weights)
    normals = _unit((normal_all[corners] * weights[..., None]).sum(1))
    canon = (mean[corners] * weights[..., None]).sum(1).astype(np.float32)
    across, along, direction = _flow(canon, traits.parted)
    streak = _look_up(streaks, across, along)
    inside = _inside(canon, traits.hairline) + 0.007 * (streak - 0.5)

    t = np.clip(inside / 0.042, 0, 1)
    full = ramp(canon[:, 1], -0.01, 0.085)
    thickness = 0.0045 + (traits.hair_thickness - 0.0045) * full
    clumps = fractal_noise(canon, 45, 2, seed)
    lift = thickness * (1 - (1 - t) ** 2) * (1 + 0.16 * clumps) + 0.0030 * (streak - 0.5) * t
    if traits.parted:
        lift -= 0.005 * np.exp(-((along / 0.006) ** 2)) * t
    lift = np.where(inside > 0, lift + 0.0004, np.clip(inside, -0.004, 0))
    points = np.asarray(points + normals * lift[:, None], np.float32)
    normals = vertex_normals(points, shell)
    direction = _unit(direction - normals * (direction * normals).sum(1, keepdims=True))
    tone = 0.50 + 0.60 * ramp(lift, 0.0, 0.010)
    attributes = np.column_stack([direction, across, along, tone]).astype(np.float32)
    keep = (inside[shell] > -0.003).any(1)

    parts = _strands(points, normals, attributes, inside, shell[keep], strands, rng)
    offset = len(points)
    return Hairdo(
        vertices=np.concatenate([points, parts[0]]).astype(np.float32),
        normals=np.concatenate([normals, parts[1]]).astype(np.float32),
        faces=np.concatenate([shell[keep], parts[2] + offset]),
        attributes=np.concatenate([attributes, parts[3]]).astype(np.float32),
        streaks=streaks,
        shell_vertices=offset,
        parted=traits.parted,
        hairline=traits.hairline,
    )


def _inside(points: Array, hairline: float) -> Array:
    """Height above the edge of the hair in the mean head, metres: positive where hair grows."""
    x, y, z = points.T
    edge = np.interp(-z, -_EDGE_Z, _EDGE_Y)
    recess = 0.007 * np.exp(-(((np.abs(x) - 0.043) / 0.014) ** 2)) * (z > -0.03)
    return np.asarray(y - edge - recess - hairline * (z > -0.04), np.float32)


def _flow(points: Array, parted: bool) -> tuple[Array, Array, Array]:
    """Across and along coordinates of the strands, and their direction, at mean-head points."""
    p = points - _SKULL
    warp = fractal_noise(points, 30, 2, 5)
    if parted:
        # Strands leave a line over the skull at x = 27 mm and fall to both sides and forward.
        angle = np.arctan2(p[:, 0] - 0.027, np.maximum(p[:, 1], 1e-3) + 0.015)
        along = angle * 0.085
        across = p[:, 2] - 0.35 * np.abs(along) + 0.006 * warp
        away = np.sign(angle)
        direction = np.stack([away * p[:, 1], -away * p[:, 0], 0.03 + 0 * away], 1)
    else:
        axis = (_CROWN - _SKULL) / np.linalg.norm(_CROWN - _SKULL)
        d = _unit(p)
        cosine = np.clip(d @ axis, -1, 1)
        u = _unit(np.cross(axis, [1.0, 0.0, 0.0])[None])[0]
        v = np.cross(axis, u)
        along = np.arccos(cosine) * 0.09
        across = np.arctan2(d @ v, d @ u) * 0.075 + 0.006 * warp
        direction = d * cosine[:, None] - axis
    return (
        np.asarray(across, np.float32),
        np.asarray(along, np.float32),
        _unit(np.asarray(direction, np.float32)),
    )


#: Streak texels per metre, across and along the strands.
STREAK_SCALE = (2600.0, 900.0)


def _look_up(streaks: Array, across: Array, along: Array) -> Array:
    size = len(streaks)
    row = np.floor(across * STREAK_SCALE[0]).astype(np.int64) % size
    column = np.floor(along * STREAK_SCALE[1]).astype(np.int64) % size
    return streaks[row, column]


def _subdivide(
    faces: NDArray[np.int64], vertices: Array
) -> tuple[NDArray[np.int64], Array, NDArray[np.int64]]:
    """Split every face into _SUBDIVISION^2: (corners [N, 3], weights [N, 3], faces [G, 3])."""
    n = _SUBDIVISION
    grid = [(i, j) for i in range(n + 1) for j in range(n + 1 - i)]
    where = {ij: k for k, ij in enumerate(grid)}
    bary = (np.array([(n - i - j, i, j) for i, j in grid]) / n).astype(np.float32)
    small = []
    for i, j in grid:
        if i + j < n:
            small.append((where[i, j], where[i + 1, j], where[i, j + 1]))
        if i + j < n - 1:
            small.append((where[i + 1, j], where[i + 1, j + 1], where[i, j + 1]))
    corners = np.repeat(faces, len(grid), 0)
    weights: Array = np.tile(bary, (len(faces), 1))
    points = (vertices[corners] * weights[..., None]).sum(1)
    _, first, inverse = np.unique(
        np.round(points * 1e6).astype(np.int64), axis=0, return_index=True, return_inverse=True
    )
    base = np.arange(len(faces))[:, None, None] * len(grid)
    return (
        corners[first],
        weights[first],
        inverse.reshape(-1)[(base + np.array(small)).reshape(-1, 3)],
    )


def _rounded(vertices: Array, normals: Array, corners: NDArray[np.int64], weights: Array) -> Array:
    """Phong tessellation (Boubekeur, Alexa, 2008): points pulled to the corners' tangent planes."""
    flat = (vertices[corners] * weights[..., None]).sum(1)
    away = ((flat[:, None] - vertices[corners]) * normals[corners]).sum(-1, keepdims=True)
    onto = flat[:, None] - away * normals[corners]
    return np.asarray(0.25 * flat + 0.75 * (onto * weights[..., None]).sum(1), np.float32)


def _strands(
    points: Array,
    normals: Array,
    attributes: Array,
    inside: Array,
    faces: NDArray[np.int64],
    count: int,
    rng: np.random.Generator,
) -> tuple[Array, Array, NDArray[np.int64], Array]:
    """Thin ribbons that leave the shell along the growth and taper to a point."""
    area = np.linalg.norm(
        np.cross(
            points[faces[:, 1]] - points[faces[:, 0]], points[faces[:, 2]] - points[faces[:, 0]]
        ),
        axis=1,
    )
    edge = 1 + 2.0 * np.exp(-((inside[faces].mean(1) / 0.012) ** 2))
    weight = area * edge * (inside[faces].min(1) > 0.0005)
    if count == 0 or weight.sum() == 0:
        none = np.zeros((0, 3), np.float32)
        return none, none, np.zeros((0, 3), np.int64), np.zeros((0, 6), np.float32)
    root = faces[rng.choice(len(faces), count, p=weight / weight.sum())][:, 0]
    p, n, a = points[root], normals[root], attributes[root]
    direction = _unit(a[:, :3] + rng.normal(0, 0.20, (count, 3)))
    length = rng.uniform(0.008, 0.019, (count, 1))
    stray = np.where(rng.random((count, 1)) < 0.03, 0.40, 0.06) * rng.uniform(0.3, 1.2, (count, 1))
    side = _unit(np.cross(direction, n)) * rng.uniform(0.00022, 0.00045, (count, 1))
    down = np.array([0, -0.12, 0])
    middle = p + 0.0006 * n + 0.5 * length * (direction + 0.6 * stray * n)
    tip = p + length * (_unit(direction + stray * n * 0.8 + down * (1 - np.abs(n[:, 1:2]))))
    corners = np.stack(
        [p - side - 0.0012 * n, p + side - 0.0012 * n, middle - side, middle + side, tip], 1
    )
    base = np.arange(count)[:, None, None] * 5
    pattern = np.array([(0, 1, 2), (1, 3, 2), (2, 3, 4)])
    own = np.repeat(a, 5, 0)
    own[:, 3] += np.repeat(rng.normal(0, 0.02, count), 5)  # a lock of its own shade
    own[:, :3] = np.repeat(direction, 5, 0)
    own[:, 5] *= 1.05
    return (
        corners.reshape(-1, 3).astype(np.float32),
        np.repeat(n, 5, 0).astype(np.float32),
        (base + pattern).reshape(-1, 3),
        own.astype(np.float32),
    )


def _unit(vectors: NDArray[np.floating]) -> Array:
    length = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return np.asarray(vectors / np.maximum(length, 1e-9), np.float32)
