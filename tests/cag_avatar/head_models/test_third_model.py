"""A model of another kind than those the package knows goes through everything, by its class alone.

Shaped like ICT-FaceKit: no joints, no eyeballs of its own, _L and _R in its names.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
import torch

from cag_avatar.avatar.animator import Animator
from cag_avatar.avatar.config import AvatarConfig
from cag_avatar.avatar.file import load_avatar, save_avatar
from cag_avatar.avatar.model import Avatar
from cag_avatar.avatar.record import CaptureRecord
from cag_avatar.camera import PinholeCamera
from cag_avatar.errors import InputError
from cag_avatar.geometry import rigid_transform, rotation_vector_to_matrix
from cag_avatar.head_models import ARKIT_INDEX, REGIONS, HeadModel
from cag_avatar.head_models.base import HEAD_MODEL_KINDS
from cag_avatar.head_models.storage import load_head_model_file, save_head_model
from tests.conftest import facing_pose

NAMES = ("browDown_L", "browDown_R", "browInnerUp_L", "browInnerUp_R", "eyeLookIn_L", "jawOpen",
         "mouthSmile_R", "wobble")  # fmt: skip


@pytest.fixture
def ict() -> Iterator[type[HeadModel]]:
    """The class; forgotten after the test."""

    @dataclass(frozen=True, eq=False, kw_only=True)
    class IctHead(HeadModel, kind="ict"):
        tensor_shapes: ClassVar[dict[str, tuple[str | int, ...]]] = {
            **HeadModel.tensor_shapes,
            "shapes": ("E", "V", 3),
        }
        shapes: torch.Tensor

        @property
        def joint_names(self):
            return ("head",)

        def express(self, rest, code):
            return rest + torch.einsum("be,evc->bvc", code, self.shapes)

        def joint_transforms(self, rest, code, head_pose, torso_pose):
            return head_pose[:, None]

    yield IctHead
    del HEAD_MODEL_KINDS["ict"]


def make(model_class: type[HeadModel], rows: int = 10, columns: int = 14) -> HeadModel:
    """A ball of 11 cm with random smooth blend shapes."""
    row, column = np.meshgrid(np.arange(rows + 1), np.arange(columns + 1), indexing="ij")
    polar, azimuth = (0.02 + 0.96 * row / rows) * np.pi, column / columns * 2 * np.pi
    points = np.stack(
        [np.sin(polar) * np.sin(azimuth), np.cos(polar), np.sin(polar) * np.cos(azimuth)], -1
    ).reshape(-1, 3)
    corner = (np.arange(rows)[:, None] * (columns + 1) + np.arange(columns)).flatten()
    a, b, c, d = corner, corner + columns + 1, corner + columns + 2, corner + 1
    faces = torch.tensor(np.concatenate([np.stack([a, b, c], 1), np.stack([a, c, d], 1)]))
    generator = torch.Generator().manual_seed(0)
    wave = torch.randn(len(NAMES), 3, 3, generator=generator)
    vertices = torch.tensor(0.11 * points, dtype=torch.float32)
    region = torch.full((len(faces),), REGIONS.index("face_skin"))
    region[: len(faces) // 5] = REGIONS.index("scalp")
    none = torch.zeros(0, dtype=torch.int64)
    return model_class(
        name="ict-face",
        expression_names=NAMES,
        vertices=vertices,
        faces=faces,
        uv=torch.tensor(np.stack([column / columns, 1 - row / rows], -1).reshape(-1, 2)).float(),
        face_uv=faces.clone(),
        identity_basis=0.01 * vertices.roll(1, 1)[None],
        skinning=torch.ones(len(vertices), 1),
        neck_pivot=torch.tensor([0.0, -0.1, -0.02]),
        eye_left=none,
        eye_right=none,
        face_region=region,
        vertex_region=torch.zeros(len(vertices), dtype=torch.int64),
        metadata={"licence": "MIT"},
        shapes=0.01 * torch.sin(30 * vertices @ wave),
    )


def avatar_of(head: HeadModel) -> Avatar:
    config = AvatarConfig(uv_resolution=20, density={}, width=16, depth=1)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        avatar = Avatar(config, head, head.rest_vertices(torch.tensor([0.7])))
        avatar.attributes.color_base.data.uniform_(-1.5, 1.5)
        avatar.attributes.opacity_logit.data.fill_(2.0)
        avatar.network.last.weight.data.normal_(std=0.3)
    pose = facing_pose().double().numpy()
    avatar.record = CaptureRecord(
        PinholeCamera(40, 40, 80.0, 80.0, 20.0, 20.0), pose, pose,
        np.zeros(len(NAMES)), np.ones(len(NAMES)), np.full(6, -0.2), np.full(6, 0.2),
    )  # fmt: skip
    return avatar.eval().requires_grad_(False)


def test_an_avatar_is_built_saved_loaded_and_rendered(ict: type[HeadModel], tmp_path: Path) -> None:
    avatar = avatar_of(make(ict))
    assert avatar.num_gaussians > 300
    assert avatar.fusion.num_tokens == len(NAMES) + 3
    save_avatar(tmp_path / "ict.cag", avatar)
    loaded = load_avatar(tmp_path / "ict.cag")
    assert type(loaded.head) is ict
    assert loaded.expression_names == NAMES
    code, pose = torch.rand(len(NAMES), generator=torch.Generator().manual_seed(1)), facing_pose()
    was, now = avatar.gaussians(code, pose, pose), loaded.gaussians(code, pose, pose)
    torch.testing.assert_close(now.means, was.means)
    animator = Animator.load(tmp_path / "ict.cag", "cpu")
    still, moved = animator.render(np.zeros(len(NAMES))), animator.render(code.numpy())
    assert np.ptp(still[15:25, 15:25].astype(int)) > 30
    assert (still != moved).mean() > 0.05
    torso = pose.clone()
    torso[0, 3] += 0.1  # without joints the torso moves nothing
    mesh = avatar.posed_vertices(code, pose, pose)
    torch.testing.assert_close(avatar.posed_vertices(code, pose, torso), mesh)


def test_without_its_class_the_file_says_so(ict: type[HeadModel], tmp_path: Path) -> None:
    avatar = avatar_of(make(ict))
    save_avatar(tmp_path / "ict.cag", avatar)
    save_head_model(tmp_path / "ict.safetensors", make(ict))
    del HEAD_MODEL_KINDS["ict"]
    try:
        with pytest.raises(InputError, match=r"ict.cag: field 'head_kind' is 'ict'.*flame"):
            load_avatar(tmp_path / "ict.cag")
        with pytest.raises(InputError, match=r"ict.safetensors: a head model of kind 'ict'"):
            load_head_model_file(tmp_path / "ict.safetensors")
    finally:
        HEAD_MODEL_KINDS["ict"] = ict


def test_its_own_file_comes_back(ict: type[HeadModel], tmp_path: Path) -> None:
    head = make(ict)
    save_head_model(tmp_path / "ict.safetensors", head)
    back = load_head_model_file(tmp_path / "ict.safetensors")
    assert (type(back), back.name, back.metadata) == (ict, head.name, head.metadata)
    for name in head.tensor_shapes:
        if name != "vertex_region":
            assert torch.equal(getattr(back, name), getattr(head, name)), name


def test_arkit_coefficients_reach_names_with_sides(ict: type[HeadModel]) -> None:
    head = make(ict)
    arkit = torch.rand(2, 52, generator=torch.Generator().manual_seed(2))
    code = head.arkit_to_code(arkit)
    sources = ("browDownLeft", "browDownRight", "browInnerUp", "browInnerUp", "eyeLookInLeft",
               "jawOpen", "mouthSmileRight")  # fmt: skip
    for index, source in enumerate(sources):
        assert torch.equal(code[:, index], arkit[:, ARKIT_INDEX[source]])
    assert (code[:, -1] == 0).all()  # "wobble" is nobody's


def test_surface_points_and_their_jacobian(ict: type[HeadModel]) -> None:
    head = make(ict)
    faces = torch.tensor([3, 50, 99])
    weights = torch.tensor([[0.2, 0.3, 0.5], [1.0, 0.0, 0.0], [0.4, 0.4, 0.2]])
    code = torch.rand(2, len(NAMES), generator=torch.Generator().manual_seed(3))
    points, jacobian = head.local_points(head.vertices, code, faces, weights)
    posed = head.express(head.vertices, code)[:, head.faces[faces]]
    torch.testing.assert_close(points, (posed * weights[..., None]).sum(2))
    exact = (head.shapes[:, head.faces[faces]] * weights[..., None]).sum(2)  # type: ignore[attr-defined]
    torch.testing.assert_close(jacobian, exact.expand(2, -1, -1, -1), atol=1e-6, rtol=1e-4)


def test_a_rigid_motion_is_all_that_poses_do(ict: type[HeadModel]) -> None:
    head = make(ict)
    turn = rotation_vector_to_matrix(torch.tensor([0.2, -0.4, 0.1]))
    pose = rigid_transform(turn, torch.tensor([0.0, 0.1, 0.6]))[None]
    code = torch.zeros(1, len(NAMES))
    posed = head.posed_vertices(head.vertices, code, pose, torch.eye(4)[None])[0]
    torch.testing.assert_close(posed, head.vertices @ turn.T + pose[0, :3, 3])
