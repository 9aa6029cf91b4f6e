"""Matrices drawn to their neighbours', against plain loops."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from cag_avatar_training.local_smoothing import LocalSmoothing, surface_neighbours

from cag_avatar.avatar.model import Avatar
from cag_avatar.head_models.base import REGIONS
from tests.conftest import make_avatar

SKIN, LIPS = REGIONS.index("face_skin"), REGIONS.index("lips")
EYES = [REGIONS.index("eye_left"), REGIONS.index("eye_right")]


def sheet(height: float) -> torch.Tensor:
    """8 x 8 points 1 mm apart."""
    x, y = torch.meshgrid(torch.arange(8.0), torch.arange(8.0), indexing="ij")
    return torch.stack([x, y, torch.full_like(x, 1000 * height)], -1).reshape(-1, 3) * 1e-3


def test_neighbours_are_near_on_the_same_side_and_of_the_same_region() -> None:
    """Two sheets face away from each other, closer than their points; one has two regions."""
    points = torch.cat([sheet(0.0), sheet(0.0004)])
    normals = torch.tensor([[0.0, 0.0, -1.0]]).repeat(128, 1)
    normals[64:] *= -1
    region = torch.full((128,), SKIN)
    region[:32] = LIPS
    found = surface_neighbours(points, normals, region)
    assert found.shape == (128, 6)
    for row, others in enumerate(found.tolist()):
        assert row not in others
        assert len(set(others)) == 6
        assert all((i < 64) == (row < 64) and region[i] == region[row] for i in others)
        assert (points[others] - points[row]).norm(dim=1).max() < 2.3e-3


def test_few_neighbours_repeat_and_a_lonely_point_is_its_own() -> None:
    points = torch.tensor([[0.0, 0, 0], [1, 0, 0], [2, 0, 0], [1, 1, 0]]) * 1e-3
    normals = torch.tensor([[0.0, 0.0, 1.0]]).repeat(4, 1)
    region = torch.tensor([SKIN, SKIN, SKIN, LIPS])
    found = surface_neighbours(points, normals, region)
    assert [sorted(set(row)) for row in found.tolist()] == [[1, 2], [0, 2], [0, 1], [3]]
    assert all(row.count(i) == 3 for row in found[:3].tolist() for i in set(row))


@pytest.fixture
def avatar() -> Avatar:
    return make_avatar()


def smoothed(avatar: Avatar, strength: float, iteration: int, rate: float) -> torch.Tensor:
    LocalSmoothing(avatar, strength).after_step(iteration, rate)
    assert avatar.local is not None
    return avatar.local.weight


def test_matrices_go_to_the_mean_of_their_neighbours(avatar: Avatar) -> None:
    assert avatar.local is not None
    before = avatar.local.weight.detach().double().clone().numpy()
    after = smoothed(avatar, 3.0, 8, 0.01).numpy()
    points = avatar.binding.rest_points
    normals = avatar.binding.gaussian_rest_frames[:, :, 2]
    neighbours = surface_neighbours(points, normals, avatar.sample_region).tolist()
    positions, region = points.double().numpy(), avatar.sample_region.numpy()
    eyes = positions[np.isin(region, EYES)]
    moved = 0
    for row, others in enumerate(neighbours):
        nearest = np.sqrt(((eyes - positions[row]) ** 2).sum(1)).min()
        share = 4 * 0.01 * 3.0 * min(max(2 * nearest / 0.015 - 1, 0), 1)
        expected = before[row] + share * (before[others].mean(0) - before[row])
        np.testing.assert_allclose(after[row], expected, atol=1e-6)
        moved += share > 0
    assert 0.8 * len(neighbours) < moved < len(neighbours)


def test_equal_matrices_stay(avatar: Avatar) -> None:
    assert avatar.local is not None
    avatar.local.weight.copy_(avatar.local.weight[:1].clone().expand_as(avatar.local.weight))
    before = avatar.local.weight.clone()
    torch.testing.assert_close(smoothed(avatar, 3.0, 4, 0.01), before)


def test_only_every_fourth_iteration(avatar: Avatar) -> None:
    assert avatar.local is not None
    before = avatar.local.weight.clone()
    for iteration in (1, 2, 3, 5):
        assert torch.equal(smoothed(avatar, 3.0, iteration, 0.01), before)
    assert not torch.equal(smoothed(avatar, 3.0, 4, 0.01), before)


def test_a_strong_pull_does_not_overshoot(avatar: Avatar) -> None:
    assert avatar.local is not None
    before = avatar.local.weight.clone()
    after = smoothed(avatar, 1000.0, 4, 1.0)
    assert float(after.std()) < 0.8 * float(before.std())
    assert float(after.abs().max()) <= float(before.abs().max())
