"""The CUDA graph on a CUDA device; see test_cuda_avatar.py for what runs without one."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from cag_avatar.avatar import cuda_avatar
from cag_avatar.avatar.cuda_avatar import CudaAvatar
from cag_avatar.avatar.cuda_benchmark import bench_cuda, time_stages
from cag_avatar.avatar.distillation import fit_offset_basis, sample_driving
from cag_avatar.avatar.fidelity import plain_picture
from cag_avatar.avatar.file import save_avatar
from cag_avatar.avatar.frame_program import STAGES
from tests.conftest import facing_pose, make_avatar

pytest.importorskip("gsplat")
pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")


def driving(avatar, count):
    codes, poses = sample_driving(avatar.record, count, np.random.default_rng(3))
    return codes, poses, facing_pose().numpy()


def camera_of(avatar):
    return avatar.record.camera.resized(150, 131)


def assert_near(shown, expected, most):
    assert shown.shape == expected.shape
    assert np.abs(shown.astype(int) - expected).max() <= most


@pytest.mark.parametrize("dtype", [torch.float32, None])
def test_equals_the_cpu_everywhere(dtype):
    avatar = make_avatar()
    live = CudaAvatar(avatar, camera_of(avatar), dtype=dtype)
    codes, poses, torso = driving(avatar, 8)
    for code, pose in zip(codes, poses, strict=True):
        given = (torch.from_numpy(v) for v in (code, pose, torso))
        expected, _ = plain_picture(avatar, *given, camera_of(avatar))
        assert_near(live.render(code, pose, torso), expected, 2)


def test_it_is_a_graph_and_its_replays_are_equal():
    avatar = make_avatar()
    live = CudaAvatar(avatar, camera_of(avatar))
    codes, poses, torso = driving(avatar, 2)
    first = live.render(codes[0], poses[0], torso)
    other = live.render(codes[1], poses[1], torso)
    again = live.render(codes[0], poses[0], torso)
    assert live._used[1].captured
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)
    assert set(live.stages) == {"draw", "read-back"}
    assert all(seconds > 0 for seconds in live.stages.values())


def test_batches_equal_single_frames():
    avatars = [make_avatar(seed) for seed in (0, 1)]
    codes, poses, torso = driving(avatars[0], 4)
    together = CudaAvatar(avatars, camera_of(avatars[0])).render_batch(codes, poses, torso)
    for k, avatar in enumerate(avatars):
        live = CudaAvatar(avatar, camera_of(avatar))
        views = live.render_batch(codes[2 * k : 2 * k + 2], poses[2 * k : 2 * k + 2], torso)
        for n in range(2):
            single = live.render(codes[2 * k + n], poses[2 * k + n], torso)
            assert_near(views[n], single, 1)
            assert_near(together[2 * k + n], single, 1)


@pytest.mark.parametrize("basis", [False, True])
def test_nothing_waits_but_for_the_last_copy(basis):
    avatar = make_avatar()
    live = CudaAvatar(
        avatar, camera_of(avatar), basis=fit_offset_basis(avatar, 6) if basis else None
    )
    codes, poses, torso = driving(avatar, 6)
    frames = [(codes[n : n + 1], poses[n : n + 1], torso) for n in range(6)]
    expected = [live.render_batch(*frame) for frame in frames]
    program = live.program(1)
    inputs = torch.from_numpy(live.example(program)).cuda()
    torch.cuda.set_sync_debug_mode("error")
    try:
        shown = [picture.copy() for picture in live.stream(frames)]
        # The parts of a frame too, launched one by one.
        with torch.no_grad():
            program(inputs)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    for a, b in zip(shown, expected, strict=True):
        assert np.array_equal(a, b)


def test_more_tiles_than_expected(monkeypatch):
    avatar = make_avatar()
    codes, poses, torso = driving(avatar, 4)
    expected = CudaAvatar(avatar, camera_of(avatar)).render_batch(codes, poses, torso)
    monkeypatch.setattr(cuda_avatar, "_ROUND", 64)
    live = CudaAvatar(avatar, camera_of(avatar))
    live._pairs = 64
    frames = [(codes[n : n + 1], poses[n : n + 1], torso) for n in range(4)]
    shown = np.concatenate([picture.copy() for picture in live.stream(frames)])
    assert_near(shown, expected, 1)


def test_colours_and_alpha():
    avatar = make_avatar()
    live = CudaAvatar(avatar, camera_of(avatar), (10, 20, 30))
    codes, poses, torso = driving(avatar, 1)
    rgb = live.render(codes[0], poses[0], torso)
    assert rgb[0, 0].tolist() == [10, 20, 30]
    assert_near(live.render(codes[0], poses[0], torso, bgr=True), rgb[..., ::-1], 1)
    rgba = live.render(codes[0], poses[0], torso, channels=4)
    alpha = rgba[..., 3:] / 255
    over = rgba[..., :3] * alpha + np.array([10, 20, 30]) * (1 - alpha)
    assert np.abs(over - rgb).max() < 3


def test_figures(tmp_path):
    avatar = make_avatar()
    path = tmp_path / "a.cag"
    save_avatar(path, avatar)
    live = CudaAvatar(avatar, camera_of(avatar))
    stages = time_stages(live, 4)
    assert list(stages) == list(STAGES)
    figures = bench_cuda(avatar, path, 64, 4, resolutions=(16, 32), sizes=(32, 64), batch=4)
    assert figures["device"] == torch.cuda.get_device_name()
    assert figures["fps"] > 0
    assert figures["batch"]["avatars_per_s"] > 0
