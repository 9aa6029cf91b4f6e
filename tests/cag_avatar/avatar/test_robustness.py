"""Whatever the code and whatever the network has learned, the head stays a head."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from cag_avatar.avatar.inference import PreparedAvatar
from cag_avatar.head_models.base import REGIONS
from tests.conftest import facing_pose, make_avatar

CODES = 600


def head_size(avatar):
    """Height and centre of the head without neck and shoulders, canonical space, metres."""
    above = torch.tensor([name not in ("neck", "shoulders") for name in REGIONS])
    points = avatar.rest[above[avatar.head.vertex_region]]
    low, high = points.min(0).values, points.max(0).values
    return float(high[1] - low[1]), (low + high) / 2


def wild_avatar(**changes):
    """Weights so large that every output of the network saturates: only the bounds save it."""
    avatar = make_avatar(**changes)
    torch.manual_seed(3)
    avatar.network.last.weight.normal_(std=1e4)
    return avatar


def test_codes_far_outside_the_training_range_neither_explode_nor_give_nan():
    """Three times the range of ARKit's coefficients and of the training, about their middles."""
    avatar = wild_avatar()
    pose, (height, centre) = facing_pose(), head_size(avatar)
    raw = avatar.raw_offsets(torch.rand(52), pose, pose)
    assert (raw.abs() > 10).float().mean() > 0.9
    middle = pose[:3, :3] @ centre + pose[:3, 3]
    prepared = PreparedAvatar(avatar, torch.float32)
    random = np.random.default_rng(0)
    low = np.minimum(avatar.record.code_min, 0)
    span = np.maximum(avatar.record.code_max, 1) - low
    codes = low + span * random.uniform(-1, 2, (CODES, 52))
    codes[: CODES // 4] = low + span * random.integers(0, 2, (CODES // 4, 52)) * 3 - span
    assert codes.min() == -1
    assert codes.max() == 2
    largest = farthest = 0.0
    for code in torch.from_numpy(codes).float():
        g = prepared.gaussians(code, pose, pose)
        assert all(bool(torch.isfinite(value).all()) for value in vars(g).values())
        largest = max(largest, 3 * float(g.scales.max()))
        farthest = max(farthest, float((g.means - middle).norm(dim=1).max()))
    assert largest < height
    assert farthest < 0.5


@pytest.mark.parametrize("size", [1e3, 1e8])
def test_absurd_codes_keep_the_gaussians_finite(size):
    """The mesh is linear in the code and goes as far; scales and colours stay bounded."""
    avatar = wild_avatar()
    pose = facing_pose()
    for sign in (1.0, -1.0):
        g = avatar.gaussians(torch.full((52,), sign * size), pose, pose)
        raw = torch.zeros(avatar.num_gaussians, 12)
        still = avatar.gaussians(torch.zeros(52), pose, pose, raw=raw)
        assert all(bool(torch.isfinite(value).all()) for value in vars(g).values())
        assert (g.scales <= still.scales * 2.02).all()
