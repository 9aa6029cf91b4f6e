"""The GPU path on the CPU: gsplat's Python layer over slow stand-ins for its compiled functions."""

from __future__ import annotations

import logging

import numpy as np
import pytest
import torch

from cag_avatar.avatar import cuda_avatar
from cag_avatar.avatar.cuda_avatar import CudaAvatar
from cag_avatar.avatar.distillation import fit_offset_basis, sample_driving
from cag_avatar.avatar.fidelity import plain_picture
from cag_avatar.avatar.frame_program import STAGES
from cag_avatar.errors import InputError
from tests.cag_avatar.rendering import tile_reference
from tests.conftest import facing_pose, make_avatar

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def _stand_ins(monkeypatch):
    tile_reference.install(monkeypatch)


def driving(avatar, count=2, seed=3):
    codes, poses = sample_driving(avatar.record, count, np.random.default_rng(seed))
    return codes, poses, facing_pose().numpy()


def camera_of(avatar):
    """Not a multiple of the tiles."""
    return avatar.record.camera.resized(70, 61)


def assert_same_picture(shown, expected):
    difference = np.abs(shown.astype(int) - expected)
    assert difference.max() <= 2
    assert difference.mean() < 0.02


def assert_equal(shown, expected):
    """Products of other shapes round differently: a level may tip over."""
    assert shown.shape == expected.shape
    difference = np.abs(shown.astype(int) - expected)
    assert difference.max() <= 1
    assert (difference > 0).mean() < 1e-3


def plain(avatar, code, pose, torso):
    given = (torch.from_numpy(v) for v in (code, pose, torso))
    return plain_picture(avatar, *given, camera_of(avatar))


def test_equals_the_training_time_picture():
    avatar = make_avatar()
    live = CudaAvatar(avatar, camera_of(avatar), device=CPU)
    codes, poses, torso = driving(avatar)
    for code, pose in zip(codes, poses, strict=True):
        expected, alpha = plain(avatar, code, pose, torso)
        assert (alpha > 0.5).mean() > 0.1
        assert_same_picture(live.render(code, pose, torso), expected)
    batch = live.render_batch(codes, poses, torso)
    for n in range(2):
        assert_equal(batch[n], live.render(codes[n], poses[n], torso))


def test_several_avatars_together():
    avatars = [make_avatar(seed) for seed in (0, 1)]
    live = CudaAvatar(avatars, camera_of(avatars[0]), device=CPU)
    codes, poses, torso = driving(avatars[0], 4)
    batch = live.render_batch(codes, torch.from_numpy(poses), np.stack([torso] * 4))
    assert batch.shape == (4, 61, 70, 3)
    for n in range(4):
        assert_same_picture(batch[n], plain(avatars[n // 2], codes[n], poses[n], torso)[0])
    with pytest.raises(ValueError, match="B a multiple of 2"):
        live.render(codes[0], poses[0], torso)


def test_background_order_of_colours_and_alpha():
    avatar = make_avatar()
    live = CudaAvatar(avatar, camera_of(avatar), (10, 20, 30), device=CPU)
    codes, poses, torso = driving(avatar, 1)
    given = (codes[0], poses[0], torso)
    rgb = live.render(*given)
    assert rgb[0, 0].tolist() == [10, 20, 30]
    assert np.array_equal(live.render(*given, bgr=True), rgb[..., ::-1])
    out = np.empty((61, 70, 4), np.uint8)
    assert live.render(*given, out=out, channels=4).base is not None
    assert out[0, 0].tolist() == [0, 0, 0, 0]
    alpha = out[..., 3:] / 255
    over = out[..., :3] * alpha + np.array([10, 20, 30]) * (1 - alpha)
    assert np.abs(over - rgb).max() < 2
    with pytest.raises(ValueError, match="channels: 5"):
        live.render(*given, channels=5)
    with pytest.raises(ValueError, match=r"out: must be uint8 \[1, 61, 70, 3\]"):
        live.render(*given, out=out)


def test_live_basis_moves_the_picture_a_little():
    avatar = make_avatar()
    given = [v[0] if v.ndim == 3 or v.shape != (4, 4) else v for v in driving(avatar, 1)]
    network = CudaAvatar(avatar, camera_of(avatar), device=CPU).render(*given)
    basis = fit_offset_basis(avatar, 12)
    shown = CudaAvatar(avatar, camera_of(avatar), basis=basis, device=CPU).render(*given)
    assert 0 < np.abs(shown.astype(int) - network).mean() < 2


def test_frames_are_drawn_again_when_there_is_too_little_room(monkeypatch, caplog):
    avatar = make_avatar()
    codes, poses, torso = driving(avatar, 4)
    expected = CudaAvatar(avatar, camera_of(avatar), device=CPU).render_batch(codes, poses, torso)
    monkeypatch.setattr(cuda_avatar, "_PAIRS", 0)
    monkeypatch.setattr(cuda_avatar, "_ROUND", 64)
    live = CudaAvatar(avatar, camera_of(avatar), device=CPU)
    live._pairs = 64
    with caplog.at_level(logging.INFO):
        frames = [(codes[n : n + 1], poses[n : n + 1], torso) for n in range(4)]
        shown = [picture.copy() for picture in live.stream(frames)]
    assert "room for" in caplog.text
    assert_equal(np.concatenate(shown), expected)
    monkeypatch.setattr(cuda_avatar, "_MAX_PAIRS", 100)
    small = CudaAvatar(avatar, camera_of(avatar), device=CPU)
    small._pairs = 64
    with pytest.raises(InputError, match="bound their size"):
        small.render(codes[0], poses[0], torso)
    monkeypatch.setattr(cuda_avatar, "_MAX_PAIRS", 10**6)
    assert_equal(small.render(codes[0], poses[0], torso), expected[0])


def test_a_stream_that_is_left_early_leaves_nothing_behind():
    avatar = make_avatar()
    live = CudaAvatar(avatar, camera_of(avatar), device=CPU)
    codes, poses, torso = driving(avatar, 4)
    frames = [(codes[n : n + 1], poses[n : n + 1], torso) for n in range(4)]
    stream = live.stream(frames)
    first = next(stream).copy()
    stream.close()
    assert np.array_equal(first[0], live.render(codes[0], poses[0], torso))
    assert_equal(live.render(codes[3], poses[3], torso), live.render_batch(codes, poses, torso)[3])
    with pytest.raises(ValueError, match="of one size"):
        list(live.stream([frames[0], (codes, poses, torso)]))
    for wrong in ((codes[:, 1:], poses, torso), (codes, poses[:2], torso)):
        with pytest.raises(ValueError, match="expected"):
            live.render_batch(*wrong)


def test_parts_of_a_frame_one_by_one_give_the_same_bytes():
    avatar = make_avatar()
    live = CudaAvatar(avatar, camera_of(avatar), device=CPU)
    program = live.program(1)
    inputs = torch.from_numpy(live.example(program))
    with torch.no_grad():
        whole = program(inputs)
        parts = program.stages(inputs)
        assert [name for name, _ in parts] == list(STAGES)
        for _, part in parts:
            part()
        assert torch.equal(program.result(), whole)
    pictures, pairs = program.unpack(whole.numpy())
    assert 0 < pairs < program.capacity
    head = avatar.record.neutral_head_pose.astype(np.float32)
    expected = live.render(avatar.neutral_code, head, head)
    assert np.array_equal(pictures[0], expected)


def test_without_a_device_it_says_so(monkeypatch):
    monkeypatch.undo()
    avatar = make_avatar()
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    pytest.importorskip("gsplat")
    with pytest.raises(InputError, match="no CUDA device"):
        CudaAvatar(avatar, camera_of(avatar))
