from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from cag_avatar.avatar.compiled import STAGES, CompiledAvatar
from cag_avatar.avatar.distillation import fit_offset_basis, sample_driving
from cag_avatar.avatar.fidelity import plain_picture
from cag_avatar.native.library import NativeUnavailableError, load_library
from tests.cag_avatar.native.processors import PROCESSORS, built_for
from tests.conftest import facing_pose, make_avatar

try:
    load_library("frame")
except NativeUnavailableError as error:
    pytest.skip(f"no compiled renderer: {error}", allow_module_level=True)


def driving(avatar, count=4, seed=3):
    codes, poses = sample_driving(avatar.record, count, np.random.default_rng(seed))
    return list(zip(torch.from_numpy(codes), torch.from_numpy(poses), strict=True))


def camera_of(avatar, width=150, height=131):
    """Not a multiple of the tiles."""
    return avatar.record.camera.resized(width, height)


def assert_same_picture(shown, expected):
    """Up to rounding: Gaussians nearly at one depth may swap, a sample at the threshold flip."""
    difference = np.abs(shown.astype(int) - expected)
    assert (difference > 1).mean() < 2e-3
    assert difference.mean() < 0.02


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"attention": "softmax", "local_size": 0},
        {"fusion": "concat"},
        {"fusion": "concat", "local_size": 8},
        {"fusion": "one-token"},
        {"sh_degree": 0, "neck_tokens": False},
        {"sh_degree": 2, "depth": 1, "width": 20},
        {"depth": 4},
    ],
)
def test_equals_the_training_time_picture(changes):
    avatar, torso = make_avatar(**changes), facing_pose()
    camera = camera_of(avatar)
    live = CompiledAvatar(avatar, camera)
    for code, pose in driving(avatar):
        expected, alpha = plain_picture(avatar, code, pose, torso, camera)
        assert (alpha > 0.5).mean() > 0.1
        assert_same_picture(live.render(code, pose, torso), expected)


@pytest.mark.parametrize("processor", list(PROCESSORS)[1:])
def test_smaller_vectors_give_the_same_picture(processor, native_builds):
    avatar, torso = make_avatar(), facing_pose()
    avatar.live_basis = fit_offset_basis(avatar, 6)
    camera = camera_of(avatar)
    for basis in (None, avatar.live_basis):
        usual = CompiledAvatar(avatar, camera, basis=basis)
        with built_for(processor, native_builds):
            live = CompiledAvatar(avatar, camera, basis=basis)
            assert load_library("frame").cag_lanes() < 16
            for code, pose in driving(avatar, 2):
                assert_same_picture(live.render(code, pose, torso), usual.render(code, pose, torso))


def test_does_not_depend_on_the_number_of_threads():
    avatar, torso = make_avatar(), facing_pose()
    code, pose = driving(avatar)[0]
    pictures = [
        CompiledAvatar(avatar, camera_of(avatar), threads=n).render(code, pose, torso)
        for n in (1, 2, 3)
    ]
    assert np.array_equal(pictures[0], pictures[1])
    assert np.array_equal(pictures[0], pictures[2])


def test_background_order_of_colours_and_alpha():
    avatar, torso = make_avatar(), facing_pose()
    camera = camera_of(avatar)
    code, pose = driving(avatar)[0]
    live = CompiledAvatar(avatar, camera, background=(10, 20, 30))
    rgb = live.render(code, pose, torso)
    assert rgb[0, 0].tolist() == [10, 20, 30]
    bgr = live.render(code, pose, torso, bgr=True)
    inside = plain_picture(avatar, code, pose, torso, camera)[1] > 0.99
    assert inside.any()
    assert np.abs(bgr[inside].astype(int) - rgb[inside][:, ::-1]).max() <= 1
    assert bgr[0, 0].tolist() == [30, 20, 10]
    rgba = live.render(code, pose, torso, channels=4)
    _, alpha = plain_picture(avatar, code, pose, torso, camera)
    assert np.abs(rgba[..., 3] - 255 * alpha).mean() < 1
    blended = rgba[..., :3] * (rgba[..., 3:] / 255) + (1 - rgba[..., 3:] / 255) * [10, 20, 30]
    assert np.abs(blended - rgb).max() <= 3


def test_writes_into_the_given_array():
    avatar, torso = make_avatar(), facing_pose()
    live = CompiledAvatar(avatar, camera_of(avatar))
    code, pose = driving(avatar)[0]
    out = np.empty((131, 150, 3), np.uint8)
    assert live.render(code, pose, torso, out) is out
    assert np.array_equal(out, live.render(code, pose, torso))
    assert set(live.stages) == set(STAGES)
    assert 0 < live.visible <= avatar.num_gaussians
    with pytest.raises(ValueError, match="out"):
        live.render(code, pose, torso, out[:-1])
    with pytest.raises(ValueError, match="out"):
        live.render(code, pose, torso, np.empty((131, 150, 4), np.uint8)[..., :3])


def test_gaussians_that_are_not_finite_are_not_drawn():
    avatar, torso = make_avatar(), facing_pose()
    camera = camera_of(avatar)
    code, pose = driving(avatar)[0]
    avatar.attributes.log_scale.data[::3, 0] = torch.nan
    avatar.attributes.color_base.data[1::3] = torch.inf
    expected, _ = plain_picture(avatar, code, pose, torso, camera)
    assert_same_picture(CompiledAvatar(avatar, camera).render(code, pose, torso), expected)


def test_head_behind_and_beside_the_camera():
    avatar, torso = make_avatar(), facing_pose()
    live = CompiledAvatar(avatar, camera_of(avatar), background=(1, 2, 3))
    code, pose = driving(avatar)[0]
    for shift in ((0, 0, -3.0), (9.0, 0, 0), (0, -9.0, 0)):
        moved, trunk = pose.clone(), torso.clone()
        moved[:3, 3] += torch.tensor(shift)
        trunk[:3, 3] += torch.tensor(shift)
        picture = live.render(code, moved, trunk)
        assert (picture == np.array([1, 2, 3])).all()
    assert live.visible == 0


def test_room_for_pairs_grows():
    avatar, torso = make_avatar(), facing_pose()
    avatar.attributes.log_scale.data += 1.0
    camera = avatar.record.camera.resized(512, 512)
    live = CompiledAvatar(avatar, camera)
    code, pose = driving(avatar)[0]
    live._make_room(10)
    expected = plain_picture(avatar, code, pose, torso, camera)[0]
    assert_same_picture(live.render(code, pose, torso), expected)
    assert live._work.room > 10


def test_keeps_a_copy_of_the_avatar():
    avatar, torso = make_avatar(), facing_pose()
    live = CompiledAvatar(avatar, camera_of(avatar))
    code, pose = driving(avatar)[0]
    before = live.render(code, pose, torso)
    avatar.network.last.weight.add_(1.0)
    avatar.rest.add_(0.01)
    assert np.array_equal(before, live.render(code, pose, torso))


def test_says_what_it_does_not_do():
    avatar = make_avatar(head_size=6, heads=2)
    with pytest.raises(NativeUnavailableError, match="head_size"):
        CompiledAvatar(avatar, camera_of(avatar))
    avatar = make_avatar()
    avatar.config = replace(avatar.config)
    object.__setattr__(avatar.config, "sh_degree", 3)
    with pytest.raises(NativeUnavailableError, match="sh_degree"):
        CompiledAvatar(avatar, camera_of(avatar))


def test_brightest_and_darkest_stay_in_range():
    avatar, torso = make_avatar(), facing_pose()
    avatar.attributes.color_base.data *= 40
    code, pose = driving(avatar)[0]
    camera = camera_of(avatar)
    expected, _ = plain_picture(avatar, code, pose, torso, camera)
    picture = CompiledAvatar(avatar, camera).render(code, pose, torso)
    assert_same_picture(picture, expected)
    assert picture.max() == 255
