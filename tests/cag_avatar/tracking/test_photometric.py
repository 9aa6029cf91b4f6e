"""The photometric pass on a painted head, drawn at 128 px, whose landmarks swim."""

from __future__ import annotations

import logging
import math
from collections import Counter
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from cag_avatar.camera import PinholeCamera
from cag_avatar.errors import InputError
from cag_avatar.geometry import rotation_vector_to_matrix
from cag_avatar.head_models import ARKIT_INDEX, HeadModel
from cag_avatar.rendering.mesh import interpolate, rasterize
from cag_avatar.tracking import fitting
from cag_avatar.tracking.appearance import (
    CHANNELS,
    FeaturePlanes,
    Template,
    face_points,
    feature_planes,
    sample_all,
)
from cag_avatar.tracking.clip_fit import ClipFit, _Observed
from cag_avatar.tracking.clip_prior import ClipPrior
from cag_avatar.tracking.code_prior import CodePrior
from cag_avatar.tracking.fit_config import FitConfig
from cag_avatar.tracking.fit_state import FitState
from cag_avatar.tracking.landmark_embedding import LandmarkEmbedding
from cag_avatar.tracking.normal_equations import Rows, apply_step
from cag_avatar.tracking.photometric import (
    PhotometricConfig,
    photometric_rows,
    refine_photometric,
)
from cag_avatar.tracking.surface_basis import ShapeSpace

FRAMES = 8
SIZE = 128
FOCAL = 330.0
CONFIG = PhotometricConfig(
    points=700, chunk=3, least_visible=100, effective=300.0, landmark_weight=0.03
)
MOVED = ("jawOpen", "browInnerUp", "mouthSmileLeft")
Images = list[NDArray[np.uint8]]


@dataclass(frozen=True)
class Clip:
    truth: FitState
    start: ClipFit
    """Every frame off by a rotation, a shift and a code, and its landmarks with it."""
    images: Images


def draw(head: HeadModel, state: FitState, frame: int) -> NDArray[np.uint8]:
    """Waves of paint 2 to 5 cm long, fixed to the skin."""
    camera = PinholeCamera(SIZE, SIZE, FOCAL, FOCAL, SIZE / 2, SIZE / 2)
    at = torch.tensor([frame])
    pose = state.at(at).head_pose()
    rest = head.vertices
    posed = head.posed_vertices(rest, state.code[at], pose, pose)[0]
    buffers = rasterize(posed.numpy(), head.faces.numpy(), camera, supersample=3)
    place = interpolate(buffers, rest.numpy())
    random = np.random.default_rng(5)
    wave = random.normal(size=(3, 14))
    wave *= 2 * math.pi / random.uniform(0.018, 0.05, 14) / np.linalg.norm(wave, axis=0)
    waves = np.sin(place @ wave + random.uniform(0, 6, 14))
    colour = 128 + 22 * waves @ random.normal(size=(14, 3)) / 2
    colour[buffers.face_index < 0] = 90
    colour = colour.reshape(SIZE, 3, SIZE, 3, 3).mean((1, 3))
    return np.clip(colour, 0, 255).astype(np.uint8)


def prior(codes: torch.Tensor) -> ClipPrior:
    """Believes the codes."""
    same = torch.ones(52)
    return CodePrior(codes, 0.3 * same, same, 0 * same, same)


@pytest.fixture(scope="module")
def clip(head: HeadModel, embedding: LandmarkEmbedding, shape_space: ShapeSpace) -> Clip:
    t = torch.arange(FRAMES) / FRAMES * 2 * math.pi
    facing = torch.diag(torch.tensor([1.0, -1.0, -1.0]))
    turn = torch.stack([0.12 * torch.sin(t), 0.2 * torch.cos(t), 0.05 * torch.sin(2 * t)], -1)
    code = torch.zeros(FRAMES, 52)
    for k, name in enumerate(MOVED):
        code[:, ARKIT_INDEX[name]] = 0.4 + 0.25 * torch.sin(t + 2 * k)
    shift = torch.stack([0.005 * torch.sin(t), 0.01 + 0 * t, 0.6 + 0.01 * torch.cos(t)], -1)
    truth = FitState(
        shape=torch.zeros(shape_space.size),
        focal=FOCAL,
        centre=(SIZE / 2, SIZE / 2),
        rotation=facing @ rotation_vector_to_matrix(turn),
        translation=shift,
        code=code,
    )
    sign = torch.tensor([1.0, -1.0, -1.0, 1.0]).repeat(2)[:, None]  # mean zero, also of each half
    wrong = code.clone()
    for k, name in enumerate(MOVED):
        wrong[:, ARKIT_INDEX[name]] += 0.12 * sign[:, 0] * (-1) ** k
    off = rotation_vector_to_matrix(sign * torch.tensor([[0.03, -0.025, 0.015]]))
    moved = shift + sign * torch.tensor([0.0015, -0.001, 0.004])
    state = replace(truth, rotation=off @ truth.rotation, translation=moved, code=wrong)
    points = shape_space.points(embedding.faces, embedding.barycentric)
    zero = torch.zeros(FRAMES, 478, 2)  # its unit is 1 pixel
    landmarks = fitting.landmark_residuals(state, points, zero)
    start = ClipFit(
        head, shape_space, state, (SIZE, SIZE), _Observed(landmarks, prior(wrong)), FitConfig()
    )
    return Clip(truth, start, [draw(head, truth, k) for k in range(FRAMES)])


def errors(clip: Clip, fit: ClipFit) -> tuple[float, float, float]:
    """Medians: degrees, millimetres across the picture, code."""
    turn = fit.state.rotation @ clip.truth.rotation.transpose(1, 2)
    cosine = (turn.diagonal(dim1=1, dim2=2).sum(-1) - 1) / 2
    shift = (fit.state.translation - clip.truth.translation)[:, :2]
    chosen = [ARKIT_INDEX[n] for n in MOVED]
    code = (fit.state.code - clip.truth.code)[:, chosen].abs()
    return (
        math.degrees(float(torch.arccos(cosine.clamp(-1, 1)).median())),
        1000 * float(shift.norm(dim=-1).median()),
        float(code.median()),
    )


@pytest.fixture(scope="module")
def refined(clip: Clip) -> ClipFit:
    return refine_photometric(clip.start, clip.images.__getitem__, CONFIG)


def test_recovers_poses_and_codes_that_landmarks_got_wrong(clip: Clip, refined: ClipFit) -> None:
    rotation, shift, code = errors(clip, clip.start)
    assert rotation > 2
    assert shift > 1.5
    assert code > 0.1
    rotation, shift, code = errors(clip, refined)
    assert rotation < 0.6
    assert shift < 0.5
    assert code < 0.05


def test_same_result_whatever_the_workers_and_input_unchanged(clip: Clip, refined: ClipFit) -> None:
    before = clip.start.state.rotation.clone()
    again = refine_photometric(clip.start, clip.images.__getitem__, replace(CONFIG, workers=1))
    assert torch.equal(again.state.rotation, refined.state.rotation)
    assert torch.equal(again.state.code, refined.state.code)
    assert torch.equal(clip.start.state.rotation, before)


def test_a_lamp_aside_that_moves_does_not_move_the_head(clip: Clip, refined: ClipFit) -> None:
    lit = []
    for k, image in enumerate(clip.images):
        ramp = np.linspace(0.7, 1.3, SIZE) if k % 2 else np.linspace(1.2, 0.8, SIZE)
        exposed = image * ramp[None, :, None] * (0.75 + 0.06 * k)
        lit.append(np.clip(exposed, 0, 255).astype(np.uint8))
    fit = refine_photometric(clip.start, lit.__getitem__, CONFIG)
    turn = fit.state.rotation @ refined.state.rotation.transpose(1, 2)
    cosine = ((turn.diagonal(dim1=1, dim2=2).sum(-1) - 1) / 2).clamp(-1, 1)
    assert math.degrees(float(torch.arccos(cosine).max())) < 0.5
    assert errors(clip, fit)[0] < 0.7


def test_pictures_without_texture_leave_the_fit_and_say_so(
    clip: Clip, caplog: pytest.LogCaptureFixture
) -> None:
    plain = np.full((SIZE, SIZE, 3), 120, np.uint8)
    with caplog.at_level(logging.WARNING):
        fit = refine_photometric(clip.start, lambda _: plain, CONFIG)
    assert torch.equal(fit.state.rotation, clip.start.state.rotation)
    assert torch.equal(fit.state.translation, clip.start.state.translation)
    assert torch.equal(fit.state.code, clip.start.state.code)
    assert "8 of 8 frames" in caplog.text


def test_a_frame_that_shows_too_little_keeps_its_fit(
    clip: Clip, caplog: pytest.LogCaptureFixture
) -> None:
    state = clip.start.state
    translation = state.translation.clone()
    translation[3, 0] += 0.4  # outside the picture
    start = ClipFit(
        clip.start.model, clip.start._space, replace(state, translation=translation),
        (SIZE, SIZE), clip.start._observed, clip.start._config,
    )  # fmt: skip
    with caplog.at_level(logging.WARNING):
        fit = refine_photometric(start, clip.images.__getitem__, CONFIG)
    assert torch.equal(fit.state.rotation[3], state.rotation[3])
    assert not torch.equal(fit.state.rotation[6], state.rotation[6])
    assert "1 of 8 frames" in caplog.text


def test_asks_for_few_pictures_and_reports_progress(clip: Clip) -> None:
    calls: Counter[int] = Counter()
    steps: list[None] = []

    def image(frame: int) -> NDArray[np.uint8]:
        calls[frame] += 1
        return clip.images[frame]

    config = replace(CONFIG, blurs=(0.05, 0.03), iterations=(1, 1), template_frames=4, workers=1)
    refine_photometric(clip.start, image, config, lambda: steps.append(None))
    assert len(steps) == 2 * FRAMES
    assert set(calls) == set(range(FRAMES))
    assert max(calls.values()) <= 4
    assert sum(calls.values()) == 2 * FRAMES + 2 * 4


def test_slopes_are_the_differences_of_the_samples(clip: Clip) -> None:
    planes = feature_planes(clip.images[0], (20.0, 10.0, 110.0, 120.0), 5.0)
    assert planes.shrink == 3
    pixels = torch.rand(1, 100, 2, generator=torch.Generator().manual_seed(0)) * 60 + 30
    _, slopes = sample_all([planes], pixels)
    for axis in (0, 1):
        step = torch.zeros(2)
        step[axis] = planes.shrink
        ahead, _ = sample_all([planes], pixels + step)
        behind, _ = sample_all([planes], pixels - step)
        expected = (ahead - behind) / (2 * planes.shrink)
        torch.testing.assert_close(slopes[..., axis], expected, atol=1e-5, rtol=1e-4)


def test_rows_have_the_derivatives_of_the_residuals(clip: Clip) -> None:
    """On features that are smooth enough for bilinear samples to be nearly exact."""
    state = clip.truth.at(torch.tensor([0, 5]))
    fit = clip.start
    faces, barycentric = face_points(fit.model, fit.rest, 60)
    points = fit._space.points(faces, barycentric)
    rest = points.rest(state.shape)
    y, x = np.mgrid[:SIZE, :SIZE] + 0.5
    a, b = (x + 0.3 * y) / 60, (y - 0.2 * x) / 50
    columns = [
        np.sin(a), np.cos(b), np.cos(a) / 60, 0.2 / 50 * np.sin(b), 0.3 / 60 * np.cos(a),
        -np.sin(b) / 50,
    ]  # fmt: skip
    planes = [FeaturePlanes(np.stack(columns, -1).astype(np.float32), (0, 0), 1)] * 2
    visible = torch.ones(2, 60, dtype=torch.bool)
    zero = torch.zeros(60, CHANNELS)
    template = Template(zero, zero + 1, torch.ones(60, dtype=torch.bool))

    def rows(s: FitState) -> Rows:
        return photometric_rows(s, points, rest, planes, visible, template, CONFIG)

    found = rows(state)
    # Samples outside the picture are held at its border: points near it are left out.
    local, _ = points.local(rest, state.code)
    camera = local @ state.rotation.transpose(1, 2) + state.translation[:, None]
    pixels = camera[..., :2] / camera[..., 2:] * FOCAL + SIZE / 2
    inside = ((pixels > 6) & (pixels < SIZE - 6)).all(-1).repeat_interleave(CHANNELS, dim=1)
    assert inside.float().mean() > 0.6
    for variable in (0, 1, 2, 3, 4, 5, *(6 + ARKIT_INDEX[n] for n in MOVED)):
        size = 0.02 if variable < 5 else 0.1
        step = torch.zeros(2, 58)
        step[:, variable] = size
        ahead, behind = (
            rows(apply_step(state, d, prior(state.code))).residual for d in (step, -step)
        )
        expected = (ahead - behind) / (2 * size)
        error = (found.by_frame[..., variable] - expected)[inside].norm()
        assert error < 0.02 * expected[inside].norm(), variable


def test_features_are_blind_to_gain_and_offset_but_not_to_place(clip: Clip) -> None:
    image = clip.images[0]
    box = (40.0, 30.0, 90.0, 100.0)
    pixels = torch.rand(1, 200, 2, generator=torch.Generator().manual_seed(0)) * 40 + 44
    dim = (image * 0.8 + 25).astype(np.uint8)
    here, _ = sample_all([feature_planes(image, box, 2.0)], pixels)
    there, _ = sample_all([feature_planes(dim, box, 2.0)], pixels)
    aside, _ = sample_all([feature_planes(image, box, 2.0)], pixels + 3)
    assert (here - there).abs().mean() < 0.06
    assert (here - aside).abs().mean() > 0.3


@pytest.mark.parametrize("blur", [1.0, 4.0, 6.0])
def test_shrunk_planes_keep_pixel_coordinates(blur: float) -> None:
    """A bump's greatest value lies where it was drawn, at any level and box."""
    y, x = np.mgrid[:SIZE, :SIZE] + 0.5
    bump = 60 + 150 * np.exp(-((x - 61.3) ** 2 + (y - 70.8) ** 2) / (2 * 6.0**2))
    image = np.repeat(bump[..., None], 3, 2).astype(np.uint8)
    planes = feature_planes(image, (33.0, 41.0, 90.0, 97.0), blur)
    grid = np.stack(np.meshgrid(np.arange(55, 68, 0.25), np.arange(64, 78, 0.25)), -1)
    grey = planes.sample(grid.reshape(-1, 2).astype(np.float32))[:, 0]
    top = grid.reshape(-1, 2)[grey > np.quantile(grey, 0.98)].mean(0)
    assert np.abs(top - (61.3, 70.8)).max() < 0.5


def test_template_ignores_frames_that_disagree() -> None:
    values = torch.full((10, 4, CHANNELS), 0.5)
    values[7:] = 5.0
    slopes = torch.ones(10, 4, CHANNELS, 2)
    slopes[:, 3] = 0
    visible = torch.ones(10, 4, dtype=torch.bool)
    visible[2:, 2] = False
    template = Template.build(values, slopes, visible, 0.03)
    torch.testing.assert_close(template.mean[0], torch.tensor([0.5, 0.5]), atol=0.1, rtol=0)
    assert template.usable.tolist() == [True, True, False, False]


@pytest.mark.parametrize(
    "change",
    [
        {"blurs": (0.05,)},
        {"blurs": (), "iterations": ()},
        {"blurs": (0.05, 0.0, 0.01)},
        {"points": 0},
        {"noise": -1.0},
        {"landmark_weight": float("nan")},
    ],
)
def test_rejects_settings_that_make_no_sense(change: dict[str, object]) -> None:
    with pytest.raises(InputError, match="photometric"):
        PhotometricConfig(**change)  # type: ignore[arg-type]
