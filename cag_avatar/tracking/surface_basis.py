"""Linear bases of a head at chosen surface points, with smooth offsets that widen the identity."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from scipy.linalg import eigh
from scipy.spatial.distance import cdist
from torch import Tensor

from cag_avatar.errors import InputError
from cag_avatar.head_models.base import REGIONS, HeadModel
from cag_avatar.head_models.linear import LinearHeadModel

__all__ = ["ShapeSpace", "SurfacePoints", "smooth_offset_modes"]

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
        centre = points[model.eye_vertices[side].numpy()].mean(0)
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
class SurfacePoints:
    """Linear model of N surface points: position = mean + identity z + offsets u + expression c."""

    mean: Tensor
    """[N, 3] metres, canonical space."""
    shape: Tensor
    """Shape basis (identity, then smooth offsets), [S, N, 3]."""
    expression: Tensor
    """[E, N, 3]."""
    eye: Tensor
    """0 or 1 for points on the left or right eyeball, else -1, [N] int64."""

    def rest(self, shape: Tensor) -> Tensor:
        """Rest positions [N, 3] for shape coefficients [S]."""
        return self.mean + torch.einsum("s,snc->nc", shape, self.shape)


def _expression_basis(model: HeadModel) -> Tensor:
    if not isinstance(model, LinearHeadModel):
        raise InputError(
            f"head model '{model.name}': only linear head models are fitted to videos; fit 'anny', "
            "or import a dataset that was tracked with this model"
        )
    return model.expression_basis


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
        return SurfacePoints(
            at(self.model.vertices[None])[0],
            torch.cat([identity, offsets]),
            at(_expression_basis(self.model)),
            eye,
        )
