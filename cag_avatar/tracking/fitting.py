"""Fit a head model to landmarks and silhouettes of a clip: shared shape, and pose and expression
code of every frame.

Damped Gauss-Newton with analytic Jacobians. All frames are linearised together; the variables of
each frame are eliminated (Schur complement) when the shared ones are solved, as in bundle
adjustment (Triggs et al., 2000). Residuals are in units of the inter-ocular distance, robustified
by iteratively re-weighted least squares with the Geman-McClure weight.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import NamedTuple

import torch
from torch import Tensor

from cag_avatar.errors import InputError
from cag_avatar.geometry import rigid_transform, rotation_vector_to_matrix
from cag_avatar.head_models.arkit import ARKIT_INDEX, ARKIT_NAMES
from cag_avatar.head_models.base import HeadModel
from cag_avatar.tracking.face_landmarker import EYE_OUTER_CORNERS, FACE_LANDMARKS
from cag_avatar.tracking.landmark_correction import Corrected
from cag_avatar.tracking.surface_basis import SurfacePoints

__all__ = [
    "CodePrior",
    "FitConfig",
    "FitState",
    "Silhouette",
    "at_distance",
    "code_prior",
    "corrected_prior",
    "fit_frames",
    "fit_shared",
    "initial_state",
    "landmark_residuals",
    "landmark_weights",
    "model_prior",
    "track_frame",
]

#: Face-oval landmarks slide over the cheek as the head turns: they say little.
_OVAL = (
    10, 338, 297, 332, 284, 251, 389, 356, 454, 323, 361, 288, 397, 365, 379, 378, 400, 377, 152,
    148, 176, 149, 150, 136, 172, 58, 132, 93, 234, 127, 162, 21, 54, 103, 67, 109,
)  # fmt: skip
_CHUNK = 64


@dataclass(frozen=True)
class FitConfig:
    """Weights of the fit. Deviations are priors: smaller is stiffer."""

    landmark_deviation: float = 0.012
    """Noise of a good landmark, in inter-ocular distances, added to its spread on the surface."""
    effective_landmarks: float = 300.0
    """Independent measurements that the 478 correlated landmarks count for."""
    robust_scale: float = 6.0
    """Deviations at which a landmark's weight falls to a quarter."""
    code_deviation: float = 0.25
    """Prior deviation of a coefficient from MediaPipe's score."""
    smooth_code: float = 0.15
    """Prior deviation of a coefficient from the mean of its neighbours in time (eyes: 5 times)."""
    smooth_rotation: float = 0.03
    """The same of the head rotation, radians."""
    smooth_translation: float = 0.01
    """The same of the head translation, metres."""
    correct_landmarks: bool = True
    """Correct the landmarker's known errors where a correction for the head model is at hand."""
    distance: float = 0.86
    """Distance of the head from the camera where the focal length is not known, metres; the median
    over the clip. A head alone does not tell it: focal length and distance trade off, and the
    landmarks' own vote is off by a quarter."""
    focal_length: float | None = None
    """Focal length in pixels of the picture that is fitted, where it is known."""
    silhouette_deviation: float = 0.02
    """Noise of a silhouette point along its normal, in inter-ocular distances."""
    effective_silhouette: float = 40.0
    """Independent measurements that the silhouette points of a frame count for."""
    shared_frames: int = 48
    """Frames, spread over the clip, that determine the shape."""

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if not isinstance(value, bool) and value is not None and not value > 0:
                raise InputError(f"fit: {name} = {value} must be positive")


@dataclass(frozen=True)
class FitState:
    """Shared shape and focal length, and every frame's pose and code."""

    shape: Tensor
    """Shape vector [S] (ShapeSpace)."""
    focal: float
    """Focal length, pixels."""
    centre: tuple[float, float]
    """Principal point, pixels."""
    rotation: Tensor
    """Head rotation, canonical to camera space, [T, 3, 3]."""
    translation: Tensor
    """Head translation, metres, [T, 3]."""
    code: Tensor
    """Expression codes, [T, E]."""

    def head_pose(self) -> Tensor:
        """Canonical to camera space, [T, 4, 4]."""
        return rigid_transform(self.rotation, self.translation)

    def at(self, frames: Tensor) -> FitState:
        """The state of some frames."""
        return replace(
            self,
            rotation=self.rotation[frames],
            translation=self.translation[frames],
            code=self.code[frames],
        )


@dataclass(frozen=True)
class Silhouette:
    """Points on the rim of the mesh that should lie on the rim of the picture's head."""

    mean: Tensor
    """Rest positions of the mean head, [T, K, 3]."""
    shape: Tensor
    """Shape basis at the points, [T, S, K, 3]; S = 0 when ``mean`` already is the person's."""
    normal: Tensor
    """Unit normal in the picture, [T, K, 2]."""
    target: Tensor
    """Where the picture's rim is, pixels, [T, K, 2]."""
    weight: Tensor
    """[T, K], zero where there is no point."""

    def at(self, frames: Tensor) -> Silhouette:
        """The points of some frames."""
        return Silhouette(*(getattr(self, f)[frames] for f in self.__dataclass_fields__))


class CodePrior(NamedTuple):
    """What is expected of the codes before the landmarks are looked at."""

    mean: Tensor
    """[T, E]."""
    deviation: Tensor
    """Standard deviation of a coefficient from its mean, [E]."""
    smooth: Tensor
    """Of a coefficient from the mean of its neighbours in time, [E]."""
    low: Tensor
    """Smallest coefficients, [E]; -inf where there is no bound."""
    high: Tensor
    """Largest coefficients, [E]; inf where there is no bound."""

    def at(self, frames: Tensor) -> CodePrior:
        """The prior of some frames."""
        return self._replace(mean=self.mean[frames])


@dataclass(frozen=True)
class _Priors:
    mean: Tensor  # [T, E] of the code
    deviation: Tensor  # [E]
    smooth: Tensor  # [E]
    low: Tensor  # [E]
    high: Tensor  # [E]
    config: FitConfig
    temporal: bool = field(default=True)


def landmark_weights(spread: Tensor, config: FitConfig) -> Tensor:
    """Inverse variance of each landmark [478], in (inter-ocular distances)^-2, deflated for
    correlation."""
    variance = spread**2 + config.landmark_deviation**2
    weight = 1.0 / variance
    weight[list(_OVAL)] *= 0.1
    return weight * config.effective_landmarks / len(weight)


def code_prior(scores: Tensor, config: FitConfig) -> CodePrior:
    """Prior from MediaPipe's scores [T, 52] alone.

    A score that never falls to zero in a clip is a bias of the face (frowning brows, narrow eyes),
    so its fifth percentile counts as neutral. Gaze is left to the irises.
    """
    floor = torch.quantile(scores, 0.05, dim=0) if len(scores) > 1 else scores.new_zeros(52)
    mean = ((scores - floor) / (1 - floor).clamp(min=0.2)).clamp(0, 1)
    deviation = torch.full((len(ARKIT_NAMES),), config.code_deviation)
    smooth = torch.full((len(ARKIT_NAMES),), config.smooth_code)
    for name, index in ARKIT_INDEX.items():
        if name.startswith("eye"):
            smooth[index] *= 5  # blinks and saccades are faster than a frame
        if name.startswith("eyeLook"):
            mean[:, index] = 0
            deviation[index] = 1.0
        if name in ("tongueOut", "cheekPuff", "jawForward"):  # hardly seen by landmarks
            deviation[index] = 0.05
    return CodePrior(mean, deviation, smooth, *_unit_interval(deviation))


def corrected_prior(corrected: Corrected, config: FitConfig) -> CodePrior:
    """Prior from the codes that a LandmarkCorrection predicts."""
    codes, deviation = (torch.from_numpy(x) for x in (corrected.codes, corrected.deviation))
    smooth = torch.full_like(deviation, config.smooth_code)
    smooth[[i for name, i in ARKIT_INDEX.items() if name.startswith("eye")]] *= 5
    return CodePrior(codes, deviation, smooth, *_unit_interval(deviation))


def model_prior(model: HeadModel, arkit: CodePrior, config: FitConfig) -> CodePrior:
    """Prior of a head model's own code from the prior of ARKit's 52 coefficients."""
    if model.expression_names == ARKIT_NAMES:
        return arkit
    deviation = model.code_deviation
    smooth = deviation * (config.smooth_code / config.code_deviation)
    smooth[[i for i, name in enumerate(model.expression_names) if name.startswith("eye")]] *= 5
    mean = model.arkit_to_code(arkit.mean)
    return CodePrior(mean, deviation, smooth, model.code_low, model.code_high)


def _unit_interval(like: Tensor) -> tuple[Tensor, Tensor]:
    return torch.zeros_like(like), torch.ones_like(like)


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
    prior: CodePrior,
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
    priors = _Priors(*prior.at(chosen), config, temporal=False)
    part = state.at(chosen)
    rim = silhouette.at(chosen) if silhouette is not None else None
    for _ in range(iterations):
        part = _shared_step(part, points, landmarks[chosen], weights, priors, rim)
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
    prior: CodePrior,
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
            priors = _Priors(*prior.at(frames), config, temporal)
            neighbours = _neighbours(state, frames) if temporal else None
            rim = silhouette.at(frames) if silhouette is not None else None
            solved.append(
                _frame_step(
                    state.at(frames), points, landmarks[frames], weights, priors, rim, neighbours
                )
            )
        state = replace(
            state,
            rotation=torch.cat([s.rotation for s in solved]),
            translation=torch.cat([s.translation for s in solved]),
            code=torch.cat([s.code for s in solved]),
        )
    return state


def track_frame(
    previous: FitState,
    points: SurfacePoints,
    landmarks: Tensor,
    weights: Tensor,
    prior: CodePrior,
    config: FitConfig,
    *,
    iterations: int = 2,
) -> FitState:
    """Solve the next frame of a live stream, starting from and held near the one before.

    Args:
        previous: state of one frame.
        points: surface points of the landmarks.
        landmarks: [1, 478, 2] pixels.
        weights: inverse variances [478].
        prior: of the code, mean [1, E].
        config: weights.
        iterations: Gauss-Newton steps.
    """
    state = previous
    for _ in range(iterations):
        priors = _Priors(*prior, config)
        state = _frame_step(state, points, landmarks, weights, priors, None, previous)
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
    return (pixels - landmarks) / _unit(landmarks)[:, None, None]


def _unit(landmarks: Tensor) -> Tensor:
    """Distance between the outer corners of the eyes, pixels [T].

    At a strong yaw the distance shrinks; the height of the face then sets the scale.
    """
    a, b = landmarks[:, EYE_OUTER_CORNERS[0]], landmarks[:, EYE_OUTER_CORNERS[1]]
    height = (landmarks[:, 168] - landmarks[:, 164]).norm(dim=-1)  # between the eyes to the lip
    return torch.maximum((a - b).norm(dim=-1), 1.2 * height).clamp(min=1.0)


def _project(state: FitState, camera: Tensor, unit: Tensor) -> tuple[Tensor, Tensor]:
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


def _robust(squared: Tensor, scale: float) -> Tensor:
    return 1.0 / (1.0 + squared / scale**2) ** 2


@dataclass(frozen=True)
class _Rows:
    """Weighted linear equations: residual [T, R], by frame variables [T, R, 6 + E]."""

    residual: Tensor
    by_frame: Tensor
    weight: Tensor
    project: Tensor  # [T, N, 2 or 1, 3]: picture Jacobian times rotation, for the shared variables


def _landmark_rows(
    state: FitState, points: SurfacePoints, rest: Tensor, landmarks: Tensor, weights: Tensor,
    config: FitConfig,
) -> _Rows:  # fmt: skip
    unit = _unit(landmarks)
    local, derivative = points.local(rest, state.code)
    rotated = local @ state.rotation.transpose(1, 2)
    camera = rotated + state.translation[:, None]
    pixels, jacobian = _project(state, camera, unit)
    residual = pixels - landmarks / unit[:, None, None]
    turned = jacobian @ state.rotation[:, None]  # [T, N, 2, 3]
    if len(derivative) == 1:
        by_code = torch.einsum("tnij,enj->tnie", turned, derivative[0])
    else:
        by_code = torch.einsum("tnij,tenj->tnie", turned, derivative)
    # d(exp(w) p)/dw = -[p]x: the row of the Jacobian crossed with the point.
    by_rotation = torch.linalg.cross(rotated[:, :, None].expand_as(jacobian), jacobian)
    by_frame = torch.cat([by_rotation, jacobian * 0.1, by_code], -1)  # translation in decimetres
    # Landmarks on the far side of a turned head are guesses of the detector.
    facing = _facing(points, state.rotation)
    weight = weights * facing
    squared = residual.square().sum(-1) * weights / weights.max() / config.landmark_deviation**2
    weight = weight * _robust(squared, config.robust_scale)
    count = len(residual)
    return _Rows(
        residual.reshape(count, -1),
        by_frame.reshape(count, -1, by_frame.shape[-1]),
        weight.repeat_interleave(2, dim=1),
        turned,
    )


def _facing(points: SurfacePoints, rotation: Tensor) -> Tensor:
    """How much each point faces the camera [T, N], from 0.05 (away) to 1."""
    # The face is nearly an ellipsoid: its normal is the position relative to a point behind it.
    behind = points.mean.new_tensor([0.0, -0.02, -0.09])
    normal = torch.nn.functional.normalize(points.mean - behind, dim=-1)
    towards = -(rotation @ normal.T)[:, 2]
    return ((towards + 0.1) / 0.5).clamp(0.05, 1.0)


def _silhouette_rows(state: FitState, rim: Silhouette, unit: Tensor, config: FitConfig) -> _Rows:
    rest = rim.mean
    if rim.shape.shape[1]:
        rest = rest + torch.einsum("s,tskc->tkc", state.shape, rim.shape)
    rotated = rest @ state.rotation.transpose(1, 2)
    pixels, jacobian = _project(state, rotated + state.translation[:, None], unit)
    row = torch.einsum("tkij,tki->tkj", jacobian, rim.normal)  # [T, K, 3]
    residual = ((pixels - rim.target / unit[:, None, None]) * rim.normal).sum(-1)
    by_rotation = torch.linalg.cross(rotated, row)
    by_code = row.new_zeros(*row.shape[:2], state.code.shape[1])
    by_frame = torch.cat([by_rotation, row * 0.1, by_code], -1)
    present = rim.weight.sum(1, keepdim=True).clamp(min=1.0)
    weight = rim.weight * config.effective_silhouette / present / config.silhouette_deviation**2
    weight = weight * _robust((residual / config.silhouette_deviation) ** 2, config.robust_scale)
    project = torch.einsum("tkj,tjc->tkc", row, state.rotation)[:, :, None]
    return _Rows(residual, by_frame, weight, project)


def _frame_normal(
    rows: list[_Rows], state: FitState, priors: _Priors, neighbours: FitState | None
) -> tuple[Tensor, Tensor]:
    """Normal equations of the frame variables: matrix [T, 6 + E, 6 + E], right side [T, 6 + E]."""
    size = 6 + state.code.shape[1]
    matrix = state.code.new_zeros(len(state.code), size, size)
    right = state.code.new_zeros(len(state.code), size)
    for r in rows:
        weighted = r.by_frame * r.weight[..., None]
        matrix += weighted.transpose(1, 2) @ r.by_frame
        right -= (weighted.transpose(1, 2) @ r.residual[..., None])[..., 0]
    diagonal = torch.full((size,), 1e-3)
    diagonal[6:] += priors.deviation**-2
    right[:, 6:] += (priors.mean - state.code) * priors.deviation**-2
    if neighbours is not None:
        config = priors.config
        diagonal[6:] += priors.smooth**-2
        right[:, 6:] += (neighbours.code - state.code) * priors.smooth**-2
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


def _solve_bounded(matrix: Tensor, right: Tensor, code: Tensor, priors: _Priors) -> Tensor:
    """Solve with the code in its bounds: variables that leave are fixed at the bound, twice."""
    step = torch.linalg.solve(matrix, right)
    low = torch.full_like(right, -torch.inf)
    high = torch.full_like(right, torch.inf)
    low[:, 6:], high[:, 6:] = priors.low - code, priors.high - code
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


def _apply(state: FitState, step: Tensor, priors: _Priors) -> FitState:
    rotation = rotation_vector_to_matrix(step[:, :3].clamp(-0.5, 0.5)) @ state.rotation
    u, _, vt = torch.linalg.svd(rotation)
    return replace(
        state,
        rotation=u @ vt,
        translation=state.translation + 0.1 * step[:, 3:6],
        code=(state.code + step[:, 6:]).clamp(min=priors.low, max=priors.high),
    )


def _neighbours(state: FitState, frames: Tensor) -> FitState:
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


def _frame_step(
    state: FitState,
    points: SurfacePoints,
    landmarks: Tensor,
    weights: Tensor,
    priors: _Priors,
    rim: Silhouette | None,
    neighbours: FitState | None,
) -> FitState:
    rows = [
        _landmark_rows(state, points, points.rest(state.shape), landmarks, weights, priors.config)
    ]
    if rim is not None:
        rows.append(_silhouette_rows(state, rim, _unit(landmarks), priors.config))
    matrix, right = _frame_normal(rows, state, priors, neighbours)
    return _apply(state, _solve_bounded(matrix, right, state.code, priors), priors)


def _shared_step(
    state: FitState,
    points: SurfacePoints,
    landmarks: Tensor,
    weights: Tensor,
    priors: _Priors,
    rim: Silhouette | None,
) -> FitState:
    size = len(state.shape)
    shared = torch.zeros(size, size)
    right = torch.zeros(size)
    eliminated = []
    rest = points.rest(state.shape)
    config = priors.config
    for start in range(0, len(landmarks), 8):  # the shape Jacobian is large: 2 MB a frame
        frames = torch.arange(start, min(start + 8, len(landmarks)))
        part = state.at(frames)
        local = replace(priors, mean=priors.mean[frames])
        rows = [_landmark_rows(part, points, rest, landmarks[frames], weights, config)]
        bases = [torch.einsum("tnij,snj->tnis", rows[0].project, points.shape).flatten(1, 2)]
        if rim is not None:
            edge = rim.at(frames)
            row = _silhouette_rows(part, edge, _unit(landmarks[frames]), config)
            rows.append(row)
            bases.append(torch.einsum("tkij,tskj->tkis", row.project, edge.shape).flatten(1, 2))
        matrix, frame_right = _frame_normal(rows, part, local, None)
        cross = torch.zeros(len(frames), 6 + state.code.shape[1], size)
        for r, by_shared in zip(rows, bases, strict=True):
            weighted = by_shared * r.weight[..., None]
            flat = weighted.flatten(0, 1)
            shared += flat.T @ by_shared.flatten(0, 1)
            right -= flat.T @ r.residual.flatten()
            cross += r.by_frame.transpose(1, 2) @ weighted
        solved = torch.linalg.solve(matrix, torch.cat([cross, frame_right[..., None]], -1))
        shared -= torch.einsum("tfs,tfr->sr", cross, solved[..., :-1])
        right -= torch.einsum("tfs,tf->s", cross, solved[..., -1])
        eliminated.append((matrix, frame_right, cross))
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
        frame_steps.append(_solve_bounded(matrix, frame_right - cross @ step, own, priors))
    moved = _apply(state, torch.cat(frame_steps), priors)
    return replace(moved, shape=state.shape + step)
