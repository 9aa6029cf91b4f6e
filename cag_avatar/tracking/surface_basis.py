"""A head at chosen surface points: how shape and expression move them. Smooth offsets widen the
identity."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from scipy.linalg import eigh
from scipy.spatial.distance import cdist
from torch import Tensor

from cag_avatar.geometry import rotation_vector_to_matrix
from cag_avatar.head_models.arkit import ARKIT_INDEX, ARKIT_NAMES
from cag_avatar.head_models.base import MAX_GAZE_PITCH, MAX_GAZE_YAW, REGIONS, HeadModel
from cag_avatar.head_models.linear import LinearHeadModel

__all__ = [
    "CodeJacobian",
    "PosedSurfacePoints",
    "ShapeSpace",
    "SurfacePoints",
    "eye_arms",
    "shape_space",
    "smooth_offset_modes",
]

#: Prior standard deviation (metres) and smoothness length (metres) of the offsets by region. The
#: scalp gets centimetres, because a head model has no hair; skin gets millimetres.
_OFFSET_PRIOR = {
    "scalp": (0.014, 0.035),
    "neck": (0.008, 0.035),
    "shoulders": (0.03, 0.08),
    "ears": (0.004, 0.025),
}
_SKIN_PRIOR = (0.0022, 0.014)
_MODES = 160
_CONTROL_POINTS = 700


def smooth_offset_modes(model: HeadModel, modes: int = _MODES) -> Tensor:
    """Smooth scalar fields on the mesh, [V, M] float32: principal modes of a Gaussian process.

    An offset field is ``modes @ u`` with u [M, 3] of unit prior variance, in metres. The kernel is
    Gibbs' non-stationary squared exponential (Gibbs, 1997) with the prior of each vertex's region.
    Eyeballs, teeth and tongue move as a whole, by the mean of the lids and of the lips: they keep
    the model's shape and stay behind the skin that covers them.
    """
    points = model.vertices.numpy().astype(np.float64)
    sigma = np.full(len(points), _SKIN_PRIOR[0])
    length = np.full(len(points), _SKIN_PRIOR[1])
    region = model.vertex_region.numpy()
    for name, (deviation, scale) in _OFFSET_PRIOR.items():
        chosen = region == REGIONS.index(name)
        sigma[chosen], length[chosen] = deviation, scale
    rigid = ("teeth_upper", "teeth_lower", "tongue", "eye_left", "eye_right")
    sigma[np.isin(region, [REGIONS.index(n) for n in rigid])] = 0.0
    sigma, length = _blend(points, sigma, length, model.faces.numpy())
    outside = np.flatnonzero(sigma > 0)
    control = outside[_farthest_points(points[outside], min(_CONTROL_POINTS, len(outside)))]
    kernel = _kernel(points[control], sigma[control], length[control])
    values, vectors = eigh(kernel + 1e-10 * np.eye(len(control)))
    order = np.argsort(values)[::-1][:modes]
    across = _kernel(points, sigma, length, points[control], sigma[control], length[control])
    # Nystroem extension of the eigenvectors, scaled to unit-variance coefficients.
    field = across @ vectors[:, order] / np.sqrt(values[order])
    for side, name in enumerate(("eye_left", "eye_right")):
        ball = model.eye_vertices[side].numpy()
        if not len(ball):
            continue
        centre = points[ball].mean(0)
        lids = (sigma > 0) & (np.linalg.norm(points - centre, axis=1) < 0.019)
        field[region == REGIONS.index(name)] = field[lids].mean(0)
    lips = field[region == REGIONS.index("lips")].mean(0)
    for name in ("teeth_upper", "teeth_lower", "tongue"):
        field[region == REGIONS.index(name)] = lips
    return torch.tensor(field, dtype=torch.float32)


def _blend(
    points: np.ndarray, sigma: np.ndarray, length: np.ndarray, faces: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Smooth the priors over neighbours, so that no step shows at a region's border."""
    edges = np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]])
    edges = np.concatenate([edges, edges[:, ::-1]])
    degree = np.bincount(edges[:, 0], minlength=len(points)).clip(1)
    fixed = sigma == 0
    for _ in range(6):
        for values in (sigma, length):
            total = np.bincount(edges[:, 0], weights=values[edges[:, 1]], minlength=len(points))
            values += 0.5 * (total / degree - values)
        sigma[fixed] = 0.0
    return sigma, length


def _kernel(
    a: np.ndarray,
    sa: np.ndarray,
    la: np.ndarray,
    b: np.ndarray | None = None,
    sb: np.ndarray | None = None,
    lb: np.ndarray | None = None,
) -> np.ndarray:
    if b is None or sb is None or lb is None:
        b, sb, lb = a, sa, la
    total = la[:, None] ** 2 + lb[None] ** 2
    ratio = (2 * la[:, None] * lb[None] / total) ** 1.5
    return sa[:, None] * sb[None] * ratio * np.exp(-cdist(a, b, "sqeuclidean") / total)


def _farthest_points(points: np.ndarray, count: int) -> np.ndarray:
    chosen = np.zeros(count, np.int64)
    distance = np.full(len(points), np.inf)
    for k in range(1, count):
        distance = np.minimum(distance, ((points - points[chosen[k - 1]]) ** 2).sum(1))
        chosen[k] = distance.argmax()
    return chosen


@dataclass(frozen=True)
class CodeJacobian:
    """Derivative of N surface points' positions by the code of T frames."""

    common: Tensor
    """[E, N, 3], where it is the same in all frames, else [T, E, N, 3]."""
    moving: tuple[tuple[Tensor, Tensor], ...] = ()
    """Points whose derivative is another in every frame: (indices [K], [T, E, K, 3]). They stand
    for what ``common`` says of them."""

    def times(self, rows: Tensor) -> Tensor:
        """Rows [T, N, C, 3] by position as rows [T, N, C, E] by code."""
        if self.common.ndim == 4:
            return torch.einsum("tnij,tenj->tnie", rows, self.common)
        out = torch.einsum("tnij,enj->tnie", rows, self.common)
        for index, own in self.moving:
            out[:, index] = torch.einsum("tnij,tenj->tnie", rows[:, index], own)
        return out

    def dense(self, frames: int) -> Tensor:
        """[T, E, N, 3] of T = ``frames``."""
        if self.common.ndim == 4:
            return self.common
        out = self.common.repeat(frames, 1, 1, 1)
        for index, own in self.moving:
            out[:, :, index] = own
        return out


@dataclass(frozen=True)
class SurfacePoints:
    """N surface points of a model that is linear in ARKit's coefficients.

    Position = mean + identity z + offsets u + expression c; points on eyeballs turn.
    """

    mean: Tensor
    """[N, 3] metres, canonical space."""
    shape: Tensor
    """Shape basis (identity, then smooth offsets), [S, N, 3]."""
    expression: Tensor
    """[E, N, 3]."""
    eye: Tensor
    """0 or 1 for points on the left or right eyeball, else -1, [N] int64."""
    eye_arm: Tensor
    """Of :func:`eye_arms`, [2, 3]."""

    @property
    def neutral(self) -> Tensor:
        """The code of the rest head, [E]."""
        return self.mean.new_zeros(len(self.expression))

    def rest(self, shape: Tensor) -> Tensor:
        """The rest head of shape coefficients [S], as :meth:`local` takes it; here the points'
        own positions [N, 3]."""
        return self.mean + torch.einsum("s,snc->nc", shape, self.shape)

    def local(self, rest: Tensor, code: Tensor) -> tuple[Tensor, CodeJacobian]:
        """Canonical positions [T, N, 3] of codes [T, E], and their derivative by the code."""
        local = rest + torch.einsum("te,enc->tnc", code, self.expression)
        on_eye = [torch.nonzero(self.eye == side).flatten() for side in (0, 1)]
        moving = []
        for side, index in enumerate(on_eye):
            if not len(index):
                continue
            suffix = ("Left", "Right")[side]
            centre = rest[index].mean(0) + self.eye_arm[side]
            look = {n: ARKIT_INDEX[f"eyeLook{n}{suffix}"] for n in ("In", "Out", "Up", "Down")}
            outward = 1.0 if side == 0 else -1.0
            yaw = outward * (code[:, look["Out"]] - code[:, look["In"]]) * MAX_GAZE_YAW
            pitch = (code[:, look["Down"]] - code[:, look["Up"]]) * MAX_GAZE_PITCH
            vector = torch.stack([pitch, yaw, torch.zeros_like(yaw)], -1)
            turned = (rest[index] - centre) @ rotation_vector_to_matrix(vector).transpose(1, 2)
            local[:, index] = centre + turned
            x, y, z = turned.unbind(-1)
            zero = torch.zeros_like(x)
            by_pitch = torch.stack([zero, -z, y], -1) * MAX_GAZE_PITCH
            by_yaw = torch.stack([z, zero, -x], -1) * (MAX_GAZE_YAW * outward)
            own = code.new_zeros(*code.shape, len(index), 3)
            own[:, look["Out"]], own[:, look["In"]] = by_yaw, -by_yaw
            own[:, look["Down"]], own[:, look["Up"]] = by_pitch, -by_pitch
            moving.append((index, own))
        return local, CodeJacobian(self.expression, tuple(moving))


@dataclass(frozen=True)
class PosedSurfacePoints(SurfacePoints):
    """N surface points of any head model, posed by the model itself (joints, correctives)."""

    space: ShapeSpace
    """Of the model."""
    faces: Tensor
    """Face of each point, [N] int64."""
    barycentric: Tensor
    """Weights of that face's corners, [N, 3]."""

    @property
    def neutral(self) -> Tensor:
        """The code of the rest head, [E]."""
        return self.space.model.neutral_code

    def rest(self, shape: Tensor) -> Tensor:
        """The whole rest head [V, 3]: joints depend on it."""
        return self.space.model.rest_vertices(*self.space.split(shape))

    def local(self, rest: Tensor, code: Tensor) -> tuple[Tensor, CodeJacobian]:
        """As in SurfacePoints, from the whole rest head [V, 3]."""
        local, own = self.space.model.local_points(rest, code, self.faces, self.barycentric)
        return local, CodeJacobian(own[0] if len(own) == 1 else own)


@lru_cache(maxsize=2)
def shape_space(model: HeadModel) -> ShapeSpace:
    """The ShapeSpace of a head model, made once: its modes take seconds."""
    return ShapeSpace(model)


def eye_arms(model: HeadModel, points: Tensor, eye: Tensor) -> Tensor:
    """From the middle of each eyeball's points to the centre about which it turns, on the mean
    head, metres, [2, 3] (left, right); 0 where there are no points.

    Args:
        model: the head model.
        points: on its mean head, canonical space, metres, [N, 3].
        eye: 0 or 1 for points on the left or right eyeball, else -1, [N].
    """
    arms = points.new_zeros(2, 3)
    for side, centre in enumerate(model.eye_centres(model.vertices)):
        if (eye == side).any():
            arms[side] = centre - points[eye == side].mean(0)
    return arms


class ShapeSpace:
    """Identity basis and smooth offsets of a head model as one unit-variance shape vector.

    A shape vector [S] holds I identity coefficients, then M x 3 offset coefficients.
    """

    def __init__(self, model: HeadModel, modes: int = _MODES) -> None:
        self.model = model
        self.offset_modes = smooth_offset_modes(model, modes)
        self.num_identity = model.num_identity
        self.size = model.num_identity + 3 * self.offset_modes.shape[1]

    def split(self, shape: Tensor) -> tuple[Tensor, Tensor]:
        """Shape vector [S] -> identity [I] and per-vertex offsets [V, 3] in metres."""
        identity = shape[: self.num_identity]
        u = shape[self.num_identity :].reshape(-1, 3)
        return identity, self.offset_modes @ u

    def points(self, faces: Tensor, barycentric: Tensor) -> SurfacePoints:
        """Bases at points given by face index [N] and barycentric weights [N, 3]."""
        corners = self.model.faces[faces]  # [N, 3]

        def at(field: Tensor) -> Tensor:
            return (field[..., corners, :] * barycentric[..., None]).sum(-2)

        identity = at(self.model.identity_basis)
        field = at(self.offset_modes[None])[0]  # [N, M]
        offsets = torch.einsum("nm,ac->manc", field, torch.eye(3)).flatten(0, 1)
        eye = torch.full((len(faces),), -1, dtype=torch.long)
        for side, name in enumerate(("eye_left", "eye_right")):
            eye[self.model.face_region[faces] == REGIONS.index(name)] = side
        mean, shape = at(self.model.vertices[None])[0], torch.cat([identity, offsets])
        model = self.model
        arm = eye_arms(model, mean, eye)
        if isinstance(model, LinearHeadModel) and model.expression_names == ARKIT_NAMES:
            return SurfacePoints(mean, shape, at(model.expression_basis), eye, arm)
        none = mean.new_zeros(0, len(faces), 3)
        return PosedSurfacePoints(mean, shape, none, eye, arm, self, faces, barycentric)
