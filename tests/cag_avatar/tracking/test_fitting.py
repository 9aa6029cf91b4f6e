"""The equations of the fit; what it recovers is in test_clip_fit."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch

from cag_avatar.errors import InputError
from cag_avatar.geometry import rotation_vector_to_matrix
from cag_avatar.head_models import ARKIT_INDEX
from cag_avatar.tracking import fitting
from cag_avatar.tracking.clip_prior import clip_prior
from cag_avatar.tracking.code_prior import code_prior
from cag_avatar.tracking.fit_config import FitConfig
from cag_avatar.tracking.fit_state import FitState, Silhouette
from cag_avatar.tracking.landmark_embedding import LandmarkEmbedding
from cag_avatar.tracking.normal_equations import (
    Rows,
    apply_step,
    landmark_rows,
    silhouette_rows,
    solve_bounded,
)
from cag_avatar.tracking.surface_basis import ShapeSpace, SurfacePoints

CONFIG = FitConfig()
#: Their bounds alone matter here.
PRIOR = clip_prior(code_prior(np.zeros((2, 52)), CONFIG))


@pytest.fixture(scope="module")
def points(embedding: LandmarkEmbedding, shape_space: ShapeSpace) -> SurfacePoints:
    p = shape_space.points(embedding.faces, embedding.barycentric)
    return SurfacePoints(
        p.mean.double(), p.shape.double(), p.expression.double(), p.eye, p.eye_arm.double()
    )


@pytest.fixture(scope="module")
def state(points: SurfacePoints) -> FitState:
    g = torch.Generator().manual_seed(0)
    turn = 0.3 * torch.randn(2, 3, generator=g, dtype=torch.float64)
    facing = torch.diag(torch.tensor([1.0, -1.0, -1.0], dtype=torch.float64))
    return FitState(
        shape=0.5 * torch.randn(len(points.shape), generator=g, dtype=torch.float64),
        focal=900.0,
        centre=(250.0, 260.0),
        rotation=rotation_vector_to_matrix(turn) @ facing,
        translation=torch.tensor([[0.02, 0.01, 0.7], [-0.03, 0.02, 0.6]], dtype=torch.float64),
        code=0.2 + 0.5 * torch.rand(2, 52, generator=g, dtype=torch.float64),
    )


@pytest.fixture(scope="module")
def landmarks(state: FitState, points: SurfacePoints) -> torch.Tensor:
    """Near the projections."""
    zero = torch.zeros(2, 478, 2, dtype=torch.float64)
    pixels = fitting.landmark_residuals(state, points, zero)  # in units of 1 pixel
    noise = torch.randn(pixels.shape, generator=torch.Generator().manual_seed(1)).double()
    return pixels + 2 * noise


@pytest.fixture(scope="module")
def rim(points: SurfacePoints, state: FitState, landmarks: torch.Tensor) -> Silhouette:
    chosen = [10, 109, 338, 234, 454]
    normal = torch.nn.functional.normalize(landmarks[:, chosen] - landmarks[:, [1]], dim=-1)
    return Silhouette(
        points.mean[chosen].expand(2, -1, -1),
        points.shape[:, chosen].expand(2, -1, -1, -1),
        normal,
        landmarks[:, chosen] + 3 * normal,
        torch.ones(2, len(chosen), dtype=torch.float64),
    )


def derivative(residual: Callable[[float], torch.Tensor], step: float = 1e-5) -> torch.Tensor:
    return (residual(step) - residual(-step)) / (2 * step)


def moved(state: FitState, variable: int, by: float) -> FitState:
    """One of the 6 + E variables of every frame moved."""
    step = torch.zeros(2, 58, dtype=torch.float64)
    step[:, variable] = by
    return apply_step(state, step, PRIOR)


def test_landmark_equations_have_the_derivatives_of_their_residuals(
    points: SurfacePoints, state: FitState, landmarks: torch.Tensor
) -> None:
    weights = torch.ones(478, dtype=torch.float64)

    def rows(s: FitState) -> Rows:
        return landmark_rows(s, points, points.rest(s.shape), landmarks, weights, CONFIG)

    at = rows(state)
    torch.testing.assert_close(
        at.residual, fitting.landmark_residuals(state, points, landmarks).flatten(1)
    )
    looks = {6 + i for name, i in ARKIT_INDEX.items() if name.startswith("eyeLook")}
    for variable in range(58):
        expected = derivative(lambda h, v=variable: rows(moved(state, v, h)).residual)  # type: ignore[misc]
        found = at.by_frame[..., variable]
        if variable in looks:  # yaw and pitch do not commute: first order in the angles
            assert (found - expected).norm() < 0.1 * expected.norm()
        else:
            torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-5)
    direction = torch.randn(len(state.shape), generator=torch.Generator().manual_seed(2)).double()
    by_shape = derivative(
        lambda h: rows(replace(state, shape=state.shape + h * direction)).residual
    )
    basis = torch.einsum("tnij,snj->tnis", at.project, points.shape) @ direction
    skin = points.eye == -1  # an iris also turns about a centre that the shape moves: left out
    torch.testing.assert_close(
        basis[:, skin], by_shape.reshape(2, 478, 2)[:, skin], atol=1e-6, rtol=1e-5
    )


def test_silhouette_equations_have_the_derivatives_of_their_residuals(
    rim: Silhouette, state: FitState
) -> None:
    unit = torch.tensor([60.0, 70.0], dtype=torch.float64)

    def rows(s: FitState) -> Rows:
        return silhouette_rows(s, rim, unit, CONFIG)

    at = rows(state)
    for variable in range(6):
        expected = derivative(lambda h, v=variable: rows(moved(state, v, h)).residual)  # type: ignore[misc]
        torch.testing.assert_close(at.by_frame[..., variable], expected, atol=1e-6, rtol=1e-5)
    assert (at.by_frame[..., 6:] == 0).all()
    direction = torch.randn(len(state.shape), generator=torch.Generator().manual_seed(2)).double()
    by_shape = derivative(
        lambda h: rows(replace(state, shape=state.shape + h * direction)).residual
    )
    basis = torch.einsum("tkij,tskj,s->tk", at.project, rim.shape, direction)
    torch.testing.assert_close(basis, by_shape, atol=1e-6, rtol=1e-5)


def test_outliers_lose_their_weight(
    points: SurfacePoints, state: FitState, landmarks: torch.Tensor
) -> None:
    far = landmarks.clone()
    far[:, 4] += 60.0
    weights = torch.ones(478, dtype=torch.float64)
    rest = points.rest(state.shape)
    near, off = (
        landmark_rows(state, points, rest, x, weights, CONFIG).weight.reshape(2, 478, 2)
        for x in (landmarks, far)
    )
    assert (off[:, 4] < 0.05 * near[:, 4]).all()
    torch.testing.assert_close(off[:, 5], near[:, 5])


def test_bounded_solution_minimises_over_the_box() -> None:
    """Against a projected gradient descent: codes in [0, 1], pose free."""
    g = torch.Generator().manual_seed(0)
    root = torch.randn(3, 58, 58, generator=g)
    matrix = root.transpose(1, 2) @ root / 58 + 0.5 * torch.eye(58)
    right = 2 * torch.randn(3, 58, generator=g)
    code = torch.rand(3, 52, generator=g)
    step = solve_bounded(matrix, right, code, PRIOR)
    end = code + step[:, 6:]
    assert end.min() >= -1e-5
    assert end.max() <= 1 + 1e-5
    assert ((end < 1e-6) | (end > 1 - 1e-6)).any()

    def cost(x: torch.Tensor) -> torch.Tensor:
        return 0.5 * torch.einsum("ti,tij,tj->t", x, matrix, x) - (x * right).sum(1)

    best = torch.zeros_like(step)
    for _ in range(300):
        best -= 0.15 * ((matrix @ best[..., None])[..., 0] - right)
        best[:, 6:] = best[:, 6:].clamp(min=-code, max=1 - code)
    gain = (cost(torch.zeros_like(step)) - cost(step)) / (cost(torch.zeros_like(step)) - cost(best))
    assert (gain > 0.93).all()


def test_initial_pose_is_near(points: SurfacePoints, state: FitState) -> None:
    neutral = replace(state, code=torch.zeros_like(state.code), shape=torch.zeros_like(state.shape))
    pixels = fitting.landmark_residuals(neutral, points, torch.zeros(2, 478, 2).double())
    single = SurfacePoints(
        points.mean.float(),
        points.shape.float(),
        points.expression.float(),
        points.eye,
        points.eye_arm.float(),
    )
    config = FitConfig(focal_length=900)
    start = fitting.initial_state(single, pixels.float(), state.centre, config)
    assert start.focal == pytest.approx(900)
    relative = start.rotation.double() @ state.rotation.transpose(1, 2)
    torch.testing.assert_close(relative, torch.eye(3).double().expand(2, 3, 3), atol=0.12, rtol=0)
    torch.testing.assert_close(start.translation.double(), state.translation, atol=0.03, rtol=0)


def test_distance_gives_the_focal_length_unless_that_is_known(
    points: SurfacePoints, state: FitState
) -> None:
    config = FitConfig(distance=0.9)
    moved = fitting.at_distance(state, config)
    assert float(moved.translation[:, 2].median()) == pytest.approx(0.9)
    # Sizes and places in the picture stay.
    ratio = moved.translation[:, 2] / state.translation[:, 2]
    torch.testing.assert_close(ratio * state.focal, torch.full_like(ratio, moved.focal))
    known = FitConfig(distance=0.9, focal_length=900)
    assert fitting.at_distance(state, known) is state


@pytest.mark.parametrize("name", ["robust_scale", "focal_length", "distance", "shared_frames"])
@pytest.mark.parametrize("value", [0, -1, float("nan")])
def test_weights_must_be_positive(name: str, value: float) -> None:
    with pytest.raises(InputError, match=rf"fit: {name} = .* must be positive"):
        FitConfig(**{name: value})
