"""Z-buffer rasteriser for triangle meshes on the CPU (numba, all cores)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numba import get_num_threads, njit, prange
from numpy.typing import NDArray

from cag_avatar.camera import PinholeCamera
from cag_avatar.errors import InputError

__all__ = [
    "MeshBuffers",
    "interpolate",
    "rasterize",
    "silhouette",
    "vertex_normals",
    "visible_faces",
]

#: Rows of one work item: small enough to balance two cores, large enough that few triangles repeat.
_BAND_ROWS = 16


@dataclass(frozen=True)
class MeshBuffers:
    """What the camera sees of a mesh, per sample.

    The buffers have ``supersample`` times the camera's rows and columns: H = height * supersample,
    W = width * supersample. Sample (row i, column j) lies at ((j + .5) / supersample,
    (i + .5) / supersample) in the camera's pixels.
    """

    face_index: NDArray[np.int32]
    """Visible face of each sample, -1 where there is none, [H, W] int32."""
    barycentric: NDArray[np.float32]
    """Perspective-correct weights of the face's corners, zero where there is none, [H, W, 3]."""
    depth: NDArray[np.float32]
    """Camera-space z in metres, +inf where there is none, [H, W] float32."""
    faces: NDArray[np.int32]
    """The faces that ``face_index`` counts, [F, 3] int32."""
    supersample: int
    """Samples per pixel along each axis."""


def rasterize(
    vertices_camera: NDArray[Any],
    faces: NDArray[Any],
    camera: PinholeCamera,
    supersample: int = 1,
    cull_backfaces: bool = False,
    near: float = 0.01,
    threads: int | None = None,
) -> MeshBuffers:
    """Find the nearest face at every sample of the picture.

    A triangle with a corner nearer than ``near`` is dropped whole, not clipped: heads stand well
    in front of the camera. A sample on an edge shared by two faces goes to one of them; at equal
    depth the lower face index wins, so the result does not depend on the number of threads.

    Args:
        vertices_camera: camera-space vertices (OpenCV axes, metres), [V, 3].
        faces: triangles, counter-clockwise seen from outside, [F, 3] integer.
        camera: intrinsics; pixel centres at integer + 0.5.
        supersample: samples per pixel along each axis, >= 1.
        cull_backfaces: skip triangles that turn their back to the camera.
        near: nearest z drawn, metres, positive.
        threads: by default as many as numba uses; with 1, several threads of the caller may draw at
            once.

    Raises:
        InputError: on a wrong shape, a face index out of range, or vertices that are not finite.
    """
    vertices, triangles = _checked(vertices_camera, faces, supersample, near)
    rows, columns = camera.height * supersample, camera.width * supersample
    face_index = np.full((rows, columns), -1, np.int32)
    barycentric = np.zeros((rows, columns, 3), np.float32)
    depth = np.zeros((rows, columns), np.float32)
    if triangles.size:
        setup, boxes, starts, members = _dealt_out(
            vertices, triangles, camera, supersample, near, cull_backfaces
        )
        arguments = (setup, boxes, starts, members, face_index, barycentric, depth)
        workers = min(threads or get_num_threads(), len(starts) - 1)
        if workers > 1:
            _fill(*arguments, workers)
        else:
            _fill_share(*arguments, 0, 1)
    else:
        depth.fill(np.inf)
    return MeshBuffers(face_index, barycentric, depth, triangles, supersample)


def visible_faces(
    vertices_camera: NDArray[Any], faces: NDArray[Any], camera: PinholeCamera
) -> NDArray[np.int32]:
    """``face_index`` of :func:`rasterize` alone, [H, W], in half of its time.

    One thread draws; several threads of the caller may draw at once. Arguments and errors as there.
    """
    vertices, triangles = _checked(vertices_camera, faces, 1, 0.01)
    face_index = np.full((camera.height, camera.width), -1, np.int32)
    if triangles.size:
        depth = np.zeros(face_index.shape, np.float32)
        dealt = _dealt_out(vertices, triangles, camera, 1, 0.01, False)
        _cover_share(*dealt, face_index, depth, 0, 1)
    return face_index


def _checked(
    vertices_camera: NDArray[Any], faces: NDArray[Any], supersample: int, near: float
) -> tuple[NDArray[np.float32], NDArray[np.int32]]:
    vertices = np.ascontiguousarray(vertices_camera, dtype=np.float32)
    triangles = np.ascontiguousarray(faces, dtype=np.int32)
    if vertices.ndim != 2 or vertices.shape[1] != 3:
        raise InputError(f"rasterize: vertices have shape {vertices.shape}, expected [V, 3]")
    if triangles.ndim != 2 or triangles.shape[1] != 3:
        raise InputError(f"rasterize: faces have shape {triangles.shape}, expected [F, 3]")
    if supersample < 1 or near <= 0:
        raise InputError(
            f"rasterize: supersample {supersample} must be >= 1 and near {near} positive"
        )
    if triangles.size and (triangles.min() < 0 or triangles.max() >= len(vertices)):
        raise InputError(f"rasterize: a face index lies outside 0..{len(vertices) - 1}")
    if not np.isfinite(vertices).all():
        raise InputError("rasterize: vertices are not finite")
    return vertices, triangles


def _dealt_out(
    vertices: NDArray[np.float32],
    triangles: NDArray[np.int32],
    camera: PinholeCamera,
    supersample: int,
    near: float,
    cull: bool,
) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any], NDArray[Any]]:
    """Faces set up (_set_up) and dealt out to bands of rows (_bin_by_band)."""
    rows, columns = camera.height * supersample, camera.width * supersample
    setup, boxes = _set_up(
        vertices, triangles, camera.fx * supersample, camera.fy * supersample,
        camera.cx * supersample, camera.cy * supersample, rows, columns, near, cull,
    )  # fmt: skip
    starts, members = _bin_by_band(boxes, (rows + _BAND_ROWS - 1) // _BAND_ROWS)
    return setup, boxes, starts, members


def interpolate(
    buffers: MeshBuffers,
    attributes: NDArray[Any],
    corners: NDArray[Any] | None = None,
    background: float = 0.0,
) -> NDArray[np.float32]:
    """Attributes at every sample, perspective-correct.

    Args:
        buffers: result of :func:`rasterize`.
        attributes: per-vertex values, [N, C] or [N].
        corners: indices of each face's corners into ``attributes``, [F, 3]; by default the mesh's
            own faces. Pass ``face_uv`` to interpolate UV coordinates, which have seams.
        background: value where there is no face.

    Returns:
        [H, W, C] (or [H, W] for one-dimensional attributes) float32.

    Raises:
        InputError: if ``corners`` does not match the mesh, or points outside ``attributes``.
    """
    index = np.ascontiguousarray(buffers.faces if corners is None else corners, dtype=np.int32)
    values = np.ascontiguousarray(attributes, dtype=np.float32)
    flat = values.ndim == 1
    if flat:
        values = values[:, None]
    if index.shape != buffers.faces.shape or values.ndim != 2:
        raise InputError(
            f"interpolate: corners {index.shape} must match the faces {buffers.faces.shape} and "
            f"attributes {values.shape} be [N, C]"
        )
    if index.size and (index.min() < 0 or index.max() >= len(values)):
        raise InputError(f"interpolate: a corner lies outside the {len(values)} attributes")
    out = np.full((*buffers.face_index.shape, values.shape[1]), background, np.float32)
    _gather(buffers.face_index, buffers.barycentric, index, values, out)
    return out[..., 0] if flat else out


def silhouette(buffers: MeshBuffers) -> NDArray[np.float32]:
    """Coverage of every pixel by the mesh, at the camera's resolution, [H, W] float32 in [0, 1]."""
    step = buffers.supersample
    rows, columns = (n // step for n in buffers.face_index.shape)
    covered = (buffers.face_index >= 0).reshape(rows, step, columns, step)
    return covered.mean((1, 3), dtype=np.float32)


def vertex_normals(vertices: NDArray[Any], faces: NDArray[Any]) -> NDArray[np.float32]:
    """Unit normals, area-weighted over the adjacent faces: [V, 3] and [F, 3] -> [V, 3] float32.

    They point outward for faces counter-clockwise seen from outside; a vertex without a face
    gets 0.
    """
    points = np.ascontiguousarray(vertices, dtype=np.float32)
    return _vertex_normals(points, np.ascontiguousarray(faces, dtype=np.int32))


@njit(cache=True, nogil=True)
def _set_up(vertices, faces, fx, fy, cx, cy, rows, columns, near, cull):  # type: ignore[no-untyped-def]
    """Edge functions (9), inverse depths (3) and the sample box (4) of every face.

    The edge function of corner k is its weight in the picture plane: w_k = a_k x + b_k y + c_k.
    A dropped face has an empty box.
    """
    setup = np.zeros((len(faces), 12), np.float64)
    boxes = np.zeros((len(faces), 4), np.int32)
    px = np.empty(3, np.float64)
    py = np.empty(3, np.float64)
    for f in range(len(faces)):
        behind = False
        for k in range(3):
            v = faces[f, k]
            z = np.float64(vertices[v, 2])
            if z < near:
                behind = True
                break
            px[k] = fx * vertices[v, 0] / z + cx
            py[k] = fy * vertices[v, 1] / z + cy
            setup[f, 9 + k] = 1.0 / z
        if behind:
            continue
        area = (px[1] - px[0]) * (py[2] - py[0]) - (py[1] - py[0]) * (px[2] - px[0])
        # y points down: a face counter-clockwise from outside has a negative area when seen.
        if abs(area) < 1e-12 or (cull and area > 0):
            continue
        left = max(np.ceil(min(px[0], px[1], px[2]) - 0.5), 0.0)
        right = min(np.floor(max(px[0], px[1], px[2]) - 0.5), columns - 1.0)
        top = max(np.ceil(min(py[0], py[1], py[2]) - 0.5), 0.0)
        bottom = min(np.floor(max(py[0], py[1], py[2]) - 0.5), rows - 1.0)
        if left > right or top > bottom:
            continue
        boxes[f, 0], boxes[f, 1] = int(left), int(right) + 1
        boxes[f, 2], boxes[f, 3] = int(top), int(bottom) + 1
        for k in range(3):
            i, j = (k + 1) % 3, (k + 2) % 3
            a = (py[i] - py[j]) / area
            b = (px[j] - px[i]) / area
            setup[f, 3 * k] = a
            setup[f, 3 * k + 1] = b
            setup[f, 3 * k + 2] = -(a * px[i] + b * py[i])
    return setup, boxes


@njit(cache=True, nogil=True)
def _bin_by_band(boxes, bands):  # type: ignore[no-untyped-def]
    """Faces touching each band of rows, ascending: (starts [bands + 1], members)."""
    starts = np.zeros(bands + 1, np.int64)
    for f in range(len(boxes)):
        if boxes[f, 2] < boxes[f, 3]:
            for band in range(boxes[f, 2] // _BAND_ROWS, (boxes[f, 3] - 1) // _BAND_ROWS + 1):
                starts[band + 1] += 1
    for band in range(bands):
        starts[band + 1] += starts[band]
    members = np.empty(starts[bands], np.int32)
    cursor = starts[:-1].copy()
    for f in range(len(boxes)):
        if boxes[f, 2] < boxes[f, 3]:
            for band in range(boxes[f, 2] // _BAND_ROWS, (boxes[f, 3] - 1) // _BAND_ROWS + 1):
                members[cursor[band]] = f
                cursor[band] += 1
    return starts, members


@njit(cache=True, nogil=True, parallel=True)
def _fill(setup, boxes, starts, members, face_index, barycentric, depth, workers):  # type: ignore[no-untyped-def]
    """Fill the three buffers; ``depth`` comes in as zeros."""
    for worker in prange(workers):
        # Bands are dealt out in turn: the middle of a portrait holds most of the work.
        _fill_share(setup, boxes, starts, members, face_index, barycentric, depth, worker, workers)


@njit(cache=True, nogil=True)
def _fill_share(  # type: ignore[no-untyped-def]
    setup, boxes, starts, members, face_index, barycentric, depth, worker, workers
):
    """Fill every so manieth band of rows; ``depth`` holds 1 / z until the last pass."""
    rows, columns = face_index.shape
    _cover_share(setup, boxes, starts, members, face_index, depth, worker, workers)
    for band in range(worker, len(starts) - 1, workers):
        for i in range(band * _BAND_ROWS, min((band + 1) * _BAND_ROWS, rows)):
            y = i + 0.5
            for j in range(columns):
                f = face_index[i, j]
                if f < 0:
                    depth[i, j] = np.inf
                    continue
                x = j + 0.5
                w0 = (setup[f, 0] * x + setup[f, 1] * y + setup[f, 2]) * setup[f, 9]
                w1 = (setup[f, 3] * x + setup[f, 4] * y + setup[f, 5]) * setup[f, 10]
                w2 = (setup[f, 6] * x + setup[f, 7] * y + setup[f, 8]) * setup[f, 11]
                z = 1.0 / (w0 + w1 + w2)
                depth[i, j] = z
                barycentric[i, j, 0] = w0 * z
                barycentric[i, j, 1] = w1 * z
                barycentric[i, j, 2] = w2 * z


@njit(cache=True, nogil=True)
def _cover_share(setup, boxes, starts, members, face_index, depth, worker, workers):  # type: ignore[no-untyped-def]
    """The nearest face and 1 / z in every so manieth band of rows."""
    rows, _ = face_index.shape
    for band in range(worker, len(starts) - 1, workers):
        first, last = band * _BAND_ROWS, min((band + 1) * _BAND_ROWS, rows)
        for m in range(starts[band], starts[band + 1]):
            f = members[m]
            a0, a1, a2 = setup[f, 0], setup[f, 3], setup[f, 6]
            q0, q1, q2 = setup[f, 9], setup[f, 10], setup[f, 11]
            slope = a0 * q0 + a1 * q1 + a2 * q2
            for i in range(max(boxes[f, 2], first), min(boxes[f, 3], last)):
                y = i + 0.5
                r0 = setup[f, 1] * y + setup[f, 2]
                r1 = setup[f, 4] * y + setup[f, 5]
                r2 = setup[f, 7] * y + setup[f, 8]
                # The tolerance closes the hairline between faces that share an edge.
                left, right = _clip(a0, r0 + 1e-9, float(boxes[f, 0]), float(boxes[f, 1] - 1))
                left, right = _clip(a1, r1 + 1e-9, left, right)
                left, right = _clip(a2, r2 + 1e-9, left, right)
                if left > right:
                    continue
                base = r0 * q0 + r1 * q1 + r2 * q2
                for j in range(int(np.ceil(left)), int(np.floor(right)) + 1):
                    inverse = np.float32(slope * (j + 0.5) + base)
                    if inverse > depth[i, j]:
                        depth[i, j] = inverse
                        face_index[i, j] = f


@njit(cache=True, nogil=True)
def _clip(slope, offset, left, right):  # type: ignore[no-untyped-def]
    """Columns j of [left, right] whose centre has slope * (j + .5) + offset >= 0."""
    if slope > 0:
        left = max(left, -offset / slope - 0.5)
    elif slope < 0:
        right = min(right, -offset / slope - 0.5)
    elif offset < 0:
        right = left - 1
    return left, right


@njit(cache=True, nogil=True, parallel=True)
def _gather(face_index, barycentric, corners, values, out):  # type: ignore[no-untyped-def]
    for i in prange(face_index.shape[0]):
        for j in range(face_index.shape[1]):
            f = face_index[i, j]
            if f >= 0:
                a, b, c = corners[f, 0], corners[f, 1], corners[f, 2]
                wa, wb, wc = barycentric[i, j, 0], barycentric[i, j, 1], barycentric[i, j, 2]
                for k in range(values.shape[1]):
                    out[i, j, k] = wa * values[a, k] + wb * values[b, k] + wc * values[c, k]


@njit(cache=True, nogil=True)
def _vertex_normals(vertices, faces):  # type: ignore[no-untyped-def]
    normals = np.zeros_like(vertices)
    for f in range(len(faces)):
        a, b, c = faces[f, 0], faces[f, 1], faces[f, 2]
        ux = vertices[b, 0] - vertices[a, 0]
        uy = vertices[b, 1] - vertices[a, 1]
        uz = vertices[b, 2] - vertices[a, 2]
        vx = vertices[c, 0] - vertices[a, 0]
        vy = vertices[c, 1] - vertices[a, 1]
        vz = vertices[c, 2] - vertices[a, 2]
        nx, ny, nz = uy * vz - uz * vy, uz * vx - ux * vz, ux * vy - uy * vx
        for k in range(3):
            v = faces[f, k]
            normals[v, 0] += nx
            normals[v, 1] += ny
            normals[v, 2] += nz
    for v in range(len(vertices)):
        x, y, z = normals[v, 0], normals[v, 1], normals[v, 2]
        length = np.sqrt(x * x + y * y + z * z)
        if length > 1e-20:
            normals[v, 0] = x / length
            normals[v, 1] = y / length
            normals[v, 2] = z / length
    return normals
