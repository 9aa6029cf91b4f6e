"""The margins of the eyelids, found by looking at the head from the front, and lashes on them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cag_avatar.camera import PinholeCamera
from cag_avatar.head_models import ARKIT_INDEX, REGIONS, HeadModel
from cag_avatar.rendering.mesh import rasterize

__all__ = ["Lashes", "SurfacePoints", "grow_lashes", "lid_margins"]

Array = NDArray[np.float32]
_EYES = ("eye_left", "eye_right")


@dataclass(frozen=True)
class SurfacePoints:
    """Points fixed to the mesh: three vertices and their weights, [N, 3] each."""

    corners: NDArray[np.int64]
    weights: Array

    def at(self, vertices: Array) -> Array:
        """Positions [N, 3] for vertices [V, 3]."""
        return np.asarray((vertices[self.corners] * self.weights[..., None]).sum(1), np.float32)


@dataclass(frozen=True)
class Lashes:
    """One thin triangle a lash, rooted on the upper lid margin."""

    left: SurfacePoints
    """Left corner of each root."""
    right: SurfacePoints
    open_tip: Array
    """Tip minus root, canonical space, with the eye open, metres, [N, 3]."""
    closed_tip: Array
    blink: NDArray[np.int64]
    """Position in the code of the blink that closes each lash's eye, [N]."""

    def vertices(self, canonical: Array, code: Array) -> Array:
        """Canonical vertices of an expressed head [V, 3] with code [52]: [3 N, 3]."""
        shut = code[self.blink][:, None]
        a, b = self.left.at(canonical), self.right.at(canonical)
        tip = 0.5 * (a + b) + (1 - shut) * self.open_tip + shut * self.closed_tip
        return np.stack([a, b, tip], 1).reshape(-1, 3)


def lid_margins(model: HeadModel, rest: Array) -> dict[str, tuple[SurfacePoints, SurfacePoints]]:
    """Upper and lower lid margins of both eyes, each ordered by x, in a rest head [V, 3].

    The head is drawn from the front; where a column of pixels enters and leaves the eyeball, the
    neighbouring skin is the margin.
    """
    faces = model.faces.numpy()
    region = model.face_region.numpy()
    size, distance = 1200, 10.0
    margins = {}
    for name in _EYES:
        centre = rest[model.region_vertices(name).numpy()].mean(0)
        # A camera so far away sees in parallel; 48 mm across.
        view = PinholeCamera(size, size, size * distance / 0.048, size * distance / 0.048,
                             size / 2, size / 2)  # fmt: skip
        shifted = (rest - centre) * np.array([1, -1, -1]) + np.array([0, 0, distance])
        buffers = rasterize(shifted, faces, view)
        face = buffers.face_index
        eye = (face >= 0) & (region[face] == REGIONS.index(name))
        columns = np.flatnonzero(eye.any(0))
        top = eye.argmax(0) - 1
        bottom = size - eye[::-1].argmax(0)
        picked = []
        for rows in (top, bottom):
            keep = columns[face[rows[columns], columns] >= 0][::12]
            hit = face[rows[keep], keep]
            picked.append(SurfacePoints(faces[hit], buffers.barycentric[rows[keep], keep]))
        margins[name] = (picked[0], picked[1])
    return margins


def grow_lashes(
    model: HeadModel,
    rest: Array,
    margins: dict[str, tuple[SurfacePoints, SurfacePoints]],
    rng: np.random.Generator,
) -> Lashes:
    """Lashes along both upper lids, longer and more swept towards the outer corner."""
    left: list[SurfacePoints] = []
    right: list[SurfacePoints] = []
    opened: list[Array] = []
    closed: list[Array] = []
    blink: list[NDArray[np.int64]] = []
    for name, code in zip(_EYES, ("eyeBlinkLeft", "eyeBlinkRight"), strict=True):
        margin = margins[name][0]
        count = len(margin.corners)
        if count < 4:
            continue
        outward = 1.0 if name == "eye_left" else -1.0
        along = np.linspace(0, 1, count)[:-2] if outward > 0 else np.linspace(1, 0, count)[2:]
        number = count - 2
        for picks, step in ((left, 0), (right, 2)):
            chosen = slice(step, step + number)
            picks.append(SurfacePoints(margin.corners[chosen], margin.weights[chosen]))
        length = (0.0042 + 0.0030 * along) * rng.uniform(0.75, 1.15, number)
        sweep = outward * (-0.25 + 1.0 * along) + rng.normal(0, 0.12, number)
        for tips, (up, out) in ((opened, (0.75, 0.9)), (closed, (-0.65, 0.8))):
            direction = np.stack([0.7 * sweep, np.full(number, up), np.full(number, out)], 1)
            direction /= np.linalg.norm(direction, axis=1, keepdims=True)
            tips.append((direction * length[:, None]).astype(np.float32))
        blink.append(np.full(number, ARKIT_INDEX[code]))

    def join(parts: list[SurfacePoints]) -> SurfacePoints:
        return SurfacePoints(
            np.concatenate([p.corners for p in parts]), np.concatenate([p.weights for p in parts])
        )

    return Lashes(
        join(left), join(right), np.concatenate(opened), np.concatenate(closed),
        np.concatenate(blink),
    )  # fmt: skip
