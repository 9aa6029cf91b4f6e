"""The fit of one live frame in numpy against the torch one."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from cag_avatar.geometry import rotation_vector_to_matrix
from cag_avatar.head_models import ARKIT_INDEX
from cag_avatar.tracking import fitting
from cag_avatar.tracking.code_prior import code_prior
from cag_avatar.tracking.fit_config import FitConfig
from cag_avatar.tracking.fit_state import FitState
from cag_avatar.tracking.landmark_embedding import LandmarkEmbedding
from cag_avatar.tracking.live_fit import LiveFit
from cag_avatar.tracking.surface_basis import ShapeSpace, SurfacePoints

CONFIG = FitConfig(smooth_code=0.1)


@pytest.fixture(scope="module")
def points(embedding: LandmarkEmbedding, shape_space: ShapeSpace) -> SurfacePoints:
    return shape_space.points(embedding.faces, embedding.barycentric)


@pytest.fixture(scope="module")
def weights(embedding: LandmarkEmbedding) -> torch.Tensor:
    return fitting.landmark_weights(embedding.spread, CONFIG)


def state_of(points: SurfacePoints, code: torch.Tensor, turn: list[float]) -> FitState:
    facing = torch.diag(torch.tensor([1.0, -1.0, -1.0]))
    g = torch.Generator().manual_seed(4)
    return FitState(
        shape=0.5 * torch.randn(len(points.shape), generator=g),
        focal=900.0,
        centre=(250.0, 260.0),
        rotation=(rotation_vector_to_matrix(torch.tensor(turn)) @ facing)[None],
        translation=torch.tensor([[0.02, 0.01, 0.7]]),
        code=code[None],
    )


def landmarks_of(state: FitState, points: SurfacePoints, noise: float, seed: int) -> torch.Tensor:
    zero = torch.zeros(1, 478, 2)
    pixels = fitting.landmark_residuals(state, points, zero)  # in units of 1 pixel
    g = torch.Generator().manual_seed(seed)
    return pixels + noise * torch.randn(pixels.shape, generator=g)


def test_follows_the_torch_fit_over_a_stream(points, weights):
    """Turning head, opening mouth, a glance and codes at their bounds."""
    torch.manual_seed(0)
    plain = quick = state_of(points, torch.full((52,), 0.1), [0.0, 0.0, 0.0])
    live = LiveFit(points, plain.shape, weights, CONFIG)
    for frame in range(6):
        code = torch.zeros(52)
        code[ARKIT_INDEX["jawOpen"]] = 0.15 * frame
        code[ARKIT_INDEX["eyeLookOutLeft"]] = code[ARKIT_INDEX["eyeLookInRight"]] = 0.1 * frame
        code[ARKIT_INDEX["eyeLookDownLeft"]] = code[ARKIT_INDEX["eyeLookDownRight"]] = 0.4
        true = state_of(points, code, [0.02 * frame, 0.1 * frame, -0.03 * frame])
        landmarks = landmarks_of(true, points, 1.5, frame)
        prior = code_prior(torch.rand(1, 52) * 0.3, CONFIG)
        plain = fitting.track_frame(plain, points, landmarks, weights, prior, CONFIG, iterations=2)
        quick, error = live.track(quick, landmarks[0].numpy(), prior, 2)
        torch.testing.assert_close(quick.rotation, plain.rotation, atol=3e-4, rtol=0)
        torch.testing.assert_close(quick.translation, plain.translation, atol=3e-4, rtol=0)
        torch.testing.assert_close(quick.code, plain.code, atol=3e-3, rtol=0)
        expected = fitting.landmark_residuals(plain, points, landmarks).square().mean().sqrt()
        assert error == pytest.approx(float(expected), rel=1e-2)
        assert quick.code.min() >= 0
    assert (quick.code == 0).any()
    assert quick.code[0, ARKIT_INDEX["jawOpen"]] == pytest.approx(0.75, abs=0.1)
    assert np.linalg.det(quick.rotation[0].numpy()) == pytest.approx(1.0, abs=1e-5)


def test_derivative_equals_that_of_the_points(points, weights):
    state = state_of(points, 0.2 + 0.6 * torch.rand(52), [0.0, 0.0, 0.0])
    live = LiveFit(points, state.shape, weights, CONFIG)
    expected, by_code = points.local(points.rest(state.shape), state.code)
    found, derivative = live._local(state.code[0].double().numpy())
    np.testing.assert_allclose(found, expected[0].numpy(), atol=1e-6)
    np.testing.assert_allclose(
        derivative.transpose(2, 0, 1), by_code.dense(1)[0].numpy(), atol=1e-6
    )
