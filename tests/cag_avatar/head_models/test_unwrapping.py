from __future__ import annotations

import numpy as np
import pytest

from cag_avatar.head_models.unwrapping import overlapping_pairs, unwrap
from tests.cag_avatar.head_models.flame_files import ball


def area(triangles: np.ndarray) -> np.ndarray:
    a, b = triangles[:, 1] - triangles[:, 0], triangles[:, 2] - triangles[:, 0]
    if triangles.shape[2] == 3:
        return np.linalg.norm(np.cross(a, b), axis=1) / 2
    return (a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0]) / 2


def folded() -> tuple[np.ndarray, np.ndarray]:
    """A ball with a mushroom: a knob whose hat hangs over its stem, as an ear does."""
    points, faces = ball(18, 24, (0.08, 0.12, 0.1))
    knob, knob_faces = ball(12, 16, (0.03, 0.03, 0.03))
    y = knob[:, 1] / 0.03
    knob[:, [0, 2]] *= (0.35 + np.exp(-(((y - 0.5) / 0.3) ** 2)))[:, None]
    knob = knob[:, [1, 2, 0]] + [0.09, 0.0, 0.0]
    return np.concatenate([points, knob]), np.concatenate([faces, knob_faces + len(points)])


def shared_area(first: np.ndarray, second: np.ndarray) -> float:
    """Area that two triangles share, by clipping one with the other's sides."""
    if area(second[None])[0] < 0:
        second = second[::-1]
    polygon = list(first)
    for k in range(3):
        start, edge = second[k], second[(k + 1) % 3] - second[k]
        inside = [edge[0] * (p - start)[1] - edge[1] * (p - start)[0] for p in polygon]
        clipped = []
        for p, q, a, b in zip(
            polygon, polygon[1:] + polygon[:1], inside, inside[1:] + inside[:1], strict=True
        ):
            if a >= 0:
                clipped.append(p)
            if (a < 0) != (b < 0):
                clipped.append(p + (q - p) * a / (a - b))
        polygon = clipped
    x, y = np.array(polygon).T if polygon else np.zeros((2, 0))
    return abs(float(np.sum(x * np.roll(y, -1) - y * np.roll(x, -1)))) / 2


def test_overlaps_are_found_exactly() -> None:
    rng = np.random.default_rng(0)
    triangles = rng.uniform(0, 1, (40, 1, 2)) + rng.uniform(-0.12, 0.12, (40, 3, 2))
    triangles[0] *= 3  # one large among small ones
    found = set(map(tuple, overlapping_pairs(triangles).tolist()))
    expected = {
        (i, j) for i in range(40) for j in range(i + 1, 40)
        if shared_area(triangles[i], triangles[j]) > 1e-12
    }  # fmt: skip
    assert found == expected
    assert len(expected) > 20


def test_neighbours_do_not_overlap() -> None:
    square = np.array([[0, 0], [1, 0], [1, 1], [0, 1]], float)
    pair = square[[[0, 1, 2], [0, 2, 3]]]
    assert len(overlapping_pairs(pair)) == 0
    assert len(overlapping_pairs(pair[:1].repeat(2, 0))) == 1
    low = 0.2 * pair[:1] + [0.6, 0.1]  # inside the first
    assert overlapping_pairs(np.concatenate([pair, low])).tolist() == [[0, 2]]


@pytest.mark.parametrize("shape", ["ball", "folded"])
def test_no_overlap_and_one_scale(shape: str) -> None:
    points, faces = ball(18, 24, (0.08, 0.12, 0.1)) if shape == "ball" else folded()
    uv, face_uv = unwrap(points, faces, np.zeros(len(faces), np.int64))
    assert 0 <= uv.min() <= uv.max() <= 1
    flat = uv[face_uv]
    assert len(overlapping_pairs(flat)) == 0
    assert (area(flat) > 0).all()  # nothing is seen from behind
    share = area(flat) / area(points[faces])
    assert share.min() > 0.3 * np.median(share) * 0.9
    assert share.max() / np.median(share) < 2
    assert area(flat).sum() > 0.3
    # Corners of a chart are shared, so that the atlas is charts and not loose triangles.
    assert len(uv) < 0.75 * 3 * len(faces)


def test_a_ramp_over_itself_is_cut() -> None:
    """Two turns of a spiral stair: all faces look up, hang together, and cover one another."""
    angle, radius = np.meshgrid(np.linspace(0, 4 * np.pi, 41), [0.5, 0.75, 1.0], indexing="ij")
    points = np.stack([radius * np.sin(angle), 0.1 * angle, radius * np.cos(angle)], -1)
    a = (np.arange(40)[:, None] * 3 + np.arange(2)).flatten()
    faces = np.concatenate([np.stack([a, a + 1, a + 4], 1), np.stack([a, a + 4, a + 3], 1)])
    uv, face_uv = unwrap(points.reshape(-1, 3), faces, np.zeros(len(faces), np.int64))
    assert len(overlapping_pairs(uv[face_uv])) == 0
    assert (area(uv[face_uv]) > 0).all()


def test_parts_have_charts_of_their_own() -> None:
    points, faces = ball(8, 10, (1, 1, 1))
    part = (np.arange(len(faces)) % 2).astype(np.int64)
    uv, face_uv = unwrap(points, faces, part)
    assert not set(face_uv[part == 0].flatten()) & set(face_uv[part == 1].flatten())
    assert len(overlapping_pairs(uv[face_uv])) == 0
