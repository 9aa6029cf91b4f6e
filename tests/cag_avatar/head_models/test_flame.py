from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from cag_avatar.geometry import matrix_to_rotation_6d
from cag_avatar.head_models import ARKIT_INDEX, REGIONS, FlameHeadModel
from cag_avatar.head_models.flame import MAX_JAW_ANGLE
from cag_avatar.head_models.flame_file import load_flame
from tests.cag_avatar.head_models.flame_files import OFFSET, flame_arrays, write_flame_pickle

IDENTITY = torch.eye(4)[None]


@pytest.fixture(scope="module")
def arrays() -> dict:
    return flame_arrays()


@pytest.fixture(scope="module")
def flame(arrays: dict, tmp_path_factory: pytest.TempPathFactory) -> FlameHeadModel:
    path = tmp_path_factory.mktemp("flame") / "generic_model.pkl"
    return load_flame(write_flame_pickle(path, arrays))


def double(model: FlameHeadModel) -> FlameHeadModel:
    floats = {
        name: getattr(model, name).double()
        for name in model.tensor_shapes
        if name not in model.index_bounds
    }
    return replace(model, **floats)


def flame_twin(arrays, shape, expression, pose, eyelids, translation):
    """FLAME by its definition, in numpy: axis-angle pose [5, 3] of root, neck, jaw and eyes."""
    v = arrays["v_template"] + arrays["shapedirs"] @ np.concatenate([shape, expression])
    joints = arrays["J_regressor"] @ v
    turns = Rotation.from_rotvec(pose).as_matrix()
    feature = (turns[1:] - np.eye(3)).ravel()
    v = v + arrays["posedirs"] @ feature
    world = []
    for joint, parent in enumerate([-1, 0, 1, 1, 1]):
        local = np.eye(4)
        local[:3, :3] = turns[joint]
        local[:3, 3] = joints[joint] - (joints[parent] if parent >= 0 else 0)
        world.append(local if parent < 0 else world[parent] @ local)
    result = np.zeros_like(v)
    for joint, matrix in enumerate(world):
        moved = (v - joints[joint]) @ matrix[:3, :3].T + matrix[:3, 3]
        result += arrays["weights"][:, [joint]] * moved
    head = world[1][:3, :3]  # eyelids are added to the head before it turns
    lids = eyelids[0] * arrays["l_eyelid"] + eyelids[1] * arrays["r_eyelid"]
    return result + lids @ head.T + translation


def random_code(model: FlameHeadModel, frames: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    code = model.neutral_code.repeat(frames, 1)
    code[:, :-20] = torch.randn(frames, model.num_expression - 20, generator=generator).to(code)
    code[:, -20:-2] += 0.2 * torch.randn(frames, 18, generator=generator).to(code)
    code[:, -2:] = torch.rand(frames, 2, generator=generator).to(code)
    return code


def test_poses_as_flame_does(arrays: dict, flame: FlameHeadModel) -> None:
    """Everything at once against the plain twin: shape, expression, five joints, translation."""
    model = double(flame)
    rng = np.random.default_rng(1)
    shape, expression = rng.normal(size=300), rng.normal(size=100)
    pose = rng.normal(0, 0.35, (5, 3))
    turns = torch.from_numpy(Rotation.from_rotvec(pose).as_matrix())
    translation = rng.normal(0, 0.3, 3)
    code = torch.cat([
        torch.from_numpy(expression), matrix_to_rotation_6d(turns[2:]).flatten(), torch.zeros(2)
    ])[None]  # fmt: skip
    rest = model.rest_vertices(torch.from_numpy(shape))
    head, torso = model.poses(
        rest, code, turns[:1], turns[1:2], torch.from_numpy(translation)[None]
    )
    posed = model.posed_vertices(rest, code, head, torso)[0].numpy()
    expected = flame_twin(arrays, shape, expression, pose, (0, 0), translation)
    # The model keeps its numbers as float32.
    assert np.abs(posed - expected).max() < 2e-6
    still = flame_twin(arrays, shape, expression, 0 * pose, (0, 0), translation)
    assert np.abs(still - expected).max() > 0.02


def test_eyelids_move_with_the_head(arrays: dict, flame: FlameHeadModel) -> None:
    code = flame.neutral_code[None].clone()
    code[0, -2:] = torch.tensor([1.0, 0.3])
    posed = flame.posed_vertices(flame.vertices, code, IDENTITY, IDENTITY)[0].numpy()
    posed = posed + flame.origin.numpy()
    zero = np.zeros(3)
    expected = flame_twin(arrays, np.zeros(300), np.zeros(100), np.zeros((5, 3)), (1.0, 0.3), zero)
    assert np.abs(posed - expected).max() < 1e-6


def test_the_neutral_code_leaves_the_rest_head(flame: FlameHeadModel) -> None:
    neutral = flame.neutral_code[None]
    assert flame.num_expression == 120
    assert (flame.code_low <= flame.neutral_code).all()
    assert (flame.neutral_code <= flame.code_high).all()
    posed = flame.posed_vertices(flame.vertices, neutral, IDENTITY, IDENTITY)[0]
    torch.testing.assert_close(posed, flame.vertices, atol=1e-6, rtol=0)


def test_rotations_are_one_token_each(flame: FlameHeadModel) -> None:
    tokens = flame.code_tokens
    assert len(tokens) == 120
    assert len(set(tokens)) == 100 + 3 + 2
    assert tokens[100:106] == ("jaw",) * 6
    assert tokens[106:112] == ("eyeLeft",) * 6


def test_canonical_space(flame: FlameHeadModel) -> None:
    left, right = flame.eye_centres(flame.vertices)
    torch.testing.assert_close(left + right, torch.zeros(3), atol=1e-6, rtol=0)
    assert left[0] > 0.02
    np.testing.assert_allclose(flame.origin.numpy(), OFFSET + np.array([0, 0, 0.028]), atol=1e-6)


def test_joints_follow_the_person(flame: FlameHeadModel, arrays: dict) -> None:
    """Pivots come from the rest shape: another identity opens its jaw about another point."""
    identity = 3 * torch.randn(300, generator=torch.Generator().manual_seed(0))
    rest = flame.rest_vertices(identity)
    joints = flame.joints(rest, flame.neutral_code[None])[0].numpy() + flame.origin.numpy()
    shaped = arrays["v_template"] + arrays["shapedirs"][..., :300] @ identity.numpy()
    np.testing.assert_allclose(joints, arrays["J_regressor"] @ shaped, atol=1e-5)


@pytest.mark.parametrize(("name", "axis", "sign"), [
    ("eyeLookOutLeft", 0, 1), ("eyeLookInLeft", 0, -1), ("eyeLookUpLeft", 1, 1),
    ("eyeLookDownLeft", 1, -1), ("eyeLookInRight", 0, 1), ("eyeLookDownRight", 1, -1),
])  # fmt: skip
def test_gaze_of_arkit(flame: FlameHeadModel, name: str, axis: int, sign: int) -> None:
    arkit = torch.zeros(1, 52)
    arkit[0, ARKIT_INDEX[name]] = 1.0
    model = replace(flame, pose_basis=torch.zeros_like(flame.pose_basis))
    code = model.arkit_to_code(arkit)
    moved = model.posed_vertices(flame.vertices, code, IDENTITY, IDENTITY)[0] - flame.vertices
    index = flame.eye_vertices["LR".index(name[-5 if name.endswith("Right") else -4])]
    front = index[flame.vertices[index, 2].argmax()]
    assert sign * float(moved[front, axis]) > 0.002
    other = torch.ones(len(moved), dtype=torch.bool)
    other[index] = False
    assert moved[other].abs().max() < 1e-6


def test_jaw_and_lids_of_arkit(flame: FlameHeadModel) -> None:
    arkit = torch.zeros(2, 52)
    arkit[0, ARKIT_INDEX["jawOpen"]] = 0.5
    arkit[1, ARKIT_INDEX["eyeBlinkRight"]] = 0.7
    code = flame.arkit_to_code(arkit)
    turn = flame.rotations(code)[0, 0].double().numpy()
    vector = Rotation.from_matrix(turn).as_rotvec()
    np.testing.assert_allclose(vector, [0.5 * MAX_JAW_ANGLE, 0, 0], atol=1e-6)
    chin = flame.skinning[:, 2] > 0.6
    model = replace(flame, pose_basis=torch.zeros_like(flame.pose_basis))
    moved = model.posed_vertices(flame.vertices, code, *[IDENTITY.expand(2, 4, 4)] * 2)
    assert (moved[0] - flame.vertices)[chin, 1].mean() < -0.005
    assert code[1, -2:].tolist() == pytest.approx([0, 0.7])
    assert (code[:, :100] == 0).all()


def test_local_points_are_surface_points(flame: FlameHeadModel) -> None:
    model = double(flame)
    faces = torch.arange(0, len(model.faces), 13)
    weights = torch.rand(len(faces), 3, generator=torch.Generator().manual_seed(0)).double()
    weights /= weights.sum(1, keepdim=True)
    code = random_code(model, 3)
    rest = model.rest_vertices(
        torch.randn(300, generator=torch.Generator().manual_seed(4)).double()
    )
    points, jacobian = model.local_points(rest, code, faces, weights)
    still = torch.eye(4).double().expand(3, 4, 4)
    posed = model.posed_vertices(rest, code, still, still)[:, model.faces[faces]]
    torch.testing.assert_close(points, (posed * weights[..., None]).sum(2), atol=1e-9, rtol=0)
    assert jacobian.shape == (3, 120, len(faces), 3)
    step = 1e-6
    for index in (0, 57, 99, *range(100, 120)):
        change = torch.zeros(120).double()
        change[index] = step
        high, _ = model.local_points(rest, code + change, faces, weights)
        low, _ = model.local_points(rest, code - change, faces, weights)
        numeric = (high - low) / (2 * step)
        torch.testing.assert_close(jacobian[:, index], numeric, atol=1e-8, rtol=1e-6)
        assert numeric.abs().max() > 1e-4, index
    _, plain = super(FlameHeadModel, model).local_points(rest, code[:1], faces[:4], weights[:4])
    torch.testing.assert_close(jacobian[:1, :, :4], plain, atol=1e-8, rtol=1e-6)


def test_regions(flame: FlameHeadModel) -> None:
    has = {name for name in REGIONS if len(flame.region_faces(name))}
    assert {"face_skin", "lips", "eye_left", "eye_right", "scalp", "neck"} <= has
    assert not has & {"teeth_upper", "teeth_lower", "tongue", "mouth_cavity"}
    for side, name in enumerate(("eye_left", "eye_right")):
        assert set(flame.region_vertices(name).tolist()) == set(flame.eye_vertices[side].tolist())
    lips = flame.vertices[flame.region_vertices("lips")]
    middle = lips.mean(0)
    assert abs(float(middle[0])) < 0.01
    assert -0.08 < middle[1] < -0.045  # where the made-up jaw begins
    assert middle[2] > 0
    scalp = flame.vertices[flame.region_vertices("scalp")]
    assert scalp[:, 1].mean() > 0.0


def test_a_code_in_canonical_torch_is_differentiable(flame: FlameHeadModel) -> None:
    code = random_code(flame, 1).requires_grad_(True)
    posed = flame.posed_vertices(flame.vertices, code, IDENTITY, IDENTITY)
    posed.square().sum().backward()
    assert code.grad is not None
    assert torch.isfinite(code.grad).all()
    assert (code.grad != 0).all()


def test_files_of_every_kind_give_the_same(
    arrays: dict, flame: FlameHeadModel, tmp_path: Path
) -> None:
    old = load_flame(write_flame_pickle(tmp_path / "old.pkl", arrays, old=True), "x")
    dense = arrays | {"J_regressor": arrays["J_regressor"].toarray()}
    np.savez(tmp_path / "plain.npz", **dense)
    np.savez(tmp_path / "sparse.npz", **arrays)  # numpy pickles the sparse matrix into it
    for model in (old, load_flame(tmp_path / "plain.npz"), load_flame(tmp_path / "sparse.npz")):
        for name in flame.tensor_shapes:
            assert torch.equal(getattr(model, name), getattr(flame, name)), name
    assert (old.name, flame.name) == ("x", "generic_model")
