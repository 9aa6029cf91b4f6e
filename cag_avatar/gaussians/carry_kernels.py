"""Compiled loops behind ``carry.py``; float32 in and out, sums in float64.

A frame (tangent, bitangent, normal as columns) of a triangle depends on the vertices through its
normal n, the unit sum N of its corners' vertex normals, and its tangent, the unit part u of an
edge e perpendicular to n. A change of both is a small rotation

    omega = n x dn + n (b . de - (e . n) (b . dn)) / |u|,    dn = (I - n n^T) dN / |N|,

so the backward pass needs one torque for each triangle, the gradient with respect to omega, instead
of gradients of matrices and quaternions.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit, prange
from numpy.typing import NDArray

__all__ = ["carry_backward", "carry_forward", "pose_frames", "vertices_backward"]

_FLOOR = 1e-24

Array = NDArray[Any]


@njit(nogil=True, cache=True)
def _cross(a: Array, b: Array, out: Array) -> None:
    x = a[1] * b[2] - a[2] * b[1]
    y = a[2] * b[0] - a[0] * b[2]
    out[2] = a[0] * b[1] - a[1] * b[0]
    out[0] = x
    out[1] = y


@njit(nogil=True, cache=True)
def _product(a: Array, b: Array, out: Array) -> None:
    """Hamilton product of wxyz quaternions; ``out`` must be another array."""
    out[0] = a[0] * b[0] - a[1] * b[1] - a[2] * b[2] - a[3] * b[3]
    out[1] = a[0] * b[1] + a[1] * b[0] + a[2] * b[3] - a[3] * b[2]
    out[2] = a[0] * b[2] + a[2] * b[0] + a[3] * b[1] - a[1] * b[3]
    out[3] = a[0] * b[3] + a[3] * b[0] + a[1] * b[2] - a[2] * b[1]


@njit(nogil=True, cache=True)
def _quaternion(m: Array, q: Array) -> None:
    """Rotation matrix [3, 3] to wxyz, dividing by the largest component (Shepperd 1978)."""
    trace = m[0, 0] + m[1, 1] + m[2, 2]
    if trace >= m[0, 0] and trace >= m[1, 1] and trace >= m[2, 2]:
        q[0], q[1] = 1 + trace, m[2, 1] - m[1, 2]
        q[2], q[3] = m[0, 2] - m[2, 0], m[1, 0] - m[0, 1]
    elif m[0, 0] >= m[1, 1] and m[0, 0] >= m[2, 2]:
        q[0], q[1] = m[2, 1] - m[1, 2], 1 + m[0, 0] - m[1, 1] - m[2, 2]
        q[2], q[3] = m[0, 1] + m[1, 0], m[0, 2] + m[2, 0]
    elif m[1, 1] >= m[2, 2]:
        q[0], q[1] = m[0, 2] - m[2, 0], m[0, 1] + m[1, 0]
        q[2], q[3] = 1 - m[0, 0] + m[1, 1] - m[2, 2], m[1, 2] + m[2, 1]
    else:
        q[0], q[1] = m[1, 0] - m[0, 1], m[0, 2] + m[2, 0]
        q[2], q[3] = m[1, 2] + m[2, 1], 1 - m[0, 0] - m[1, 1] + m[2, 2]
    norm = np.sqrt(q[0] ** 2 + q[1] ** 2 + q[2] ** 2 + q[3] ** 2)
    for k in range(4):
        q[k] /= norm


@njit(nogil=True, cache=True)
def _edges(vertices: Array, face: Array, a: Array, b: Array) -> None:
    for k in range(3):
        a[k] = vertices[face[1], k] - vertices[face[0], k]
        b[k] = vertices[face[2], k] - vertices[face[0], k]


@njit(nogil=True, cache=True)
def pose_frames(
    vertices: Array, faces: Array, used: Array, tangent_edge: Array, rest_frames: Array
) -> tuple[Array, Array, Array]:
    """Frames of the used triangles in posed vertices [V, 3].

    Args:
        vertices: [V, 3].
        faces: triangles near a Gaussian, [F, 3].
        used: rows of ``faces`` that carry Gaussians, [K].
        tangent_edge: [F].
        rest_frames: frames of the used triangles at rest, [K, 3, 3].

    Returns:
        turns [K, 2, 3, 3] (0: the frame, 1: frame times rest frame transposed), lengths [K, 3]
        (|N|, |u|, e . n) and the turns' quaternions [K, 4]; all float64.
    """
    normals = np.zeros(vertices.shape, np.float64)
    a, b, c = np.empty(3), np.empty(3), np.empty(3)
    for f in range(len(faces)):
        _edges(vertices, faces[f], a, b)
        _cross(a, b, c)
        for corner in range(3):
            for k in range(3):
                normals[faces[f, corner], k] += c[k]
    turns = np.empty((len(used), 2, 3, 3))
    lengths = np.empty((len(used), 3))
    quaternions = np.empty((len(used), 4))
    n, e, t = np.empty(3), np.empty(3), np.empty(3)
    for i in range(len(used)):
        f = used[i]
        square = _FLOOR
        for k in range(3):
            n[k] = normals[faces[f, 0], k] + normals[faces[f, 1], k] + normals[faces[f, 2], k]
            square += n[k] * n[k]
        lengths[i, 0] = np.sqrt(square)
        first = faces[f, tangent_edge[f]]
        second = faces[f, (tangent_edge[f] + 1) % 3]
        along = 0.0
        for k in range(3):
            n[k] /= lengths[i, 0]
            e[k] = vertices[second, k] - vertices[first, k]
            along += e[k] * n[k]
        square = _FLOOR
        for k in range(3):
            t[k] = e[k] - along * n[k]
            square += t[k] * t[k]
        lengths[i, 1] = np.sqrt(square)
        lengths[i, 2] = along
        for k in range(3):
            t[k] /= lengths[i, 1]
        _cross(n, t, b)
        for k in range(3):
            turns[i, 0, k, 0], turns[i, 0, k, 1], turns[i, 0, k, 2] = t[k], b[k], n[k]
        for r in range(3):
            for s in range(3):
                value = 0.0
                for k in range(3):
                    value += turns[i, 0, r, k] * rest_frames[i, s, k]
                turns[i, 1, r, s] = value
        _quaternion(turns[i, 1], quaternions[i])
    return turns, lengths, quaternions


@njit(nogil=True, cache=True)
def _turned_by_offset(turn: Array, rest: Array, out: Array) -> float:
    """Unit product of the offset (1, turn) and the rest orientation; returns its length before."""
    out[0] = rest[0] - turn[0] * rest[1] - turn[1] * rest[2] - turn[2] * rest[3]
    out[1] = rest[1] + turn[0] * rest[0] + turn[1] * rest[3] - turn[2] * rest[2]
    out[2] = rest[2] + turn[1] * rest[0] + turn[2] * rest[1] - turn[0] * rest[3]
    out[3] = rest[3] + turn[2] * rest[0] + turn[0] * rest[2] - turn[1] * rest[1]
    norm = max(np.sqrt(out[0] ** 2 + out[1] ** 2 + out[2] ** 2 + out[3] ** 2), 1e-12)
    for k in range(4):
        out[k] /= norm
    return norm


@njit(nogil=True, cache=True)
def _carry_range(
    start: int,
    stop: int,
    vertices: Array,
    offset: Array,
    turn: Array,
    rest: Array,
    turns: Array,
    quaternions: Array,
    corner: Array,
    weight: Array,
    triangle: Array,
    means: Array,
    oriented: Array,
    points: Array,
) -> None:
    local, out = np.empty(4), np.empty(4)
    for i in range(start, stop):
        m = turns[triangle[i], 1]
        for k in range(3):
            point = (
                weight[i, 0] * vertices[corner[i, 0], k]
                + weight[i, 1] * vertices[corner[i, 1], k]
                + weight[i, 2] * vertices[corner[i, 2], k]
            )
            points[i, k] = point
            means[i, k] = (
                point + m[k, 0] * offset[i, 0] + m[k, 1] * offset[i, 1] + m[k, 2] * offset[i, 2]
            )
        _turned_by_offset(turn[i], rest[i], local)
        _product(quaternions[triangle[i]], local, out)
        for k in range(4):
            oriented[i, k] = out[k]


@njit(nogil=True, cache=True, parallel=True)
def carry_forward(
    threads: int,
    vertices: Array,
    offset: Array,
    turn: Array,
    rest: Array,
    turns: Array,
    quaternions: Array,
    corner: Array,
    weight: Array,
    triangle: Array,
) -> tuple[Array, Array, Array]:
    """Means [N, 3], unit quaternions [N, 4] and surface points [N, 3], float32."""
    count = len(offset)
    means = np.empty((count, 3), np.float32)
    points = np.empty((count, 3), np.float32)
    oriented = np.empty((count, 4), np.float32)
    for share in prange(threads):
        _carry_range(
            share * count // threads, (share + 1) * count // threads, vertices, offset, turn, rest,
            turns, quaternions, corner, weight, triangle, means, oriented, points,
        )  # fmt: skip
    return means, oriented, points


@njit(nogil=True, cache=True)
def _carry_range_backward(
    start: int,
    stop: int,
    g_means: Array,
    g_quaternions: Array,
    offset: Array,
    turn: Array,
    rest: Array,
    turns: Array,
    quaternions: Array,
    triangle: Array,
    d_offset: Array,
    d_turn: Array,
    d_rest: Array,
    torque: Array,
) -> None:
    moved, twist, local, conjugate = np.empty(3), np.empty(3), np.empty(4), np.empty(4)
    g_local, out = np.empty(4), np.empty(4)
    for i in range(start, stop):
        f = triangle[i]
        m = turns[f, 1]
        for k in range(3):
            moved[k] = m[k, 0] * offset[i, 0] + m[k, 1] * offset[i, 1] + m[k, 2] * offset[i, 2]
            d_offset[i, k] = (
                m[0, k] * g_means[i, 0] + m[1, k] * g_means[i, 1] + m[2, k] * g_means[i, 2]
            )
        _cross(moved, g_means[i], twist)
        norm = _turned_by_offset(turn[i], rest[i], local)
        # Final quaternion p = q l: a small rotation w of the surface changes it by (0, w) p / 2.
        q = quaternions[f]
        _product(q, local, out)
        g = g_quaternions[i]
        torque[i, 0] = twist[0] + 0.5 * (
            -g[0] * out[1] + g[1] * out[0] - g[2] * out[3] + g[3] * out[2]
        )
        torque[i, 1] = twist[1] + 0.5 * (
            -g[0] * out[2] + g[1] * out[3] + g[2] * out[0] - g[3] * out[1]
        )
        torque[i, 2] = twist[2] + 0.5 * (
            -g[0] * out[3] - g[1] * out[2] + g[2] * out[1] + g[3] * out[0]
        )
        # Multiplication by a unit quaternion is orthogonal: its transpose is its conjugate.
        conjugate[0], conjugate[1], conjugate[2], conjugate[3] = q[0], -q[1], -q[2], -q[3]
        _product(conjugate, g, g_local)
        along = 0.0
        for k in range(4):
            along += g_local[k] * local[k]
        for k in range(4):
            g_local[k] = (g_local[k] - along * local[k]) / norm
        r = rest[i]
        conjugate[0], conjugate[1], conjugate[2], conjugate[3] = r[0], -r[1], -r[2], -r[3]
        _product(g_local, conjugate, out)
        for k in range(3):
            d_turn[i, k] = out[k + 1]
        conjugate[0] = 1.0
        conjugate[1], conjugate[2], conjugate[3] = -turn[i, 0], -turn[i, 1], -turn[i, 2]
        _product(conjugate, g_local, out)
        for k in range(4):
            d_rest[i, k] = out[k]


@njit(nogil=True, cache=True, parallel=True)
def carry_backward(
    threads: int,
    g_means: Array,
    g_quaternions: Array,
    offset: Array,
    turn: Array,
    rest: Array,
    turns: Array,
    quaternions: Array,
    triangle: Array,
) -> tuple[Array, Array, Array, Array]:
    """Gradients of offset, turn and rest, and the torque of each Gaussian on its frame [N, 3]."""
    count = len(offset)
    d_offset = np.empty((count, 3), np.float32)
    d_turn = np.empty((count, 3), np.float32)
    d_rest = np.empty((count, 4), np.float32)
    torque = np.empty((count, 3))
    for share in prange(threads):
        _carry_range_backward(
            share * count // threads, (share + 1) * count // threads, g_means, g_quaternions,
            offset, turn, rest, turns, quaternions, triangle, d_offset, d_turn, d_rest, torque,
        )  # fmt: skip
    return d_offset, d_turn, d_rest, torque


@njit(nogil=True, cache=True)
def _frames_backward(
    torque: Array,
    vertices: Array,
    turns: Array,
    lengths: Array,
    d_vertices: Array,
    faces: Array,
    used: Array,
    tangent_edge: Array,
) -> None:
    """Add to ``d_vertices`` [V, 3] what the torques [K, 3] on the frames ask for."""
    d_normals = np.zeros(vertices.shape, np.float64)
    g, a, b, c = np.empty(3), np.empty(3), np.empty(3), np.empty(3)
    for i in range(len(used)):
        f = used[i]
        frame = turns[i, 0]
        n = frame[:, 2]
        axial = torque[i, 0] * n[0] + torque[i, 1] * n[1] + torque[i, 2] * n[2]
        _cross(torque[i], n, g)
        first = faces[f, tangent_edge[f]]
        second = faces[f, (tangent_edge[f] + 1) % 3]
        for k in range(3):
            edge = axial / lengths[i, 1] * frame[k, 1]
            d_vertices[second, k] += edge
            d_vertices[first, k] -= edge
            normal = (g[k] - edge * lengths[i, 2]) / lengths[i, 0]
            for corner in range(3):
                d_normals[faces[f, corner], k] += normal
    for f in range(len(faces)):
        for k in range(3):
            g[k] = d_normals[faces[f, 0], k] + d_normals[faces[f, 1], k] + d_normals[faces[f, 2], k]
        if g[0] == 0 and g[1] == 0 and g[2] == 0:
            continue
        _edges(vertices, faces[f], a, b)
        _cross(b, g, c)
        for k in range(3):
            d_vertices[faces[f, 1], k] += c[k]
            d_vertices[faces[f, 0], k] -= c[k]
        _cross(g, a, c)
        for k in range(3):
            d_vertices[faces[f, 2], k] += c[k]
            d_vertices[faces[f, 0], k] -= c[k]


@njit(nogil=True, cache=True)
def vertices_backward(
    g_means: Array,
    g_points: Array,
    torque: Array,
    vertices: Array,
    turns: Array,
    lengths: Array,
    faces: Array,
    used: Array,
    tangent_edge: Array,
    corner: Array,
    weight: Array,
    triangle: Array,
) -> Array:
    """Gradient of the vertices [V, 3], through the surface points and through the frames."""
    d_vertices = np.zeros(vertices.shape, np.float32)
    torques = np.zeros((len(used), 3))
    for i in range(len(torque)):
        for k in range(3):
            torques[triangle[i], k] += torque[i, k]
            total = g_means[i, k] + g_points[i, k]
            for c in range(3):
                d_vertices[corner[i, c], k] += weight[i, c] * total
    _frames_backward(torques, vertices, turns, lengths, d_vertices, faces, used, tangent_edge)
    return d_vertices
