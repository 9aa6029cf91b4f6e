"""An avatar on FLAME: driven, saved without the model, refused clearly where that is missing."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open

from cag_avatar.avatar.animator import Animator
from cag_avatar.avatar.driver import measure_driver
from cag_avatar.avatar.file import load_avatar, save_avatar
from cag_avatar.avatar.inference import PreparedAvatar
from cag_avatar.avatar.model import Avatar
from cag_avatar.avatar.record import CaptureRecord
from cag_avatar.avatar.retargeting import retarget_code
from cag_avatar.camera import PinholeCamera
from cag_avatar.errors import InputError
from cag_avatar.export.onnx import export_onnx
from cag_avatar.export.ply import export_ply
from cag_avatar.head_models import ARKIT_INDEX, FlameHeadModel, load_head_model
from cag_avatar.head_models.flame_file import load_flame
from cag_avatar.head_models.library import FOLDER_VARIABLE
from cag_avatar.head_models.storage import save_head_model
from cag_avatar.insight.listening import listen
from cag_avatar.viewer.scene import AvatarScene
from tests.cag_avatar.head_models.flame_files import flame_arrays, write_flame_pickle
from tests.conftest import facing_pose, tiny_config


@pytest.fixture
def folder(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of head models that holds "egg"."""
    path = tmp_path_factory.mktemp("models")
    arrays = flame_arrays(rows=12, columns=16)
    save_head_model(
        path / "egg.safetensors", load_flame(write_flame_pickle(path / "f.pkl", arrays), "egg")
    )
    monkeypatch.setenv(FOLDER_VARIABLE, str(path))
    return path


@pytest.fixture
def avatar(folder: Path) -> Avatar:
    head = load_head_model("egg")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        avatar = Avatar(tiny_config(), head, head.rest_vertices(torch.randn(300)))
        avatar.attributes.color_base.data.uniform_(-1.5, 1.5)
        avatar.attributes.opacity_logit.data.fill_(2.0)
        avatar.network.last.weight.data.normal_(std=0.3)
    pose = facing_pose().double().numpy()
    neutral = head.neutral_code.double().numpy()
    avatar.record = CaptureRecord(
        PinholeCamera(48, 48, 90.0, 90.0, 24.0, 24.0), pose, pose,
        neutral - 0.3, neutral + 0.3, np.full(6, -0.2), np.full(6, 0.2),
    )  # fmt: skip
    return avatar.eval().requires_grad_(False)


def test_looked_into_and_exported_but_not_with_the_model_in_it(
    avatar: Avatar, tmp_path: Path
) -> None:
    found = listen(avatar)
    jaw, expression = found.tokens.index("jaw"), found.tokens.index("expression000")
    assert float(found.position[:, [jaw, expression]].min()) > 0
    assert export_ply(tmp_path / "a.ply", avatar, avatar.neutral_code, torch.eye(4)) > 100
    scene = AvatarScene(avatar, "cpu", 48)
    assert (scene.picture(scene.neutral_code, (0, 0, 0), scene.front) < 255).any()
    pytest.importorskip("onnxscript")
    with pytest.raises(InputError, match="may not be passed on"):
        export_onnx(tmp_path / "a.onnx", avatar)


def jaw_open(head: FlameHeadModel) -> torch.Tensor:
    arkit = torch.zeros(1, 52)
    arkit[0, ARKIT_INDEX["jawOpen"]] = 1.0
    return head.arkit_to_code(arkit)[0]


def test_the_neutral_code_says_nothing_to_the_network(avatar: Avatar) -> None:
    pose = facing_pose()
    assert avatar.fusion.num_tokens == 105 + 3
    assert (avatar.tokens(avatar.neutral_code, pose, pose).abs() < 1e-6).all()
    neutral = avatar.posed_vertices(avatar.neutral_code, pose, pose)
    opened = avatar.posed_vertices(jaw_open(avatar.head), pose, pose)
    assert (neutral - opened).norm(dim=1).max() > 0.01


def test_fast_path_and_rigid_motion(avatar: Avatar) -> None:
    pose, code = facing_pose(), jaw_open(avatar.head)
    plain = avatar.gaussians(code, pose, pose)
    fast = PreparedAvatar(avatar, torch.float32).gaussians(code, pose, pose)
    torch.testing.assert_close(fast.means, plain.means, atol=1e-5, rtol=1e-4)
    near = facing_pose(0.4)
    moved = avatar.gaussians(code, near, near).means
    shift = (near[:3, 3] - pose[:3, 3]).expand_as(moved)
    torch.testing.assert_close(moved, plain.means + shift, atol=2e-5, rtol=0)


def test_its_file_does_not_carry_the_model(avatar: Avatar, tmp_path: Path) -> None:
    path = tmp_path / "egg.cag"
    save_avatar(path, avatar)
    with safe_open(path, "pt") as handle:
        names = set(handle.keys())
    assert not names & (set(avatar.head.tensor_shapes) - {"vertices"})
    assert "rest" in names
    loaded = load_avatar(path)
    pose, code = facing_pose(), jaw_open(avatar.head)
    assert torch.equal(
        loaded.gaussians(code, pose, pose).means, avatar.gaussians(code, pose, pose).means
    )
    save_avatar(path, loaded)  # and again, from what was loaded
    assert torch.equal(load_avatar(path).rest, avatar.rest)


def test_without_the_model_the_file_says_how_to_get_it(
    avatar: Avatar, folder: Path, tmp_path: Path
) -> None:
    path = tmp_path / "egg.cag"
    save_avatar(path, avatar)
    (folder / "egg.safetensors").rename(folder / "else.safetensors")
    with pytest.raises(InputError, match=r"egg\.cag: .*'egg'.*import-flame") as error:
        load_avatar(path)
    assert str(folder) in str(error.value)
    assert "\n" not in str(error.value)


def test_another_version_of_the_model_is_refused(
    avatar: Avatar, folder: Path, tmp_path: Path
) -> None:
    path = tmp_path / "egg.cag"
    save_avatar(path, avatar)
    model = load_head_model("egg")
    changed = model.expression_basis.clone()
    changed[3, 5, 1] += 1e-3
    save_head_model(folder / "egg.safetensors", replace(model, expression_basis=changed))
    with pytest.raises(InputError, match=r"egg\.cag: made with another version of head model"):
        load_avatar(path)


def test_it_is_driven_by_arkit_as_far_as_that_goes(avatar: Avatar) -> None:
    animator = Animator(avatar, "cpu")
    arkit = np.zeros(52)
    code = animator.code_of_arkit(arkit)
    np.testing.assert_allclose(code, avatar.neutral_code.numpy(), atol=1e-6)
    arkit[ARKIT_INDEX["jawOpen"]] = 1.0
    still, opened = (animator.render(c) for c in (code, animator.code_of_arkit(arkit)))
    assert (still != opened).mean() > 0.02
    with pytest.raises(InputError, match=r"arkit: shape \[3\]"):
        animator.code_of_arkit(np.zeros(3))
    # Far outside the range of training the code is held near it, and near the neutral code.
    wild = avatar.neutral_code.numpy() + 5
    held = retarget_code(wild, avatar.record, None, avatar.neutral_code.numpy())
    assert np.abs(held - avatar.neutral_code.numpy()).max() <= 0.3 + 0.15 + 1e-6


def test_it_is_driven_relative_to_the_drivers_quiet_face(avatar: Avatar) -> None:
    animator = Animator(avatar, "cpu")
    layout = animator.layout
    neutral = layout.neutral
    random = np.random.default_rng(0)
    clip = np.tile(neutral, (60, 1))
    clip[:, :5] += 0.1  # the driver's own face, always there
    loud = np.arange(60) % 3 > 0
    clip[loud, :20] += random.normal(scale=0.3, size=(40, 20))
    driver = measure_driver(clip, layout)
    np.testing.assert_allclose(driver.rest[:5], neutral[:5] + 0.1, atol=0.02)
    shown = animator.transfer(clip[0], driver)
    np.testing.assert_allclose(shown, neutral, atol=0.03)
    moved = clip[0].copy()
    moved[7] += 0.2
    assert animator.transfer(moved, driver)[7] == pytest.approx(0.2, abs=0.03)
    assert np.isfinite(animator.transfer(clip[1] + 9, driver)).all()
    assert (layout.gaze.sum(), layout.one_sided.sum()) == (12, 2)
