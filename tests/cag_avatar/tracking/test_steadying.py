from __future__ import annotations

import math

import pytest
import torch

from cag_avatar.errors import InputError
from cag_avatar.geometry import matrix_to_rotation_vector, rotation_vector_to_matrix
from cag_avatar.tracking.steadying import SteadyConfig, steady_poses

FRAMES = 60
WHOLE = [(0, FRAMES)]


def noise(size: float, seed: int = 0) -> torch.Tensor:
    return size * torch.randn(FRAMES, 3, generator=torch.Generator().manual_seed(seed))


def angles(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Degrees between rotations [T, 3, 3]."""
    return torch.rad2deg(matrix_to_rotation_vector(a.transpose(1, 2) @ b).norm(dim=-1))


def test_a_still_head_trembles_less() -> None:
    rotation = rotation_vector_to_matrix(noise(math.radians(0.15)))
    translation = torch.tensor([0.0, 0.0, 0.8]) + noise(0.0003, 1)
    turned, moved = steady_poses(rotation, translation, WHOLE)
    still = torch.eye(3).expand(FRAMES, 3, 3)
    inner = slice(8, -8)
    assert angles(turned, still)[inner].mean() < 0.5 * angles(rotation, still)[inner].mean()
    left, before = (x[inner] - x[inner].mean(0) for x in (moved, translation))
    assert left.norm() < 0.5 * before.norm()
    assert turned.dtype == rotation.dtype


def test_a_steady_turn_stays() -> None:
    t = torch.arange(FRAMES, dtype=torch.float64)
    rotation = rotation_vector_to_matrix(torch.outer(t, torch.tensor([0.0, 0.004, 0.0]).double()))
    translation = torch.outer(t, torch.tensor([3e-4, 0.0, 1e-3]).double())
    turned, moved = steady_poses(rotation, translation, WHOLE)
    assert angles(turned, rotation).max() < 1e-5
    torch.testing.assert_close(moved, translation)


def test_a_sudden_turn_is_neither_early_nor_late() -> None:
    vector = torch.zeros(FRAMES, 3)
    vector[30:, 1] = math.radians(6)
    rotation = rotation_vector_to_matrix(vector)
    turned, _ = steady_poses(rotation, torch.zeros(FRAMES, 3), WHOLE)
    assert angles(turned, rotation).max() < 0.01


def test_frames_are_not_averaged_across_a_gap() -> None:
    vector = torch.zeros(FRAMES, 3)
    vector[30:, 1] = math.radians(0.5)
    rotation, translation = rotation_vector_to_matrix(vector), torch.zeros(FRAMES, 3)
    whole, _ = steady_poses(rotation, translation, WHOLE)
    apart, _ = steady_poses(rotation, translation, [(0, 30), (30, FRAMES)])
    assert angles(whole, rotation).max() > 0.05
    assert angles(apart, rotation).max() < 1e-4


def test_nothing_changes_when_it_is_off() -> None:
    rotation, translation = rotation_vector_to_matrix(noise(0.01)), noise(0.001)
    turned, moved = steady_poses(rotation, translation, WHOLE, SteadyConfig(frames=0))
    torch.testing.assert_close(turned, rotation)
    torch.testing.assert_close(moved, translation)
    with pytest.raises(InputError, match="steady"):
        SteadyConfig(rotation=0)
