"""The equations of a fit: what landmarks, outlines and priors say about the variables of a frame.

A frame's variables are its rotation (rotation vector applied on the left), its translation in
decimetres and its code: 6 + E. Residuals are in units of the distance between the eyes.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from cag_avatar.geometry import rotation_vector_to_matrix
from cag_avatar.tracking.clip_prior import ClipPrior
from cag_avatar.tracking.face_landmarker import EYE_OUTER_CORNERS, FACE_CENTRE, FACE_LANDMARKS
from cag_avatar.tracking.fit_config import FitConfig
from cag_avatar.tracking.fit_state import FitState, Silhouette
from cag_avatar.tracking.surface_basis import SurfacePoints

__all__ = [
    "Rows",
    "apply_step",
    "eye_distance",
    "frame_normal",
    "geman_mcclure",
    "landmark_rows",
    "mean_of_neighbours",
    "project_with_jacobian",
    "silhouette_rows",
    "solve_bounded",
]


@dataclass(frozen=True)
class Rows:
    """Weighted linear equations: residual [T, R], by frame variables [T, R, 6 + E]."""

    residual: Tensor
    by_frame: Tensor
    weight: Tensor
    project: Tensor  # [T, N, 2 or 1, 3]: picture Jacobian times rotation, for the shared variables


def landmark_rows(
    state: FitState, points: SurfacePoints, rest: Tensor, landmarks: Tensor, weights: Tensor,
    config: FitConfig,
) -> Rows:  # fmt: skip
    """Equations that the model's landmarks project to the detected ones, [T, 478 * 2] rows.

    Args:
        state: of T frames.
        points: surface points of the landmarks.
        rest: the rest head (SurfacePoints.rest).
        landmarks: [T, 478, 2] pixels.
        weights: inverse variances [478].
        config: noise and robustness.
    """
    unit = eye_distance(landmarks)
    local, derivative = points.local(rest, state.code)
    rotated = local @ state.rotation.transpose(1, 2)
    camera = rotated + state.translation[:, None]
    pixels, jacobian = project_with_jacobian(state, camera, unit)
    residual = pixels - landmarks / unit[:, None, None]
    turned = jacobian @ state.rotation[:, None]  # [T, N, 2, 3]
    by_code = derivative.times(turned)
    # d(exp(w) p)/dw = -[p]x: the row of the Jacobian crossed with the point.
    by_rotation = torch.linalg.cross(rotated[:, :, None].expand_as(jacobian), jacobian)
    by_frame = torch.cat([by_rotation, jacobian * 0.1, by_code], -1)  # translation in decimetres
    # Landmarks on the far side of a turned head are guesses of the detector.
    facing = _facing(points, state.rotation)
    weight = weights * facing
    # Irises that were found in the pictures weigh more; the others' threshold stays.
    best = weights[:FACE_LANDMARKS].max()
    squared = residual.square().sum(-1) * weights / best / config.landmark_deviation**2
    weight = weight * geman_mcclure(squared, config.robust_scale)
    count = len(residual)
    return Rows(
        residual.reshape(count, -1),
        by_frame.reshape(count, -1, by_frame.shape[-1]),
        weight.repeat_interleave(2, dim=1),
        turned,
    )


def _facing(points: SurfacePoints, rotation: Tensor) -> Tensor:
    """How much each point faces the camera [T, N], from 0.05 (away) to 1."""
    behind = points.mean.new_tensor(FACE_CENTRE)
    normal = torch.nn.functional.normalize(points.mean - behind, dim=-1)
    towards = -(rotation @ normal.T)[:, 2]
    return ((towards + 0.1) / 0.5).clamp(0.05, 1.0)


def silhouette_rows(state: FitState, rim: Silhouette, unit: Tensor, config: FitConfig) -> Rows:
    """Equations that rim points lie on the picture's rim, along its normal, [T, K] rows.

    Args:
        state: of T frames.
        rim: points of the T frames.
        unit: pixels of residual 1, [T].
        config: noise and robustness.
    """
    rest = rim.mean
    if rim.shape.shape[1]:
        rest = rest + torch.einsum("s,tskc->tkc", state.shape, rim.shape)
    rotated = rest @ state.rotation.transpose(1, 2)
    pixels, jacobian = project_with_jacobian(state, rotated + state.translation[:, None], unit)
    row = torch.einsum("tkij,tki->tkj", jacobian, rim.normal)  # [T, K, 3]
    residual = ((pixels - rim.target / unit[:, None, None]) * rim.normal).sum(-1)
    by_rotation = torch.linalg.cross(rotated, row)
    by_code = row.new_zeros(*row.shape[:2], state.code.shape[1])
    by_frame = torch.cat([by_rotation, row * 0.1, by_code], -1)
    present = rim.weight.sum(1, keepdim=True).clamp(min=1.0)
    weight = rim.weight * config.effective_silhouette / present / config.silhouette_deviation**2
    weight = weight * geman_mcclure(
        (residual / config.silhouette_deviation) ** 2, config.robust_scale
    )
    project = torch.einsum("tkj,tjc->tkc", row, state.rotation)[:, :, None]
    return Rows(residual, by_frame, weight, project)


def frame_normal(
    rows: list[Rows],
    state: FitState,
    prior: ClipPrior,
    neighbours: FitState | None,
    config: FitConfig,
) -> tuple[Tensor, Tensor]:
    """Normal equations of the frame variables: matrix [T, 6 + E, 6 + E], right side [T, 6 + E].

    ``neighbours``: what the frames are held near to in time, see :func:`mean_of_neighbours`.
    """
    size = 6 + state.code.shape[1]
    matrix = state.code.new_zeros(len(state.code), size, size)
    right = state.code.new_zeros(len(state.code), size)
    for r in rows:
        weighted = r.by_frame * r.weight[..., None]
        matrix += weighted.transpose(1, 2) @ r.by_frame
        right -= (weighted.transpose(1, 2) @ r.residual[..., None])[..., 0]
    diagonal = torch.full((size,), 1e-3)
    diagonal[6:] += prior.deviation**-2
    right[:, 6:] += (prior.mean - state.code) * prior.deviation**-2
    if neighbours is not None:
        diagonal[6:] += prior.smooth**-2
        right[:, 6:] += (neighbours.code - state.code) * prior.smooth**-2
        turn = neighbours.rotation @ state.rotation.transpose(1, 2)
        vector = 0.5 * torch.stack(
            [turn[:, 2, 1] - turn[:, 1, 2], turn[:, 0, 2] - turn[:, 2, 0],
             turn[:, 1, 0] - turn[:, 0, 1]], -1,
        )  # fmt: skip
        diagonal[:3] += config.smooth_rotation**-2
        right[:, :3] += vector * config.smooth_rotation**-2
        stiffness = (config.smooth_translation * 10) ** -2  # the variable is in decimetres
        diagonal[3:6] += stiffness
        right[:, 3:6] += (neighbours.translation - state.translation) * 10 * stiffness
    matrix += torch.diag(diagonal)
    return matrix, right


def solve_bounded(matrix: Tensor, right: Tensor, code: Tensor, prior: ClipPrior) -> Tensor:
    """Solve with the code in its bounds: variables that leave are fixed at the bound, twice."""
    step = torch.linalg.solve(matrix, right)
    low = torch.full_like(right, -torch.inf)
    high = torch.full_like(right, torch.inf)
    low[:, 6:], high[:, 6:] = prior.low - code, prior.high - code
    fixed = torch.zeros_like(right, dtype=torch.bool)
    for _ in range(3):
        fixed = fixed | (step < low) | (step > high)
        if not fixed.any():
            return step
        held = torch.where(fixed, step.clamp(min=low, max=high), torch.zeros_like(step))
        free = (~fixed).to(matrix.dtype)
        reduced = matrix * free[:, :, None] * free[:, None, :] + torch.diag_embed(1 - free)
        moved = (right - (matrix @ held[..., None])[..., 0]) * free
        step = torch.linalg.solve(reduced, moved) + held
    return step.clamp(min=low, max=high)


def apply_step(state: FitState, step: Tensor, prior: ClipPrior) -> FitState:
    """Move the frames by a step [T, 6 + E]; codes stay in the prior's bounds."""
    rotation = rotation_vector_to_matrix(step[:, :3].clamp(-0.5, 0.5)) @ state.rotation
    u, _, vt = torch.linalg.svd(rotation)
    return replace(
        state,
        rotation=u @ vt,
        translation=state.translation + 0.1 * step[:, 3:6],
        code=(state.code + step[:, 6:]).clamp(min=prior.low, max=prior.high),
    )


def mean_of_neighbours(state: FitState, frames: Tensor) -> FitState:
    """The mean of the frame before and the frame after each of some frames (indices, int64)."""
    last = len(state.code) - 1
    before, after = (frames - 1).clamp(min=0), (frames + 1).clamp(max=last)
    mean = 0.5 * (state.rotation[before] + state.rotation[after])
    u, _, vt = torch.linalg.svd(mean)
    return replace(
        state,
        rotation=u @ vt,
        translation=0.5 * (state.translation[before] + state.translation[after]),
        code=0.5 * (state.code[before] + state.code[after]),
    )


def eye_distance(landmarks: Tensor) -> Tensor:
    """Distance between the outer corners of the eyes, pixels [T].

    At a strong yaw the distance shrinks; the height of the face then sets the scale.
    """
    a, b = landmarks[:, EYE_OUTER_CORNERS[0]], landmarks[:, EYE_OUTER_CORNERS[1]]
    height = (landmarks[:, 168] - landmarks[:, 164]).norm(dim=-1)  # between the eyes to the lip
    return torch.maximum((a - b).norm(dim=-1), 1.2 * height).clamp(min=1.0)


def project_with_jacobian(state: FitState, camera: Tensor, unit: Tensor) -> tuple[Tensor, Tensor]:
    """Pixels over unit [T, N, 2] and the Jacobian by camera-space position [T, N, 2, 3]."""
    x, y, z = camera.unbind(-1)
    inverse = 1.0 / z
    scale = state.focal / unit[:, None]
    zero = torch.zeros_like(z)
    rows = [
        torch.stack([inverse, zero, -x * inverse**2], -1),
        torch.stack([zero, inverse, -y * inverse**2], -1),
    ]
    centre = camera.new_tensor(state.centre) / unit[:, None, None]
    pixels = torch.stack([x, y], -1) * (inverse * scale)[..., None] + centre
    return pixels, torch.stack(rows, -2) * scale[..., None, None]


def geman_mcclure(squared: Tensor, scale: float) -> Tensor:
    """Weight of a squared residual: 1 at zero, 1/4 at ``scale``."""
    return 1.0 / (1.0 + squared / scale**2) ** 2
