"""The fit recovers a clip whose landmarks are projections of the head model itself."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import pytest
import torch

from cag_avatar.camera import PinholeCamera
from cag_avatar.geometry import rigid_transform, rotation_vector_to_matrix
from cag_avatar.head_models import ARKIT_INDEX, HeadModel
from cag_avatar.rendering.mesh import rasterize
from cag_avatar.tracking.clip_fit import ClipFit, Observations, _observe, fit_clip
from cag_avatar.tracking.fit_config import Correction, FitConfig
from cag_avatar.tracking.landmark_correction import load_landmark_correction
from cag_avatar.tracking.landmark_embedding import LandmarkEmbedding
from cag_avatar.tracking.silhouette import find_rim
from cag_avatar.tracking.surface_basis import ShapeSpace

FRAMES = 12
CAMERA = PinholeCamera(256, 256, 600.0, 600.0, 130.0, 120.0)
#: Near the clip's own distance.
CONFIG = FitConfig(distance=0.72)


@dataclass(frozen=True)
class Clip:
    code: torch.Tensor
    pose: torch.Tensor
    rest: torch.Tensor
    landmarks: torch.Tensor
    unit: torch.Tensor
    """Distance between the outer corners of the eyes, pixels, [T]."""


@pytest.fixture(scope="module")
def clip(head: HeadModel, shape_space: ShapeSpace, embedding: LandmarkEmbedding) -> Clip:
    """A person who turns, opens the mouth, smiles, blinks, lifts the brows and looks aside."""
    g = torch.Generator().manual_seed(0)
    shape = torch.zeros(shape_space.size)
    shape[: head.num_identity] = 0.6 * torch.randn(head.num_identity, generator=g)
    rest = head.rest_vertices(*shape_space.split(shape))
    t = torch.arange(FRAMES) / FRAMES * 2 * math.pi
    look = 0.7 * torch.sin(3 * t)
    values = {
        "jawOpen": 0.35 - 0.35 * torch.cos(t),
        "eyeBlink": torch.sin(t).clamp(min=0) * 0.9,
        "mouthSmile": torch.sin(2 * t).clamp(min=0) * 0.8,
        "browInnerUp": (-torch.sin(t)).clamp(min=0) * 0.8,
    }
    code = torch.zeros(FRAMES, 52)
    for name, value in values.items():
        for full in (name,) if name in ARKIT_INDEX else (f"{name}Left", f"{name}Right"):
            code[:, ARKIT_INDEX[full]] = value
    for name, value in (
        ("OutLeft", look),
        ("InRight", look),
        ("InLeft", -look),
        ("OutRight", -look),
    ):
        code[:, ARKIT_INDEX[f"eyeLook{name}"]] = value.clamp(min=0)
    facing = torch.diag(torch.tensor([1.0, -1.0, -1.0]))
    turn = torch.stack([0.2 * torch.sin(t), 0.35 * torch.cos(t), 0.1 * torch.sin(2 * t)], -1)
    shift = torch.stack([0.03 * torch.sin(t), 0.02 * torch.cos(t), 0.7 + 0.05 * torch.sin(t)], -1)
    pose = rigid_transform(facing @ rotation_vector_to_matrix(turn), shift)
    posed = head.posed_vertices(rest, code, pose, pose)
    landmarks = CAMERA.project(embedding.points(posed, head.faces))
    unit = (landmarks[:, 33] - landmarks[:, 263]).norm(dim=-1)
    return Clip(code, pose, rest, landmarks, unit)


@pytest.fixture(scope="module")
def fit(head: HeadModel, clip: Clip) -> ClipFit:
    """Scores understate the expressions; gaze is not in the prior at all."""
    with torch.no_grad():
        return fit_clip(
            head, Observations(clip.landmarks.numpy(), (0.7 * clip.code).numpy()),
            (CAMERA.width, CAMERA.height), (CAMERA.cx, CAMERA.cy), CONFIG,
        )  # fmt: skip


def test_reprojects_onto_the_landmarks(
    head: HeadModel, embedding: LandmarkEmbedding, clip: Clip, fit: ClipFit
) -> None:
    pose = fit.state.head_pose()
    posed = head.posed_vertices(fit.rest, fit.state.code, pose, pose)
    pixels = fit.camera.project(embedding.points(posed, head.faces))
    error = (pixels - clip.landmarks).norm(dim=-1) / clip.unit[:, None]
    assert error[:, :468].mean() < 0.004
    assert error[:, 468:].mean() < 0.02
    assert fit.landmark_rmse() < 0.004
    assert fit.camera.width == 256
    assert (fit.camera.cx, fit.camera.cy) == (CAMERA.cx, CAMERA.cy)


@pytest.mark.parametrize(
    "name", ["jawOpen", "eyeBlinkLeft", "mouthSmileLeft", "mouthSmileRight", "browInnerUp"]
)
def test_expressions_follow_the_truth(clip: Clip, fit: ClipFit, name: str) -> None:
    index = ARKIT_INDEX[name]
    truth, found = clip.code[:, index], fit.state.code[:, index]
    assert torch.corrcoef(torch.stack([truth, found]))[0, 1] > 0.98
    assert (truth - found).abs().mean() < 0.09


@pytest.mark.parametrize("name", ["InLeft", "OutLeft", "InRight", "OutRight"])
def test_gaze_comes_from_the_irises(clip: Clip, fit: ClipFit, name: str) -> None:
    index = ARKIT_INDEX[f"eyeLook{name}"]
    truth, found = clip.code[:, index], fit.state.code[:, index]
    assert torch.corrcoef(torch.stack([truth, found]))[0, 1] > 0.93


def test_irises_from_the_pictures_turn_the_eyes(
    head: HeadModel, embedding: LandmarkEmbedding, clip: Clip
) -> None:
    """Landmarks show eyes that look straight; what the pictures add tells where they look."""
    straight = clip.code.clone()
    straight[:, [i for name, i in ARKIT_INDEX.items() if name.startswith("eyeLook")]] = 0
    posed = head.posed_vertices(clip.rest, straight, clip.pose, clip.pose)
    landmarks = CAMERA.project(embedding.points(posed, head.faces))
    irises = (clip.landmarks - landmarks)[:, [468, 473]]
    seen = Observations(landmarks.numpy(), (0.7 * straight).numpy(), irises=irises.numpy())
    with torch.no_grad():
        fit = fit_clip(
            head, seen, (CAMERA.width, CAMERA.height), (CAMERA.cx, CAMERA.cy), CONFIG
        ).with_conjugate_gaze()
    for name in ("eyeLookInLeft", "eyeLookOutLeft", "eyeLookInRight", "eyeLookOutRight"):
        truth, found = clip.code[:, ARKIT_INDEX[name]], fit.state.code[:, ARKIT_INDEX[name]]
        assert torch.corrcoef(torch.stack([truth, found]))[0, 1] > 0.95
        assert (truth - found).abs().mean() < 0.1
    up, down = (fit.state.code[:, ARKIT_INDEX[f"eyeLook{way}Left"]] for way in ("Up", "Down"))
    assert (up * down == 0).all()


@pytest.mark.parametrize(
    ("correction", "pictures", "rigid"),
    [("auto", False, True), ("auto", True, False), ("rigid", True, True), ("full", False, False)],
)
def test_all_of_the_errors_is_taken_off_where_pictures_were_read(
    head: HeadModel, clip: Clip, correction: Correction, pictures: bool, rigid: bool
) -> None:
    rng = np.random.default_rng(0)
    landmarks = np.zeros((FRAMES, 478, 3), np.float32)
    landmarks[..., :2] = clip.landmarks.numpy()
    colors = rng.uniform(60, 120, (FRAMES, 468, 3)).astype(np.float32)
    looks = rng.normal(0, 1, (FRAMES, 256)).astype(np.float32) if pictures else None
    scores = (0.7 * clip.code).numpy()
    config = FitConfig(correction=correction)
    seen = _observe(head, Observations(landmarks, scores, colors, looks), config)
    network = load_landmark_correction("anny", pictures)
    assert network is not None
    expected = network.correct(landmarks, scores, colors, rigid=rigid, looks=looks)
    other = network.correct(landmarks, scores, colors, rigid=not rigid, looks=looks)
    np.testing.assert_allclose(seen.landmarks.numpy(), expected.landmarks, atol=1e-4)
    assert np.abs(expected.landmarks - other.landmarks).max() > 0.05
    np.testing.assert_allclose(seen.prior.mean.numpy(), expected.codes, atol=1e-6)


def test_codes_stay_in_bounds_and_unused_ones_near_zero(clip: Clip, fit: ClipFit) -> None:
    code = fit.state.code
    assert code.min() >= 0
    assert code.max() <= 1
    unused = (clip.code == 0).all(0)
    assert code[:, unused].mean() < 0.06


def test_pose_is_recovered_at_the_distance_that_is_assumed(clip: Clip, fit: ClipFit) -> None:
    relative = fit.state.rotation @ clip.pose[:, :3, :3].transpose(1, 2)
    cosine = 0.5 * (relative.diagonal(dim1=1, dim2=2).sum(1) - 1)
    assert torch.rad2deg(torch.acos(cosine.clamp(max=1.0))).max() < 2.0
    # Focal length and distance trade off: their ratio, the size in the picture, is sure.
    size = fit.state.focal / fit.state.translation[:, 2] / (CAMERA.fx / clip.pose[:, 2, 3])
    assert (size - 1).abs().max() < 0.05
    assert float(fit.state.translation[:, 2].median()) == pytest.approx(CONFIG.distance, rel=1e-3)


def test_a_known_focal_length_stays_and_the_distance_is_found(head: HeadModel, clip: Clip) -> None:
    seen = Observations(clip.landmarks.numpy(), (0.7 * clip.code).numpy())
    with torch.no_grad():
        fit = fit_clip(
            head, seen, (CAMERA.width, CAMERA.height), (CAMERA.cx, CAMERA.cy),
            FitConfig(focal_length=CAMERA.fx),
        )  # fmt: skip
    assert fit.camera.fx == CAMERA.fx
    ratio = fit.state.translation[:, 2] / clip.pose[:, 2, 3]
    assert float((ratio - 1).abs().max()) < 0.05


def test_shape_comes_nearer_to_the_person(head: HeadModel, clip: Clip, fit: ClipFit) -> None:
    skin = head.region_vertices("face_skin")

    def error(rest: torch.Tensor) -> torch.Tensor:
        """Millimetres, up to a motion and a scale that the camera cannot tell."""
        a, b = rest[skin].double(), clip.rest[skin].double()
        a, b = a - a.mean(0), b - b.mean(0)
        u, s, vt = torch.linalg.svd(a.T @ b)
        return (a @ (u @ vt) * (s.sum() / a.square().sum()) - b).norm(dim=-1).mean() * 1000

    assert error(fit.rest) < 0.6 * error(head.vertices)


def test_labels_show_the_fitted_mesh(head: HeadModel, fit: ClipFit) -> None:
    labels = fit.labels(0)
    buffers = fit.buffers(0)
    assert labels.shape == (256, 256)
    assert ((labels == -1) == (buffers.face_index == -1)).all()
    row, column = (int(x) for x in fit._observed.landmarks[0, 1].flip(0))
    assert labels[row, column] == 0  # the tip of the nose is skin


def test_a_wider_matte_widens_the_scalp_and_keeps_the_face(
    head: HeadModel, embedding: LandmarkEmbedding, clip: Clip, fit: ClipFit
) -> None:
    """Hair: the person's own head, its scalp a centimetre and a half thicker, gives the matte."""
    scalp = head.region_vertices("scalp")
    centre = torch.tensor([0.0, 0.02, -0.08])
    hairy = clip.rest.clone()
    hairy[scalp] += 0.015 * torch.nn.functional.normalize(hairy[scalp] - centre, dim=-1)
    frames = [0, 3, 6, 9]
    rims = {}
    for t in frames:
        at = slice(t, t + 1)
        posed = head.posed_vertices(hairy, clip.code[at], clip.pose[at], clip.pose[at])[0]
        buffers = rasterize(posed.numpy(), head.faces.numpy(), CAMERA)
        alpha = (255 * (buffers.face_index >= 0)).astype("uint8")
        rims[t] = find_rim(head, fit.rest.numpy(), fit.buffers(t), alpha, 110.0)
        assert len(rims[t].faces) > 20
    with torch.no_grad():
        wide = fit.with_rims(rims)
    direction = torch.nn.functional.normalize(fit.rest[scalp] - centre, dim=-1)
    grown = ((wide.rest - fit.rest)[scalp] * direction).sum(-1)
    top = fit.rest[scalp, 1] > 0.06
    assert 0.005 < float(grown[top].mean()) < 0.025
    assert wide.landmark_rmse() < 0.012
