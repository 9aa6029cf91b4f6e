from __future__ import annotations

import numpy as np
import pytest
import torch

from cag_avatar.avatar.animator import Animator
from cag_avatar.avatar.retargeting import (
    Retargeting,
    retarget_code,
    retarget_head_pose,
    soft_clamp,
)
from cag_avatar.errors import InputError
from cag_avatar.geometry import rotation_vector_to_matrix
from cag_avatar.head_models import ARKIT_INDEX, ARKIT_NAMES
from tests.conftest import TINY_SIZE, facing_pose


@pytest.fixture
def animator(tiny_avatar_path):
    return Animator.load(tiny_avatar_path, "cpu")


def turned(pose, vector, shift=(0, 0, 0)):
    result = pose.copy()
    result[:3, :3] = rotation_vector_to_matrix(torch.tensor(vector)).numpy() @ pose[:3, :3]
    result[:3, 3] += shift
    return result


def test_renders_a_head_on_the_background(animator):
    image = animator.render(np.zeros(52, np.float32))
    assert image.shape == (TINY_SIZE, TINY_SIZE, 3)
    assert image.dtype == np.uint8
    assert (image[0, 0] == 255).all()
    assert (image[TINY_SIZE // 2, TINY_SIZE // 2] != 255).any()
    assert animator.expression_names == ARKIT_NAMES


def test_code_pose_and_torso_change_the_picture(animator):
    still = animator.render(np.zeros(52))
    assert np.array_equal(still, animator.render(np.zeros(52)))
    code = np.zeros(52)
    code[ARKIT_INDEX["jawOpen"]] = 1
    assert not np.array_equal(still, animator.render(code))
    home = animator.record.neutral_head_pose
    moved = turned(home, [0.0, 0.3, 0.0])
    assert not np.array_equal(still, animator.render(np.zeros(52), moved))
    assert np.array_equal(still, animator.render(np.zeros(52), home, home))
    assert not np.array_equal(still, animator.render(np.zeros(52), None, moved))


def test_without_a_background(animator):
    code = np.zeros(52)
    rgba = animator.render_rgba(code)
    assert rgba.shape == (TINY_SIZE, TINY_SIZE, 4)
    assert rgba.dtype == np.uint8
    assert rgba[0, 0, 3] == 0
    alpha = rgba[..., 3:] / 255.0
    white = alpha * rgba[..., :3] + (1 - alpha) * 255
    assert np.abs(white - animator.render(code)).max() <= 2
    moved = turned(animator.record.neutral_head_pose, [0.0, 0.3, 0.0])
    assert not np.array_equal(rgba, animator.render_rgba(code, moved))
    with pytest.raises(InputError, match="code: shape"):
        animator.render_rgba(np.zeros(51))


def test_size_and_background(tiny_avatar_path):
    animator = Animator.load(tiny_avatar_path, "cpu", (48, 40), (10, 20, 30))
    image = animator.render(np.zeros(52))
    assert image.shape == (40, 48, 3)
    assert image[0, 0].tolist() == [10, 20, 30]
    assert (animator.camera.width, animator.camera.height) == (48, 40)


def test_bad_input_is_named(animator, tiny_avatar_path):
    with pytest.raises(InputError, match="code: shape"):
        animator.render(np.zeros(51))
    with pytest.raises(InputError, match="code: holds NaN"):
        animator.render(np.full(52, np.nan))
    with pytest.raises(InputError, match="head_pose"):
        animator.render(np.zeros(52), np.eye(3))
    with pytest.raises(InputError, match="operator_pose: holds NaN"):
        animator.render_relative(np.zeros(52), np.full((4, 4), np.nan), np.eye(4))
    with pytest.raises(InputError, match="size"):
        Animator.load(tiny_avatar_path, "cpu", (0, 40))


def test_a_still_operator_leaves_the_avatar_at_rest(animator):
    pose = facing_pose(0.9).double().numpy()
    rest = animator.render(np.zeros(52))
    assert np.array_equal(animator.render_relative(np.zeros(52), pose, pose), rest)
    assert np.array_equal(animator.render_relative(np.zeros(52), None, None), rest)


def test_operator_rotation_is_applied_to_the_neutral_pose(tiny_avatar):
    record = tiny_avatar.record
    neutral = turned(facing_pose(0.9).double().numpy(), [0.2, 0.1, 0.0])
    pose = turned(neutral, [0.05, -0.1, 0.02], (0.03, 0.0, 0.0))
    result = retarget_head_pose(pose, neutral, record)
    expected = turned(record.neutral_head_pose, [0.05, -0.1, 0.02], (0.03 * 0.6 / 0.9, 0.0, 0.0))
    np.testing.assert_allclose(result, expected, atol=1e-6)


def test_motion_and_codes_stay_near_the_training_range(tiny_avatar):
    record = tiny_avatar.record
    neutral = facing_pose(0.9).double().numpy()
    settings = Retargeting(code_margin=0.1, rotation_margin=0.05, translation_margin=0.01)
    far = retarget_head_pose(turned(neutral, [0.0, 1.5, 0.0]), neutral, record, settings)
    angle = np.arccos((np.trace(far[:3, :3] @ record.neutral_head_pose[:3, :3].T) - 1) / 2)
    assert 0.2 < angle <= 0.2501
    code = retarget_code(np.array([5.0, -3.0, 0.5] + [0.0] * 49), record, settings)
    assert code.dtype == np.float32
    assert code[0] == pytest.approx(0.9, abs=1e-3)
    assert code[1] == pytest.approx(-0.1, abs=1e-3)
    assert code[2] == pytest.approx(0.5)


def test_soft_clamp_is_smooth_and_monotonic():
    x = np.linspace(-3, 3, 2001)
    y = soft_clamp(x, np.float64(-1), np.float64(1), 0.3)
    assert (np.diff(y) >= 0).all()
    np.testing.assert_allclose(y[np.abs(x) <= 1], x[np.abs(x) <= 1])
    slope = np.diff(y) / np.diff(x)
    assert np.abs(np.diff(slope)).max() < 0.05
    assert y.max() <= 1.3
