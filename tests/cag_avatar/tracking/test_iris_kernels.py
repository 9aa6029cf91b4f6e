"""The compiled loops and those in numpy against plain ones, pixel by pixel."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from cag_avatar.tracking import iris_kernels
from cag_avatar.tracking.iris_kernels import gather_rings, template_costs
from tests.cag_avatar.native.processors import PROCESSORS, code_of

DENSITY, MOST, HALF = 4.0, 0.8, 0.5


@pytest.fixture(params=["numpy", *PROCESSORS])
def kind(request, native_builds: Path):  # type: ignore[no-untyped-def]
    """Which code runs."""
    clear = iris_kernels._library.cache_clear
    with code_of(request.param, native_builds / request.param, clear):
        assert (iris_kernels._library() is None) == (request.param == "numpy")
        yield


@pytest.fixture(scope="module")
def eye() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Colours and places of pixels, some beyond the last ring, and rings."""
    rng = np.random.default_rng(0)
    colors = rng.normal(size=(150, 3)).astype(np.float32)
    at = rng.uniform(-2.5, 2.5, (150, 2)).astype(np.float32)
    return colors, at, rng.normal(size=(9, 3)).astype(np.float32)


def plain(colors, at, rings, centre) -> list[tuple[float, int, float]]:
    """Difference, ring and the next one's share of each pixel."""
    found = []
    for color, place in zip(colors.tolist(), at.tolist(), strict=True):
        ring = min(math.dist(place, centre) * DENSITY, len(rings) - 2)
        share = ring - int(ring)
        inner, outer = rings[int(ring)], rings[int(ring) + 1]
        off = sum(
            abs(c - (1 - share) * a - share * b)
            for c, a, b in zip(color, inner, outer, strict=True)
        )
        found.append((float(off), int(ring), share))
    return found


def test_costs_are_mean_differences(kind, eye) -> None:
    colors, at, rings = eye
    x, y = np.array([-0.4, 0.0, 0.3]), np.array([-0.2, 0.7])
    expected = [
        [np.mean([min(off, MOST) for off, _, _ in plain(*eye, (i, j))]) for j in y] for i in x
    ]
    found = template_costs(colors, at, rings, DENSITY, x, y, MOST)
    np.testing.assert_allclose(found, expected, rtol=1e-5)


@pytest.mark.parametrize("half", [0.0, HALF])
def test_rings_gather_what_is_like_them(kind, eye, half: float) -> None:
    colors, at, rings = eye
    centre = np.array([0.2, -0.1])
    sums, weights = np.ones((9, 3)), np.zeros(9)
    expected_sums, expected_weights = np.ones((9, 3)), np.zeros(9)
    for (off, ring, share), color in zip(plain(*eye, centre), colors, strict=True):
        trust = 1 / (1 + (off / half) ** 2) if half else 1.0
        for k, part in ((0, trust * (1 - share)), (1, trust * share)):
            expected_weights[ring + k] += part
            expected_sums[ring + k] += part * color
    gather_rings(colors, at, rings, DENSITY, centre, half, sums, weights)
    np.testing.assert_allclose(weights, expected_weights, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(sums, expected_sums, rtol=1e-4, atol=1e-4)
    if not half:
        assert weights.sum() == pytest.approx(150)
