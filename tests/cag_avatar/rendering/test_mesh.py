from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from cag_avatar.camera import PinholeCamera
from cag_avatar.errors import InputError
from cag_avatar.rendering.mesh import (
    interpolate,
    rasterize,
    silhouette,
    vertex_normals,
    visible_faces,
)

CAMERA = PinholeCamera(48, 40, 60.0, 55.0, 23.2, 19.1)


def rays(camera: PinholeCamera, supersample: int = 1) -> NDArray[np.float64]:
    j, i = np.meshgrid(
        (np.arange(camera.width * supersample) + 0.5) / supersample,
        (np.arange(camera.height * supersample) + 0.5) / supersample,
    )
    directions = [(j - camera.cx) / camera.fx, (i - camera.cy) / camera.fy, np.ones_like(j)]
    return np.stack(directions, -1)


def brute_force(
    vertices: NDArray[np.float64], faces: NDArray[np.int64], camera: PinholeCamera
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Moeller-Trumbore for every pixel and every face: no projection, no edge functions."""
    directions = rays(camera).reshape(-1, 3)
    index = np.full(len(directions), -1)
    depth = np.full(len(directions), np.inf)
    for f, (a, b, c) in enumerate(vertices[faces]):
        e1, e2 = b - a, c - a
        p = np.cross(directions, e2)
        determinant = p @ e1
        with np.errstate(divide="ignore", invalid="ignore"):
            u = (p @ -a) / determinant
            q = np.cross(-a, e1)
            v = directions @ q / determinant
            z = (e2 @ q) / determinant
            hit = (u >= 0) & (v >= 0) & (u + v <= 1) & (z > 0) & (z < depth)
        index[hit], depth[hit] = f, z[hit]
    shape = (camera.height, camera.width)
    return index.reshape(shape), depth.reshape(shape)


def sphere(rings: int = 60) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    theta, phi = np.meshgrid(
        np.linspace(0, np.pi, rings + 1), np.linspace(0, 2 * np.pi, 2 * rings + 1), indexing="ij"
    )
    points = np.stack(
        [np.sin(theta) * np.cos(phi), np.cos(theta), np.sin(theta) * np.sin(phi)], -1
    ).reshape(-1, 3)
    a = np.arange(rings)[:, None] * (2 * rings + 1) + np.arange(2 * rings)[None]
    b, c, d = a + 1, a + 2 * rings + 1, a + 2 * rings + 2
    # Counter-clockwise seen from outside.
    faces = np.concatenate(
        [np.stack([a, b, c], -1).reshape(-1, 3), np.stack([b, d, c], -1).reshape(-1, 3)]
    )
    return points.astype(np.float32), faces


def test_slanted_plane_has_the_depth_of_its_equation() -> None:
    # The plane z = 2 + 0.5 x - 0.3 y as one large quad.
    corners = np.array([[-5, -5], [5, -5], [5, 5], [-5, 5]], float) * 0.3
    z = 2 + 0.5 * corners[:, 0] - 0.3 * corners[:, 1]
    vertices = np.column_stack([corners, z]).astype(np.float32)
    buffers = rasterize(vertices, np.array([[0, 1, 2], [0, 2, 3]]), CAMERA, supersample=2)
    directions = rays(CAMERA, 2)
    expected = 2 / (directions @ [-0.5, 0.3, 1.0])
    assert buffers.face_index.shape == (80, 96)
    assert (buffers.face_index >= 0).all()
    np.testing.assert_allclose(buffers.depth, expected, rtol=1e-6)
    # Interpolating positions must give back the point on each ray: perspective-correct weights.
    points = interpolate(buffers, vertices)
    np.testing.assert_allclose(points, directions * expected[..., None], atol=2e-6)


def test_sphere_depth_and_area() -> None:
    points, faces = sphere()
    centre = np.array([0.05, -0.1, 3.0])
    camera = PinholeCamera(128, 128, 150.0, 150.0, 64.0, 64.0)
    buffers = rasterize(points * 0.8 + centre, faces, camera, supersample=2)
    directions = rays(camera, 2)
    b = directions @ centre
    a = (directions**2).sum(-1)
    discriminant = b**2 - a * (centre @ centre - 0.64)
    inside = discriminant > 0.02
    expected = (b[inside] - np.sqrt(discriminant[inside])) / a[inside]
    assert (buffers.face_index[inside] >= 0).all()
    assert (buffers.face_index[discriminant < 0] < 0).all()
    np.testing.assert_allclose(buffers.depth[inside], expected, atol=5e-3)
    assert silhouette(buffers).sum() == pytest.approx((discriminant > 0).sum() / 4, rel=0.01)


def test_matches_brute_force_on_random_triangles() -> None:
    rng = np.random.default_rng(3)
    centres = rng.uniform([-1, -1, 1.5], [1, 1, 4], (60, 1, 3))
    vertices = (centres + rng.normal(0, 0.3, (60, 3, 3))).reshape(-1, 3)
    faces = np.arange(180).reshape(60, 3)
    buffers = rasterize(vertices, faces, CAMERA)
    index, depth = brute_force(vertices.astype(np.float32).astype(float), faces, CAMERA)
    same = index == buffers.face_index
    assert same.mean() > 0.998  # samples within rounding of an edge may differ
    hit = same & (index >= 0)
    assert 0.3 < hit.mean() < 1
    np.testing.assert_allclose(buffers.depth[hit], depth[hit], rtol=1e-5)
    np.testing.assert_allclose(buffers.barycentric[hit].sum(-1), 1, atol=1e-5)
    assert (buffers.barycentric[index < 0] == 0).all()
    assert np.isinf(buffers.depth[buffers.face_index < 0]).all()
    np.testing.assert_array_equal(visible_faces(vertices, faces, CAMERA), buffers.face_index)


@pytest.mark.parametrize("threads", [1, 2, 7])
def test_any_number_of_threads_draws_the_same(threads: int) -> None:
    vertices, faces = sphere()
    vertices = vertices * 0.6 + np.array([0.1, -0.1, 2.5], np.float32)
    alone, some = (rasterize(vertices, faces, CAMERA, threads=n) for n in (1, threads))
    for name in ("face_index", "barycentric", "depth"):
        np.testing.assert_array_equal(getattr(alone, name), getattr(some, name))


def test_shared_edges_leave_no_hole() -> None:
    rng = np.random.default_rng(0)
    n = 12
    x, y = np.meshgrid(np.linspace(-2, 2, n), np.linspace(-2, 2, n))
    vertices = np.column_stack([x.ravel(), y.ravel(), 2 + rng.uniform(-0.1, 0.1, n * n)])
    a = (np.arange(n - 1)[:, None] * n + np.arange(n - 1)).ravel()
    faces = np.concatenate([np.stack([a, a + 1, a + n], 1), np.stack([a + 1, a + n + 1, a + n], 1)])
    assert silhouette(rasterize(vertices, faces, CAMERA, supersample=3)).min() == 1


def test_culling_keeps_the_front_of_a_closed_surface() -> None:
    points, faces = sphere(24)
    vertices = points + np.array([0, 0, 4.0], np.float32)
    both = rasterize(vertices, faces, CAMERA)
    front = rasterize(vertices, faces, CAMERA, cull_backfaces=True)
    back = rasterize(vertices, faces[:, ::-1], CAMERA, cull_backfaces=True)
    np.testing.assert_array_equal(front.face_index, both.face_index)
    hit = both.face_index >= 0
    assert (back.depth[hit] > front.depth[hit]).all()


def test_triangles_reaching_behind_the_camera_are_dropped() -> None:
    vertices = np.array([[-1, -1, 2], [1, -1, 2], [0, 1, -0.5], [0, 1, 2]], np.float32)
    buffers = rasterize(vertices, np.array([[0, 1, 2]]), CAMERA)
    assert (buffers.face_index == -1).all()
    assert (rasterize(vertices, np.array([[0, 1, 3]]), CAMERA).face_index == 0).any()


def test_interpolation_follows_separate_corners_and_background() -> None:
    vertices = np.array([[-9, -9, 2], [9, -9, 2], [0, 9, 2], [50, 50, 2]], np.float32)
    buffers = rasterize(vertices, np.array([[0, 1, 2]]), CAMERA)
    values = np.array([5.0, 6.0, 7.0, 8.0])
    constant = interpolate(buffers, values, corners=np.array([[3, 3, 3]]), background=-1)
    assert constant.shape == (40, 48)
    np.testing.assert_allclose(constant[buffers.face_index == 0], 8)
    empty = rasterize(vertices + 100, np.array([[0, 1, 2]]), CAMERA)
    assert (interpolate(empty, values, background=-1) == -1).all()


def test_vertex_normals_of_a_sphere_point_outward() -> None:
    points, faces = sphere(40)
    normals = vertex_normals(points, faces)
    interior = np.abs(points[:, 1]) < 0.99
    seam = np.abs(points[:, 2]) > 1e-3  # the first and last meridian see half their faces
    np.testing.assert_allclose(normals[interior & seam], points[interior & seam], atol=0.01)


@pytest.mark.parametrize(
    ("vertices", "faces", "message"),
    [
        (np.zeros((3, 2)), np.array([[0, 1, 2]]), "expected"),
        (np.ones((3, 3)), np.array([[0, 1, 3]]), "outside"),
        (np.full((3, 3), np.nan), np.array([[0, 1, 2]]), "finite"),
        (np.ones((3, 3)), np.array([0, 1, 2]), "expected"),
    ],
)
def test_bad_meshes_are_named(
    vertices: NDArray[np.float64], faces: NDArray[np.int64], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        rasterize(vertices, faces, CAMERA)
