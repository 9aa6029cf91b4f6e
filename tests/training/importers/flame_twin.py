"""A small head with FLAME's file layout, posed and drawn by plain numpy, as the formats mean it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

Array = NDArray[np.float64]

SHAPES, EXPRESSIONS = 300, 100
#: Samples per pixel along each axis of a silhouette.
FINE = 4


@dataclass(frozen=True)
class FlameTwin:
    """FLAME's arrays under the names that its file gives them, and its linear blend skinning."""

    v_template: Array
    f: NDArray[np.int64]
    shapedirs: Array
    posedirs: Array
    J_regressor: Array
    weights: Array
    left_eye: NDArray[np.int64]
    right_eye: NDArray[np.int64]
    parents = (-1, 0, 1, 1, 1)

    def arrays(self) -> dict[str, Any]:
        """What the model file holds."""
        table = np.array([[4294967295, 0, 1, 1, 1], [0, 1, 2, 3, 4]], np.uint32)
        names = ("v_template", "f", "shapedirs", "posedirs", "J_regressor", "weights")
        return {name: getattr(self, name) for name in names} | {"kintree_table": table}

    def vertices(self, shape: Array, pose: FlamePose, offset: Array | None = None) -> Array:
        """Vertices in FLAME's world, [V, 3], as Li et al. 2017 define them."""
        betas = np.zeros(SHAPES + EXPRESSIONS)
        betas[: len(shape)] = shape
        betas[SHAPES : SHAPES + len(pose.expression)] = pose.expression
        shaped = self.v_template + self.shapedirs @ betas
        if offset is not None:
            shaped = shaped + offset
        joints = self.J_regressor @ shaped
        turns = Rotation.from_rotvec(
            np.stack([pose.rotation, pose.neck, pose.jaw, *pose.eyes])
        ).as_matrix()
        shaped = shaped + self.posedirs @ (turns[1:] - np.eye(3)).ravel()
        chain: list[Array] = []
        for k, parent in enumerate(self.parents):
            local = np.eye(4)
            local[:3, :3] = turns[k]
            local[:3, 3] = joints[k] - turns[k] @ joints[k]
            chain.append(local if parent < 0 else chain[parent] @ local)
        each = np.einsum("vj,jab->vab", self.weights, np.stack(chain))
        posed = np.einsum("vab,vb->va", each[:, :3, :3], shaped) + each[:, :3, 3]
        return np.asarray(posed + pose.translation)


@dataclass(frozen=True)
class FlamePose:
    """One frame's parameters: rotation vectors, metres."""

    expression: Array
    rotation: Array
    neck: Array
    jaw: Array
    eyes: Array  # [2, 3]
    translation: Array


def make_twin(seed: int = 0) -> FlameTwin:
    """A head with nose, a left ear and a neck; its eyes are spheres of their own."""
    random = np.random.default_rng(seed)
    rows, columns = 24, 28
    along = np.linspace(0.02, 1.0, rows)
    around = np.linspace(0, 2 * np.pi, columns, endpoint=False)
    angle = np.minimum(along / 0.72, 1.0) * np.deg2rad(142)
    radius = np.sin(angle)
    height = 0.125 * np.cos(angle)
    neck = np.clip((along - 0.72) / 0.28, 0, 1)
    height = height - 0.09 * neck
    x = 0.08 * radius[:, None] * np.sin(around)
    z = 0.1 * radius[:, None] * np.cos(around)
    y = np.repeat(height[:, None], columns, 1)
    bump = np.exp(-((y + 0.01) ** 2 / 0.02**2) - x**2 / 0.02**2) * (z > 0)
    z = z + 0.012 * bump
    ear = np.exp(-((y - 0.0) ** 2 / 0.025**2) - (z + 0.01) ** 2 / 0.02**2) * (x > 0)
    x = x + 0.022 * ear
    skin = np.stack([x, y, z], -1).reshape(-1, 3)
    grid = np.arange(rows * columns).reshape(rows, columns)
    a, b = grid[:-1], np.roll(grid[:-1], -1, 1)
    c, d = grid[1:], np.roll(grid[1:], -1, 1)
    faces = np.concatenate([np.stack([a, c, d], -1), np.stack([a, d, b], -1)]).reshape(-1, 3)
    # Close the crown and the neck.
    top, bottom = len(skin), len(skin) + 1
    skin = np.concatenate([skin, [[0, 0.126, 0]], [[0, y[-1, 0], 0]]])
    ring, last = grid[0], grid[-1]
    faces = np.concatenate(
        [
            faces,
            np.stack([np.full(columns, top), ring, np.roll(ring, -1)], -1),
            np.stack([np.full(columns, bottom), np.roll(last, -1), last], -1),
        ]
    )
    parts, triangles, eyes = [skin], [faces], []
    for side in (1, -1):
        ball, ball_faces = _ball(0.012)
        start = sum(map(len, parts))
        parts.append(ball + np.array([0.031 * side, 0.02, 0.082]))
        triangles.append(ball_faces + start)
        eyes.append(np.arange(start, start + len(ball)))
    # The file's origin is not between the eyes.
    points = np.concatenate(parts) + np.array([0.002, -0.015, -0.03])
    count = len(points)

    low = points[:, 1].min()
    share = np.clip((points[:, 1] - low - 0.02) / 0.06, 0, 1)
    chin = np.clip((-points[:, 1] - 0.05) / 0.03, 0, 1) * (points[:, 2] > -0.01) * share
    weights = np.zeros((count, 5))
    weights[:, 0] = 1 - share
    weights[:, 2] = 0.9 * chin * (points[:, 1] > low + 0.06)
    weights[:, 1] = share - weights[:, 2]
    for joint, eye in zip((3, 4), eyes, strict=True):
        weights[eye] = np.eye(5)[joint]

    regressor = np.zeros((5, count))
    regressor[0, last] = 1 / columns
    regressor[1, grid[-5]] = 1 / columns
    regressor[2, grid[12, [6, 7, 8, 20, 21, 22]]] = 1 / 6
    for joint, eye in zip((3, 4), eyes, strict=True):
        regressor[joint, eye] = 1 / len(eye)

    def waves(number: int, size: float) -> Array:
        """Smooth fields [V, 3, number] of about ``size`` metres."""
        pitch = random.normal(size=(number, 3, 3)) * 14
        phase = random.uniform(0, 2 * np.pi, (number, 3))
        field = np.sin(np.einsum("nab,vb->van", pitch, points) + phase.T)
        return np.asarray(field * size)

    shapedirs = np.concatenate([waves(SHAPES, 0.0006), waves(EXPRESSIONS, 0.0006)], -1)
    return FlameTwin(
        v_template=points,
        f=np.concatenate(triangles).astype(np.int64),
        shapedirs=shapedirs,
        posedirs=waves(36, 0.004),
        J_regressor=regressor,
        weights=weights,
        left_eye=eyes[0],
        right_eye=eyes[1],
    )


def _ball(radius: float) -> tuple[Array, NDArray[np.int64]]:
    rows, columns = 6, 8
    polar = np.linspace(0.2, np.pi - 0.2, rows)[:, None]
    around = np.linspace(0, 2 * np.pi, columns, endpoint=False)
    points = radius * np.stack(
        [
            np.sin(polar) * np.sin(around),
            np.cos(polar) + 0 * around,
            np.sin(polar) * np.cos(around),
        ],
        -1,
    )
    grid = np.arange(rows * columns).reshape(rows, columns)
    a, b = grid[:-1], np.roll(grid[:-1], -1, 1)
    c, d = grid[1:], np.roll(grid[1:], -1, 1)
    faces = np.concatenate([np.stack([a, c, d], -1), np.stack([a, d, b], -1)])
    return points.reshape(-1, 3), faces.reshape(-1, 3)


def silhouette(pixels: Array, faces: NDArray[np.int64], width: int, height: int) -> Array:
    """Coverage of each pixel by projected triangles, [H, W] in [0, 1].

    ``pixels`` [V, 2]: columns and rows, pixel centres at whole numbers + 0.5.
    """
    shift = 6
    corners = np.rint((pixels * FINE - 0.5) * 2**shift).astype(np.int32)[faces]
    canvas = np.zeros((height * FINE, width * FINE), np.uint8)
    for triangle in corners:
        cv2.fillConvexPoly(canvas, triangle, 1, cv2.LINE_8, shift)
    return np.asarray(canvas.reshape(height, FINE, width, FINE).mean((1, 3)))
