"""The One-Euro filter on codes and poses: lag, noise and blinks, in numbers."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from cag_avatar.errors import InputError
from cag_avatar.head_models.arkit import ARKIT_INDEX
from cag_avatar_node.expression_smoothing import ExpressionSmoother, SmoothingConfig

DT = 0.04
JAW, BLINK = ARKIT_INDEX["jawOpen"], ARKIT_INDEX["eyeBlinkLeft"]


def smoothed(
    codes: NDArray[np.floating],
    poses: NDArray[np.float64] | None = None,
    config: SmoothingConfig | None = None,
) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
    poses = np.tile(np.eye(4), (len(codes), 1, 1)) if poses is None else poses
    smoother = ExpressionSmoother()
    steady = [
        smoother.update(code, pose, 100 + DT * t, config or SmoothingConfig())
        for t, (code, pose) in enumerate(zip(codes, poses, strict=True))
    ]
    return np.stack([code for code, _ in steady]), np.stack([pose for _, pose in steady])


def test_the_first_face_is_taken_as_it_is() -> None:
    pose = np.eye(4)
    pose[:3, :3] = Rotation.from_rotvec([0.1, 2.0, -0.3]).as_matrix()
    pose[:3, 3] = 0.1, -0.2, 0.9
    code = np.linspace(0, 1, 52).astype(np.float32)
    steady, found = ExpressionSmoother().update(code, pose, 5.0, SmoothingConfig())
    np.testing.assert_array_equal(steady, code)
    assert steady.dtype == np.float32
    np.testing.assert_allclose(found, pose, atol=1e-12)


def test_noise_at_rest_is_reduced() -> None:
    rng = np.random.default_rng(0)
    codes = 0.4 + rng.normal(0, 0.02, (500, 52))
    poses = np.tile(np.eye(4), (500, 1, 1))
    poses[:, :3, 3] = np.array([0, 0, 0.8]) + rng.normal(0, 0.001, (500, 3))
    turns = Rotation.from_rotvec([0.0, 3.0, 0.0]) * Rotation.from_rotvec(
        rng.normal(0, 0.004, (500, 3))
    )
    poses[:, :3, :3] = turns.as_matrix()
    steady, found = smoothed(codes, poses)
    assert steady[50:].std(0).max() < 0.6 * 0.02
    assert np.diff(steady[50:], axis=0).std() < 0.35 * np.diff(codes, axis=0).std()
    assert found[50:, :3, 3].std(0).max() < 0.6 * 0.001
    tremble = (turns[0].inv() * Rotation.from_matrix(found[50:, :3, :3])).as_rotvec()
    assert tremble.std(0).max() < 0.6 * 0.004
    np.testing.assert_allclose(steady[50:].mean(0), 0.4, atol=0.005)


def test_a_step_arrives_within_two_frames() -> None:
    codes = np.zeros((60, 52))
    codes[30:, JAW] = 0.8
    steady = smoothed(codes)[0][:, JAW]
    assert (steady[:30] == 0).all()
    assert steady[31] > 0.8 * 0.8
    assert steady[33] > 0.95 * 0.8
    slow = smoothed(codes, config=SmoothingConfig(1.5, 0.0))[0][:, JAW]
    assert slow[31] < 0.6 * 0.8, "beta has no effect"


@pytest.mark.parametrize("start", np.arange(0.0, DT, 0.01))
def test_a_blink_of_120_ms_keeps_its_depth_and_is_over_in_time(start: float) -> None:
    time = np.arange(40) * DT - 0.8 - start
    codes = np.full((40, 52), 0.05)
    codes[:, BLINK] += 0.85 * np.clip(1 - np.abs(time - 0.06) / 0.06, 0, None)
    codes[:, JAW] = codes[:, BLINK]
    steady = smoothed(codes)[0]
    assert steady[:, BLINK].max() >= 0.9 * codes[:, BLINK].max()
    assert steady[codes[:, BLINK].argmax(), BLINK] >= 0.9 * codes[:, BLINK].max()
    after = codes[:, BLINK].argmax() + 3
    assert steady[after:, BLINK].max() < 0.1
    assert steady[:, JAW].max() < steady[:, BLINK].max(), "eyelids are like everything else"


def test_a_turning_head_is_followed_through_half_a_circle() -> None:
    angles = np.linspace(0, 3.0, 100)  # 43 degrees a second
    poses = np.tile(np.eye(4), (100, 1, 1))
    poses[:, :3, :3] = Rotation.from_rotvec(np.outer(angles, [0.0, 1.0, 0.0])).as_matrix()
    _, found = smoothed(np.zeros((100, 52)), poses)
    late = Rotation.from_matrix(found[:, :3, :3]).inv() * Rotation.from_matrix(poses[:, :3, :3])
    assert np.degrees(late.magnitude()).max() < 3.0
    np.testing.assert_allclose(np.linalg.det(found[:, :3, :3]), 1.0, atol=1e-9)


def test_a_head_that_faces_the_camera_is_no_special_case() -> None:
    """Its rotation is half a turn, where rotation vectors change their sign."""
    rng = np.random.default_rng(2)
    poses = np.tile(np.eye(4), (200, 1, 1))
    turns = Rotation.from_rotvec([np.pi, 0, 0]) * Rotation.from_rotvec(
        rng.normal(0, 0.01, (200, 3))
    )
    poses[:, :3, :3] = turns.as_matrix()
    _, found = smoothed(np.zeros((200, 52)), poses)
    off = Rotation.from_matrix(found[:, :3, :3]).inv() * turns
    assert off.magnitude().max() < 0.05


@pytest.mark.parametrize("jump", [0.6, -3.0, 0.0])
def test_gaps_and_clocks_that_go_back_start_anew(jump: float) -> None:
    smoother, config = ExpressionSmoother(), SmoothingConfig()
    smoother.update(np.zeros(52), np.eye(4), 10.0, config)
    code, _ = smoother.update(np.full(52, 0.7), np.eye(4), 10.0 + jump, config)
    np.testing.assert_allclose(code, 0.7, rtol=1e-6)
    smoother.update(np.zeros(52), np.eye(4), 11.0 + jump, config)
    smoother.restart()
    code, _ = smoother.update(np.full(52, 0.7), np.eye(4), 11.04 + jump, config)
    np.testing.assert_allclose(code, 0.7, rtol=1e-6)


def test_bad_settings_are_refused() -> None:
    for arguments in ((0.0, 1.0), (1.0, -1.0), (float("nan"), 1.0)):
        with pytest.raises(InputError, match="min_cutoff"):
            SmoothingConfig(*arguments)
