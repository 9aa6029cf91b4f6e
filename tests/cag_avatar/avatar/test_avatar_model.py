from __future__ import annotations

import numpy as np
import pytest
import torch

from cag_avatar.avatar.config import AvatarConfig
from cag_avatar.avatar.inference import PreparedAvatar
from cag_avatar.errors import InputError
from cag_avatar.geometry import quaternion_to_matrix, rigid_transform, rotation_vector_to_matrix
from cag_avatar.head_models.base import REGIONS
from tests.conftest import facing_pose, make_avatar, tiny_config


@pytest.mark.parametrize("fusion", ["cross-attention", "concat", "one-token"])
def test_fast_path_equals_the_plain_one(fusion):
    avatar = make_avatar(fusion=fusion, sh_degree=2)
    prepared = PreparedAvatar(avatar, torch.float32)
    pose = facing_pose()
    for code in torch.rand(3, 52):
        plain, fast = avatar.gaussians(code, pose, pose), prepared.gaussians(code, pose, pose)
        for name, value in vars(plain).items():
            torch.testing.assert_close(getattr(fast, name), value, atol=1e-5, rtol=1e-4)


def test_fast_path_in_bfloat16_stays_close():
    avatar, pose, code = make_avatar(), facing_pose(), torch.rand(52)
    plain = avatar.gaussians(code, pose, pose)
    fast = PreparedAvatar(avatar, torch.bfloat16).gaussians(code, pose, pose)
    assert (fast.means - plain.means).norm(dim=1).quantile(0.99) < 1e-3
    assert fast.means.dtype == torch.float32


def test_later_training_does_not_change_a_prepared_avatar(tiny_avatar):
    pose, code = facing_pose(), torch.rand(52)
    prepared = PreparedAvatar(tiny_avatar, torch.float32)
    before = prepared.gaussians(code, pose, pose).means.clone()
    tiny_avatar.network.last.weight.add_(1.0)
    assert torch.equal(prepared.gaussians(code, pose, pose).means, before)


def test_moving_the_whole_person_moves_the_gaussians_rigidly():
    """Offsets turn with the surface: nothing but the pose of the camera changes."""
    avatar, code, pose = make_avatar(sh_degree=0), torch.rand(52), facing_pose()
    motion = rigid_transform(
        rotation_vector_to_matrix(torch.tensor([0.3, -0.5, 0.2])), torch.tensor([0.1, 0.2, 0.3])
    )
    still = avatar.gaussians(code, pose, pose)
    moved = avatar.gaussians(code, motion @ pose, motion @ pose)
    expected = still.means @ motion[:3, :3].T + motion[:3, 3]
    torch.testing.assert_close(moved.means, expected, atol=2e-5, rtol=0)
    turned = motion[:3, :3] @ quaternion_to_matrix(still.quaternions)
    torch.testing.assert_close(quaternion_to_matrix(moved.quaternions), turned, atol=1e-3, rtol=0)
    torch.testing.assert_close(moved.scales, still.scales, atol=0, rtol=1e-4)


def test_offsets_are_bounded_for_codes_far_outside_training(tiny_avatar):
    pose = facing_pose()
    for code in (torch.full((52,), 50.0), torch.full((52,), -50.0)):
        g = tiny_avatar.gaussians(code, pose, pose)
        free = tiny_avatar.gaussians(
            code, pose, pose, raw=torch.zeros(tiny_avatar.num_gaussians, 12)
        )
        distance = (g.means - free.means).abs().max(1).values
        assert (distance <= 1.75 * tiny_avatar.offset_limits[:, 0] + 1e-5).all()
        assert torch.isfinite(g.quaternions).all()


def test_gradients_reach_code_poses_and_parameters():
    avatar = make_avatar().requires_grad_(True)
    code = torch.rand(52, requires_grad=True)
    head, torso = (facing_pose().requires_grad_(True) for _ in range(2))
    g = avatar.gaussians(code, head, torso)
    (g.means.sum() + g.scales.sum() + g.colors.sum() + (g.quaternions**3).sum()).backward()
    for value in (code.grad, head.grad, torso.grad):
        assert value is not None
        assert torch.isfinite(value).all()
        assert value.abs().max() > 0
    missing = [name for name, p in avatar.named_parameters() if p.grad is None]
    assert missing == ["attributes.opacity_logit"]


def test_gradient_of_the_code_is_numerically_right():
    generator = torch.Generator().manual_seed(0)
    avatar, pose = make_avatar().double(), facing_pose().double()
    code = torch.rand(52, generator=generator, dtype=torch.float64).requires_grad_()
    direction = torch.randn(52, generator=generator, dtype=torch.float64)
    weight = torch.randn(avatar.num_gaussians, 3, generator=generator, dtype=torch.float64)

    def total(value):
        g = avatar.gaussians(value, pose, pose)
        return ((g.means + g.scales + g.colors) * weight).sum()

    total(code).backward()
    with torch.no_grad():
        numeric = (total(code + 1e-6 * direction) - total(code - 1e-6 * direction)) / 2e-6
    assert float(code.grad @ direction) == pytest.approx(float(numeric), rel=1e-4)


def test_default_has_between_fifteen_and_sixteen_thousand_gaussians():
    from cag_avatar.gaussians.uv_sampling import sample_uv
    from cag_avatar.head_models import load_head_model

    config = AvatarConfig()
    samples = sample_uv(load_head_model("anny"), config.uv_resolution, config.density)
    assert 15_000 <= len(samples) <= 16_000


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("fusion", "film"),
        ("uv_resolution", 1),
        ("sh_degree", 4),
        ("max_offset", -1.0),
        ("density", {"nose": 1.0}),
        ("max_region_offset", {"scalp": -0.1}),
    ],
)
def test_bad_settings_are_named(field, value):
    with pytest.raises(InputError, match=field):
        AvatarConfig(**{field: value})


def test_config_survives_json():
    import json

    config = tiny_config(fusion="concat", max_color=0)
    assert AvatarConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config
    with pytest.raises(InputError, match="unknown field 'colour'"):
        AvatarConfig.from_dict({"colour": 1})
    with pytest.raises(InputError, match="width must be int"):
        AvatarConfig.from_dict({"width": "wide"})


def test_wrong_rest_shape_is_named():
    from cag_avatar.avatar.model import Avatar
    from cag_avatar.head_models import load_head_model

    with pytest.raises(InputError, match="rest"):
        Avatar(tiny_config(), load_head_model("anny"), torch.zeros(3, 3))


def test_record_rejects_nan(tiny_avatar):
    from cag_avatar.avatar.record import CaptureRecord

    values = tiny_avatar.record.to_dict()
    assert np.allclose(CaptureRecord.from_dict(values, "x").code_max, 0.8)
    values["code_max"][3] = float("nan")
    with pytest.raises(InputError, match="x: field 'code_max' holds NaN"):
        CaptureRecord.from_dict(values, "x")


def test_gaussians_of_named_regions():
    avatar = make_avatar()
    found = avatar.in_regions("lips", "ears").tolist()
    names = [REGIONS[i] for i in avatar.sample_region.tolist()]
    assert found == [name in ("lips", "ears") for name in names]
    assert 0 < sum(found) < len(found)
    assert not avatar.in_regions().any()
