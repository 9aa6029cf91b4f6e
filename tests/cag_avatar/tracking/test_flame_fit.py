"""A head model with joints and an unbounded code is fitted as Anny is."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from cag_avatar.camera import PinholeCamera
from cag_avatar.geometry import matrix_to_rotation_6d, rigid_transform, rotation_vector_to_matrix
from cag_avatar.head_models import ARKIT_INDEX
from cag_avatar.head_models.flame import MAX_JAW_ANGLE, FlameHeadModel
from cag_avatar.tracking.clip_fit import ClipFit, Observations, fit_clip
from cag_avatar.tracking.clip_prior import clip_prior, model_prior
from cag_avatar.tracking.code_prior import code_prior
from cag_avatar.tracking.fit_config import FitConfig
from cag_avatar.tracking.fit_state import FitState
from cag_avatar.tracking.landmark_embedding import load_landmark_embedding
from cag_avatar.tracking.normal_equations import Rows, apply_step, landmark_rows
from cag_avatar.tracking.surface_basis import PosedSurfacePoints, shape_space
from tests.cag_avatar.head_models.flame_files import face_flame_model

FRAMES = 10
CAMERA = PinholeCamera(256, 256, 600.0, 600.0, 130.0, 120.0)
CONFIG = FitConfig(distance=0.72)


@dataclass(frozen=True)
class Clip:
    code: torch.Tensor
    pose: torch.Tensor
    arkit: torch.Tensor
    landmarks: torch.Tensor
    unit: torch.Tensor


@pytest.fixture(scope="module")
def flame(tmp_path_factory: pytest.TempPathFactory) -> FlameHeadModel:
    return face_flame_model(tmp_path_factory.mktemp("flame"), "face-flame")


@pytest.fixture(scope="module")
def clip(flame: FlameHeadModel) -> Clip:
    """A person who turns, opens the mouth, smiles, blinks and looks aside."""
    t = torch.arange(FRAMES) / FRAMES * 2 * math.pi
    arkit = torch.zeros(FRAMES, 52)
    arkit[:, ARKIT_INDEX["jawOpen"]] = 0.35 - 0.35 * torch.cos(t)
    blink = torch.sin(t).clamp(min=0) * 0.9
    look = 0.7 * torch.sin(3 * t)
    for side in ("Left", "Right"):
        arkit[:, ARKIT_INDEX[f"eyeBlink{side}"]] = blink
    for name, value in (
        ("OutLeft", look), ("InRight", look), ("InLeft", -look), ("OutRight", -look),
    ):  # fmt: skip
        arkit[:, ARKIT_INDEX[f"eyeLook{name}"]] = value.clamp(min=0)
    code = flame.arkit_to_code(arkit)
    # A smile is two of the expression components, which no score names.
    for side in ("Left", "Right"):
        code[:, ARKIT_INDEX[f"mouthSmile{side}"]] = torch.sin(2 * t).clamp(min=0) * 0.8
    identity = torch.zeros(flame.num_identity)
    identity[:20] = 0.5 * torch.randn(20, generator=torch.Generator().manual_seed(0))
    facing = torch.diag(torch.tensor([1.0, -1.0, -1.0]))
    turn = torch.stack([0.2 * torch.sin(t), 0.35 * torch.cos(t), 0.1 * torch.sin(2 * t)], -1)
    shift = torch.stack([0.03 * torch.sin(t), 0.02 * torch.cos(t), 0.7 + 0.05 * torch.sin(t)], -1)
    pose = rigid_transform(facing @ rotation_vector_to_matrix(turn), shift)
    posed = flame.posed_vertices(flame.rest_vertices(identity), code, pose, pose)
    landmarks = CAMERA.project(load_landmark_embedding(flame).points(posed, flame.faces))
    unit = (landmarks[:, 33] - landmarks[:, 263]).norm(dim=-1)
    return Clip(code, pose, arkit, landmarks, unit)


@pytest.fixture(scope="module")
def fit(flame: FlameHeadModel, clip: Clip) -> ClipFit:
    with torch.no_grad():
        return fit_clip(
            flame, Observations(clip.landmarks.numpy(), (0.7 * clip.arkit).numpy()),
            (CAMERA.width, CAMERA.height), (CAMERA.cx, CAMERA.cy), CONFIG,
        )  # fmt: skip


def test_landmarks_are_met(fit: ClipFit) -> None:
    assert fit.landmark_rmse() < 0.006


def test_pose_and_jaw_are_found(flame: FlameHeadModel, fit: ClipFit, clip: Clip) -> None:
    found = fit.state.head_pose()[:, :3, :3]
    between = found.transpose(1, 2) @ clip.pose[:, :3, :3]
    trace = between.diagonal(dim1=1, dim2=2).sum(1)
    angle = torch.rad2deg(torch.arccos(((trace - 1) / 2).clamp(-1, 1)))
    # A turn that is the same in all frames is the shape's: which way a head faces is a convention.
    assert angle.median() < 2.0
    jaw = flame.rotations(fit.state.code)[:, 0]
    opening = torch.atan2(jaw[:, 2, 1], jaw[:, 2, 2]) / MAX_JAW_ANGLE
    truth = clip.arkit[:, ARKIT_INDEX["jawOpen"]]
    assert torch.corrcoef(torch.stack([opening, truth]))[0, 1] > 0.97
    assert (opening - truth).abs().max() < 0.12


def test_lids_stay_in_their_bounds_and_expressions_do_not(fit: ClipFit, clip: Clip) -> None:
    lids = fit.state.code[:, -2:]
    assert lids.min() >= 0
    assert lids.max() <= 1
    for side in (0, 1):
        assert torch.corrcoef(torch.stack([lids[:, side], clip.code[:, -2 + side]]))[0, 1] > 0.95
    assert fit.state.code[:, :-20].min() < -0.01


def test_equations_have_the_derivatives_of_their_residuals(
    flame: FlameHeadModel, clip: Clip
) -> None:
    embedding = load_landmark_embedding(flame)
    points = shape_space(flame).points(embedding.faces, embedding.barycentric)
    assert isinstance(points, PosedSurfacePoints)
    state = FitState(
        shape=torch.zeros(shape_space(flame).size), focal=600.0, centre=(130.0, 120.0),
        rotation=clip.pose[:2, :3, :3], translation=clip.pose[:2, :3, 3], code=clip.code[:2],
    )  # fmt: skip
    rest = points.rest(state.shape)
    weights = torch.ones(478)
    arkit = clip_prior(code_prior(clip.arkit[:2].numpy(), CONFIG))
    prior = model_prior(flame, arkit, CONFIG)

    def rows(s: FitState) -> Rows:
        return landmark_rows(s, points, rest, clip.landmarks[:2], weights, CONFIG)

    at = rows(state)
    lid = flame.num_expression - 1
    for variable, size in ((0, 0.005), (5, 0.02), (6, 0.1), (6 + 101, 0.02), (6 + 107, 0.02),
                           (6 + lid, 0.05)):  # fmt: skip
        step = torch.zeros(2, 6 + flame.num_expression)
        step[:, variable] = size
        inside = apply_step(state, step, prior)  # a lid that is open cannot open further
        expected = (rows(inside).residual - at.residual) / size
        found = at.by_frame[..., variable]
        assert (found - expected).norm() < 0.05 * expected.norm(), variable


def test_the_rotations_that_are_fitted_are_rotations(flame: FlameHeadModel, fit: ClipFit) -> None:
    """Six numbers stay near the orthonormal rows that they stand for."""
    six = fit.state.code[:, -20:-2].unflatten(1, (3, 6))
    again = matrix_to_rotation_6d(flame.rotations(fit.state.code))
    assert (six - again).abs().max() < 0.1


def test_landmarks_of_the_model_are_needed(tmp_path: Path) -> None:
    from cag_avatar.errors import InputError

    bare = face_flame_model(tmp_path, "bare-flame")
    (tmp_path / "bare-flame_landmarks.json").unlink()
    with pytest.raises(InputError, match="tie-landmarks"):
        load_landmark_embedding(bare)
