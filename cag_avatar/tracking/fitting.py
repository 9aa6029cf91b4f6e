"""Fit a head model to landmarks and silhouettes of a clip: shared shape, and pose and expression
code of every frame.

Damped Gauss-Newton with analytic Jacobians. All frames are linearised together; the variables of
each frame are eliminated (Schur complement) when the shared ones are solved, as in bundle
adjustment (Triggs et al., 2000). Residuals are in units of the inter-ocular distance, robustified
by iteratively re-weighted least squares with the Geman-McClure weight.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from cag_avatar.tracking.clip_prior import ClipPrior
from cag_avatar.tracking.face_landmarker import FACE_LANDMARKS
from cag_avatar.tracking.fit_config import FitConfig
from cag_avatar.tracking.fit_state import FitState, Silhouette
from cag_avatar.tracking.normal_equations import (
    apply_step,
    eye_distance,
    frame_normal,
    landmark_rows,
    mean_of_neighbours,
    silhouette_rows,
    solve_bounded,
)
from cag_avatar.tracking.surface_basis import SurfacePoints

__all__ = [
    "at_distance",
    "fit_frames",
    "fit_shared",
    "initial_state",
    "landmark_residuals",
]

_CHUNK = 64


def initial_state(
    points: SurfacePoints,
    landmarks: Tensor,
    centre: tuple[float, float],
    config: FitConfig,
) -> FitState:
    """Start: mean shape, neutral code, pose by scaled orthography; see FitConfig.distance.

    Args:
        points: the landmarks' surface points.
        landmarks: detections [T, 478, 2] in pixels.
        centre: principal point in pixels.
        config: gives distance or focal length.
    """
    model = points.mean[:FACE_LANDMARKS]
    model_mean = model.mean(0)
    centred = model - model_mean
    image = landmarks[:, :FACE_LANDMARKS]
    image_mean = image.mean(1)
    # Least squares for the 2 x 3 scaled projection, then the nearest rotation.
    pseudo = torch.linalg.pinv(centred)  # [3, N]
    affine = torch.einsum("cn,tnk->tkc", pseudo, image - image_mean[:, None])
    u, s, vt = torch.linalg.svd(affine, full_matrices=False)
    rows = u @ vt
    rotation = torch.stack(
        [rows[:, 0], rows[:, 1], torch.linalg.cross(rows[:, 0], rows[:, 1])], dim=1
    )
    scale = s.mean(1)  # pixels per metre
    focal = config.focal_length or config.distance * float(scale.median())
    depth = focal / scale
    xy = (image_mean - image.new_tensor(centre)) / focal * depth[:, None]
    at = torch.cat([xy, depth[:, None]], 1)
    translation = at - (rotation @ model_mean[:, None])[..., 0]
    code = points.neutral.to(landmarks).repeat(len(landmarks), 1)
    shape = torch.zeros(points.shape.shape[0])
    return FitState(shape, focal, centre, rotation, translation, code)


def fit_shared(
    state: FitState,
    points: SurfacePoints,
    landmarks: Tensor,
    weights: Tensor,
    prior: ClipPrior,
    config: FitConfig,
    *,
    iterations: int,
    silhouette: Silhouette | None = None,
) -> FitState:
    """Solve shape, poses and codes of a spread of frames together; the focal length stays.

    Args:
        state: start, of all T frames.
        points: surface points of the landmarks.
        landmarks: [T, 478, 2] pixels.
        weights: inverse variances [478].
        prior: of the codes of all T frames.
        config: weights.
        iterations: Gauss-Newton steps.
        silhouette: optional rim points of all T frames.

    Returns:
        The state of all T frames, poses and codes of the other frames as they came.
    """
    total = len(landmarks)
    count = min(config.shared_frames, total)
    chosen = torch.linspace(0, total - 1, count).round().long().unique()
    part = state.at(chosen)
    rim = silhouette.at(chosen) if silhouette is not None else None
    for _ in range(iterations):
        part = _shared_step(part, points, landmarks[chosen], weights, prior.at(chosen), config, rim)
    rotation, translation, code = (
        state.rotation.clone(), state.translation.clone(), state.code.clone()
    )  # fmt: skip
    rotation[chosen], translation[chosen], code[chosen] = (
        part.rotation, part.translation, part.code
    )  # fmt: skip
    return replace(part, rotation=rotation, translation=translation, code=code)


def fit_frames(
    state: FitState,
    points: SurfacePoints,
    landmarks: Tensor,
    weights: Tensor,
    prior: ClipPrior,
    config: FitConfig,
    *,
    iterations: int,
    silhouette: Silhouette | None = None,
) -> FitState:
    """Solve pose and code of every frame with shape and focal length fixed.

    Frames are coupled to the mean of their neighbours from the step before. Arguments as in
    :func:`fit_shared`.
    """
    temporal = len(landmarks) > 2
    for _ in range(iterations):
        solved = []
        for start in range(0, len(landmarks), _CHUNK):
            frames = torch.arange(start, min(start + _CHUNK, len(landmarks)))
            neighbours = mean_of_neighbours(state, frames) if temporal else None
            rim = silhouette.at(frames) if silhouette is not None else None
            solved.append(
                _frame_step(
                    state.at(frames),
                    points,
                    landmarks[frames],
                    weights,
                    prior.at(frames),
                    config,
                    rim,
                    neighbours,
                )
            )
        state = replace(
            state,
            rotation=torch.cat([s.rotation for s in solved]),
            translation=torch.cat([s.translation for s in solved]),
            code=torch.cat([s.code for s in solved]),
        )
    return state


def at_distance(state: FitState, config: FitConfig) -> FitState:
    """Move all heads so that their median distance is that of the config, and the focal length
    with it: sizes in the picture stay. With a known focal length nothing moves."""
    if config.focal_length is not None:
        return state
    ratio = config.distance / float(state.translation[:, 2].median())
    translation = state.translation.clone()
    translation[:, 2] *= ratio
    return replace(state, focal=state.focal * ratio, translation=translation)


def landmark_residuals(state: FitState, points: SurfacePoints, landmarks: Tensor) -> Tensor:
    """Reprojection errors [T, 478, 2] in inter-ocular distances."""
    local, _ = points.local(points.rest(state.shape), state.code)
    camera = local @ state.rotation.transpose(1, 2) + state.translation[:, None]
    pixels = camera[..., :2] / camera[..., 2:] * state.focal + camera.new_tensor(state.centre)
    return (pixels - landmarks) / eye_distance(landmarks)[:, None, None]


def _frame_step(
    state: FitState,
    points: SurfacePoints,
    landmarks: Tensor,
    weights: Tensor,
    prior: ClipPrior,
    config: FitConfig,
    rim: Silhouette | None,
    neighbours: FitState | None,
) -> FitState:
    rows = [landmark_rows(state, points, points.rest(state.shape), landmarks, weights, config)]
    if rim is not None:
        rows.append(silhouette_rows(state, rim, eye_distance(landmarks), config))
    matrix, right = frame_normal(rows, state, prior, neighbours, config)
    return apply_step(state, solve_bounded(matrix, right, state.code, prior), prior)


def _shared_step(
    state: FitState,
    points: SurfacePoints,
    landmarks: Tensor,
    weights: Tensor,
    prior: ClipPrior,
    config: FitConfig,
    rim: Silhouette | None,
) -> FitState:
    size = len(state.shape)
    shared = torch.zeros(size, size)
    right = torch.zeros(size)
    eliminated = []
    rest = points.rest(state.shape)
    # A landmark's basis is the same in all frames: its equations are summed over the frames in
    # the space of its three coordinates, and meet the basis once.
    basis = points.shape.flatten(1)  # [S, N * 3]
    by_point = torch.zeros(points.shape.shape[1], 3, 3)
    right_by_point = torch.zeros(points.shape.shape[1], 3)
    for start in range(0, len(landmarks), 8):  # the outlines' shape Jacobian is large
        frames = torch.arange(start, min(start + 8, len(landmarks)))
        part = state.at(frames)
        local = prior.at(frames)
        row = landmark_rows(part, points, rest, landmarks[frames], weights, config)
        rows = [row]
        weighted = row.project * row.weight.unflatten(1, (-1, 2))[..., None]  # [t, N, 2, 3]
        by_point += torch.einsum("tnij,tnik->njk", weighted, row.project)
        right_by_point -= torch.einsum("tnij,tni->nj", weighted, row.residual.unflatten(1, (-1, 2)))
        own = row.by_frame.unflatten(1, (-1, 2))[:, :, :, None]  # [t, N, 2, 1, 6 + E]
        mixed = weighted[:, :, 0, :, None] * own[:, :, 0]
        mixed.addcmul_(weighted[:, :, 1, :, None], own[:, :, 1])
        cross = (basis @ mixed.flatten(1, 2)).transpose(1, 2)
        if rim is not None:
            edge = rim.at(frames)
            row = silhouette_rows(part, edge, eye_distance(landmarks[frames]), config)
            rows.append(row)
            by_shared = torch.einsum("tkij,tskj->tkis", row.project, edge.shape).flatten(1, 2)
            weighted = by_shared * row.weight[..., None]
            flat = weighted.flatten(0, 1)
            shared += flat.T @ by_shared.flatten(0, 1)
            right -= flat.T @ row.residual.flatten()
            cross = cross + row.by_frame.transpose(1, 2) @ weighted
        matrix, frame_right = frame_normal(rows, part, local, None, config)
        solved = torch.linalg.solve(matrix, torch.cat([cross, frame_right[..., None]], -1))
        flat = cross.flatten(0, 1)
        shared -= flat.T @ solved[..., :-1].flatten(0, 1)
        right -= flat.T @ solved[..., -1].flatten()
        eliminated.append((matrix, frame_right, cross))
    shared += torch.einsum("snj,njk->snk", points.shape, by_point).flatten(1) @ basis.T
    right += basis @ right_by_point.flatten()
    # Unit-variance prior on the shape; the frames measure it many times, with correlated errors.
    shared /= len(landmarks) ** 0.5
    right /= len(landmarks) ** 0.5
    shared += torch.eye(size)
    right -= state.shape
    step = torch.linalg.solve(shared, right)
    code = state.code
    frame_steps = []
    for index, (matrix, frame_right, cross) in enumerate(eliminated):
        own = code[index * 8 : index * 8 + 8]
        frame_steps.append(solve_bounded(matrix, frame_right - cross @ step, own, prior))
    moved = apply_step(state, torch.cat(frame_steps), prior)
    return replace(moved, shape=state.shape + step)
