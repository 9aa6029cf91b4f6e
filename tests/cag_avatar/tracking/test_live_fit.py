"""The fit of one live frame, compiled and in numpy, against the torch one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from cag_avatar.geometry import rotation_vector_to_matrix
from cag_avatar.head_models import ARKIT_INDEX
from cag_avatar.tracking import compiled_fit, fitting
from cag_avatar.tracking.clip_prior import clip_prior
from cag_avatar.tracking.code_prior import ArrayPrior, code_prior
from cag_avatar.tracking.fit_config import FitConfig
from cag_avatar.tracking.fit_state import FitState
from cag_avatar.tracking.landmark_embedding import LandmarkEmbedding
from cag_avatar.tracking.landmark_weights import landmark_weights
from cag_avatar.tracking.live_fit import LiveFit, LiveState
from cag_avatar.tracking.live_points import load_live_points
from cag_avatar.tracking.surface_basis import ShapeSpace, SurfacePoints
from tests.cag_avatar.native.processors import PROCESSORS, code_of

CONFIG = FitConfig(smooth_code=0.1)
CENTRE = (250.0, 260.0)


@pytest.fixture(scope="module")
def points(embedding: LandmarkEmbedding, shape_space: ShapeSpace) -> SurfacePoints:
    return shape_space.points(embedding.faces, embedding.barycentric)


@pytest.fixture(scope="module")
def weights(embedding: LandmarkEmbedding) -> torch.Tensor:
    return torch.from_numpy(landmark_weights(embedding.spread.numpy(), CONFIG))


@pytest.fixture(params=["numpy", *PROCESSORS])
def kind(request, native_builds: Path):  # type: ignore[no-untyped-def]
    """Which code runs."""
    clear = compiled_fit._library.cache_clear
    with code_of(request.param, native_builds / request.param, clear):
        yield request.param


def live_fit(kind: str, state: FitState, points: SurfacePoints, irises: bool = False) -> LiveFit:
    live = LiveFit(load_live_points("anny"), CONFIG, points.rest(state.shape).numpy(), irises)
    assert (live._compiled is None) == (kind == "numpy")
    return live


def state_of(points: SurfacePoints, code: torch.Tensor, turn: list[float]) -> FitState:
    facing = torch.diag(torch.tensor([1.0, -1.0, -1.0]))
    g = torch.Generator().manual_seed(4)
    return FitState(
        shape=0.5 * torch.randn(len(points.shape), generator=g),
        focal=900.0,
        centre=CENTRE,
        rotation=(rotation_vector_to_matrix(torch.tensor(turn)) @ facing)[None],
        translation=torch.tensor([[0.02, 0.01, 0.7]]),
        code=code[None],
    )


def live_state(state: FitState) -> LiveState:
    pose = state.rotation[0], state.translation[0], state.code[0]
    return LiveState(state.focal, state.centre, *(value.double().numpy() for value in pose))


def landmarks_of(state: FitState, points: SurfacePoints, noise: float, seed: int) -> torch.Tensor:
    zero = torch.zeros(1, 478, 2)
    pixels = fitting.landmark_residuals(state, points, zero)  # in units of 1 pixel
    g = torch.Generator().manual_seed(seed)
    return pixels + noise * torch.randn(pixels.shape, generator=g)


def a_prior(seed: int) -> ArrayPrior:
    return code_prior(0.3 * np.random.default_rng(seed).uniform(size=(1, 52)), CONFIG)


def assert_same(live: LiveState, plain: FitState) -> None:
    expected = live_state(plain)
    np.testing.assert_allclose(live.rotation, expected.rotation, atol=3e-4)
    np.testing.assert_allclose(live.translation, expected.translation, atol=3e-4)
    np.testing.assert_allclose(live.code, expected.code, atol=3e-3)
    assert live.focal == pytest.approx(plain.focal, rel=1e-5)


@pytest.mark.parametrize("irises", [False, True])
def test_follows_the_torch_fit_over_a_stream(kind, points, embedding, irises):
    """Turning head, opening mouth, a glance and codes at their bounds."""
    weights = torch.from_numpy(landmark_weights(embedding.spread.numpy(), CONFIG, irises))
    plain = state_of(points, torch.full((52,), 0.1), [0.0, 0.0, 0.0])
    live, quick = live_fit(kind, plain, points, irises), live_state(plain)
    for frame in range(6):
        code = torch.zeros(52)
        code[ARKIT_INDEX["jawOpen"]] = 0.15 * frame
        code[ARKIT_INDEX["eyeLookOutLeft"]] = code[ARKIT_INDEX["eyeLookInRight"]] = 0.1 * frame
        code[ARKIT_INDEX["eyeLookDownLeft"]] = code[ARKIT_INDEX["eyeLookDownRight"]] = 0.4
        true = state_of(points, code, [0.02 * frame, 0.1 * frame, -0.03 * frame])
        landmarks = landmarks_of(true, points, 1.5, frame)
        prior = a_prior(frame)
        before = plain
        for _ in range(2):
            plain = fitting._frame_step(
                plain, points, landmarks, weights, clip_prior(prior), CONFIG, None, before
            )
        quick, error = live.track(quick, landmarks[0].numpy(), prior, 2)
        assert_same(quick, plain)
        expected = fitting.landmark_residuals(plain, points, landmarks).square().mean().sqrt()
        assert error == pytest.approx(float(expected), rel=1e-2)
        assert quick.code.min() >= 0
    assert (quick.code == 0).any()
    assert quick.code[ARKIT_INDEX["jawOpen"]] == pytest.approx(0.75, abs=0.1)
    np.testing.assert_allclose(quick.rotation @ quick.rotation.T, np.eye(3), atol=1e-12)
    assert np.linalg.det(quick.rotation) == pytest.approx(1.0)


@pytest.mark.parametrize("focal", [None, 800.0])
def test_starts_as_the_torch_fit(kind, points, weights, focal):
    """Also codes at both bounds."""
    code = torch.zeros(52)
    for name, value in (("jawOpen", 0.9), ("mouthSmileLeft", 1.3), ("eyeLookUpRight", 0.5)):
        code[ARKIT_INDEX[name]] = value
    true = state_of(points, code, [0.1, -0.3, 0.05])
    landmarks = landmarks_of(true, points, 1.0, 9)
    prior = a_prior(1)
    config = FitConfig(smooth_code=0.1, focal_length=focal)
    plain = fitting.initial_state(points, landmarks, CENTRE, config)
    plain = FitState(true.shape, plain.focal, CENTRE, plain.rotation, plain.translation, plain.code)
    plain = fitting.fit_frames(
        plain, points, landmarks, weights, clip_prior(prior), config, iterations=6
    )
    live = live_fit(kind, true, points)
    found, error = live.start(landmarks[0].numpy(), prior, CENTRE, focal)
    assert_same(found, plain)
    expected = fitting.landmark_residuals(plain, points, landmarks).square().mean().sqrt()
    assert error == pytest.approx(float(expected), rel=1e-2)
    assert found.code.max() == 1.0
    pose = found.head_pose()
    np.testing.assert_array_equal(pose[:3], np.column_stack([found.rotation, found.translation]))
    np.testing.assert_array_equal(pose[3], [0, 0, 0, 1])


def test_a_wild_face_stays_finite(kind, points):
    live = live_fit(kind, state_of(points, torch.zeros(52), [0.0, 0.0, 0.0]), points)
    wild = np.random.default_rng(0).uniform(0, 500, (478, 2))
    state, _ = live.start(wild, a_prior(0), CENTRE)
    for seed in range(5):
        wild = np.random.default_rng(seed).uniform(0, 500, (478, 2))
        state, error = live.track(state, wild, a_prior(seed), 2)
    assert np.isfinite(state.head_pose()).all()
    assert np.isfinite(error)
    assert state.code.min() >= 0
    assert state.code.max() <= 1


def test_derivative_equals_that_of_the_points(points):
    state = state_of(points, 0.2 + 0.6 * torch.rand(52), [0.0, 0.0, 0.0])
    live = LiveFit(load_live_points("anny"), CONFIG, points.rest(state.shape).numpy())
    expected, by_code = points.local(points.rest(state.shape), state.code)
    found, derivative = live._local(state.code[0].double().numpy())
    np.testing.assert_allclose(found, expected[0].numpy(), atol=1e-6)
    np.testing.assert_allclose(
        derivative.transpose(2, 0, 1), by_code.dense(1)[0].numpy(), atol=1e-6
    )
