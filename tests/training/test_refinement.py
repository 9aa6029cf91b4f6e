from __future__ import annotations

import dataclasses
import shutil

import cv2
import numpy as np
import pytest
import torch
from cag_avatar_training.config import LossConfig, RefinementConfig, TrainConfig
from cag_avatar_training.dataset import Dataset
from cag_avatar_training.metrics import psnr
from cag_avatar_training.motion import Motion
from cag_avatar_training.refinement import (
    apply_correction,
    corrected_motion,
    correction_size,
    refine_frames,
)
from cag_avatar_training.trainer import Trainer

from cag_avatar.avatar.inference import PreparedAvatar
from cag_avatar.geometry import rotation_vector_to_matrix
from cag_avatar.rendering.rasterizer import get_rasterizer
from tests.conftest import TINY_SIZE


def test_correction_by_hand(tiny_dataset):
    tracked = Motion.tracked(tiny_dataset.tracking)
    code, head, torso = tracked.frame(0)
    pivot = torch.tensor([0.0, -0.15, -0.05])
    correction = torch.zeros(correction_size(52))
    correction[:6] = torch.tensor([0.1, 0, 0, 0.01, 0.02, 0.03])
    correction[6:12] = torch.tensor([0, 0.2, 0, 0, 0, 0.05])
    correction[12] = 0.3
    new_code, new_head, new_torso = apply_correction(correction, (code, head, torso), pivot)
    turn = rotation_vector_to_matrix(correction[:3])
    torch.testing.assert_close(new_head[:3, :3], turn @ head[:3, :3])
    torch.testing.assert_close(new_head[:3, 3], head[:3, 3] + correction[3:6])
    moved = new_torso[:3, :3] @ pivot + new_torso[:3, 3]
    torch.testing.assert_close(moved, torso[:3, :3] @ pivot + torso[:3, 3] + correction[9:12])
    assert new_code[0] == pytest.approx(float(code[0]) + 0.3)
    unchanged = apply_correction(torch.zeros(correction_size(52)), (code, head, torso), pivot)
    for new, old in zip(unchanged, (code, head, torso), strict=True):
        torch.testing.assert_close(new, old, atol=1e-6, rtol=0)


@pytest.fixture(scope="module")
def trained(tiny_dataset_path):
    """An avatar that has learned the tiny dataset, and the dataset."""
    from tests.conftest import tiny_config

    dataset = Dataset.open(tiny_dataset_path)
    config = TrainConfig(
        avatar=tiny_config(),
        iterations=150,
        sizes=((0.0, TINY_SIZE),),
        loss=LossConfig(perceptual_weight=0),
        refinement=RefinementConfig(at=()),
        backend="cpu",
    )
    trainer = Trainer(dataset, config)
    trainer.run(show_progress=False)
    return trainer.avatar.requires_grad_(False), dataset


def run(trained, tracked, frames, **changes):
    avatar, dataset = trained
    settings = dataclasses.replace(RefinementConfig(steps=25, size=TINY_SIZE), **changes)
    zero = torch.zeros(len(dataset), correction_size(52))
    return refine_frames(
        PreparedAvatar(avatar, torch.float32), dataset, frames, tracked, zero, settings,
        LossConfig(), torch.ones(3), get_rasterizer("cpu"),
    )  # fmt: skip


def test_a_wrong_head_pose_is_put_right(trained):
    avatar, dataset = trained
    tracked = Motion.tracked(dataset.tracking)
    truth = tracked.head_pose[2].clone()
    tracked.head_pose[2, 0, 3] += 0.008
    corrections = run(trained, tracked, [2])
    fixed = corrected_motion(tracked, corrections, avatar.neck_pivot)
    # Depth hardly shows in a picture this small; the other two axes do.
    assert (fixed.head_pose[2] - truth)[:2, 3].norm() < 0.4 * 0.008
    assert corrections[[0, 1, 3, 4]].abs().max() == 0


def test_small_pictures_leave_what_is_right_at_full_size(trained, tiny_dataset_path, tmp_path):
    """Frames that show exactly the avatar: refined at half their size, they stay right."""
    avatar, dataset = trained
    path = tmp_path / "seen.dataset"
    shutil.copytree(tiny_dataset_path, path)
    tracked = Motion.tracked(dataset.tracking)
    prepared, rasterizer = PreparedAvatar(avatar, torch.float32), get_rasterizer("cpu")

    def shown(motion: Motion, index: int) -> torch.Tensor:
        g = prepared.gaussians(*motion.frame(index))
        with torch.no_grad():
            return rasterizer.render(
                g.means, g.quaternions, g.scales, g.opacities, g.colors, torch.eye(4),
                dataset.info.camera, torch.ones(3),
            ).image.clamp(0, 1)  # fmt: skip

    pictures = {index: shown(tracked, index) for index in (1, 3)}
    for index, picture in pictures.items():
        pixels = (picture * 255 + 0.5).to(torch.uint8).numpy()
        cv2.imwrite(str(path / "images" / f"{index:05d}.png"), pixels[..., ::-1])
        cv2.imwrite(str(path / "alpha" / f"{index:05d}.png"), np.full_like(pixels[..., 0], 255))
    seen = avatar, Dataset.open(path)
    corrections = run(seen, tracked, [1, 3], size=TINY_SIZE // 2, steps=12)
    refined = corrected_motion(tracked, corrections, avatar.neck_pivot)
    for index, picture in pictures.items():
        assert psnr(shown(refined, index), picture) > 50


def test_codes_stay_in_range(trained):
    avatar, dataset = trained
    tracked = Motion.tracked(dataset.tracking)
    corrections = run(trained, tracked, [2, 3], code_rate=0.5, prior_weight=0.0)
    codes = corrected_motion(tracked, corrections, avatar.neck_pivot).codes[2:4]
    assert codes.min() >= -1e-6
    assert codes.max() <= 1 + 1e-6


def test_priors_hold_the_tracked_values(trained):
    _, dataset = trained
    tracked = Motion.tracked(dataset.tracking)
    free = run(trained, tracked, [2], prior_weight=0.0)
    held = run(trained, tracked, [2], prior_weight=1e3)
    assert held.abs().max() < 0.2 * free.abs().max()


def test_rates_fall_to_their_final_share(trained):
    _, dataset = trained
    tracked = Motion.tracked(dataset.tracking)
    once = run(trained, tracked, [2], steps=1)
    twice = run(trained, tracked, [2], steps=2, final_rate=1.0)
    fallen = run(trained, tracked, [2], steps=2, final_rate=1e-3)
    assert (fallen - once).abs().max() < 0.01 * (twice - once).abs().max()
