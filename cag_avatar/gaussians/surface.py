"""How the Gaussians ride on the surface: positions and rotations from posed vertices."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.spatial import cKDTree
from torch import Tensor, nn

from cag_avatar.gaussians.uv_sampling import SurfaceSamples
from cag_avatar.geometry import matrix_to_quaternion

__all__ = ["BindingArrays", "SurfaceBinding", "initial_scale", "triangle_frames"]


class BindingArrays(NamedTuple):
    """A binding as arrays, for compiled loops; in the order of their arguments."""

    frame_arguments: tuple[NDArray[Any], ...]
    """faces, used_face, tangent_edge, rest_frames."""
    gaussian_arguments: tuple[NDArray[Any], ...]
    """corner, barycentric, used_index."""

    @property
    def triangle(self) -> NDArray[Any]:
        """Row of each Gaussian's triangle among the used ones."""
        return self.gaussian_arguments[2]


def _unit(vector: Tensor) -> Tensor:
    """Normalise the last axis; the floor of 1 nm (or 1 nm^2) keeps gradients finite."""
    return vector / torch.sqrt((vector * vector).sum(-1, keepdim=True) + 1e-24)


def triangle_frames(vertices: Tensor, faces: Tensor, tangent_edge: Tensor) -> Tensor:
    """A right-handed orthonormal frame for every triangle; rotates exactly with rigid motion.

    The normal is the mean of the area-weighted vertex normals at the corners, the tangent the edge
    ``tangent_edge`` with the normal's part removed. Both look beyond the triangle itself or at its
    longest edge, so that a sliver, whose own normal is noise, gets the frame of its surroundings.

    Args:
        vertices: posed, [V, 3].
        faces: [F, 3] int64.
        tangent_edge: which edge of each triangle (k to k + 1) gives the tangent, [F] int64.

    Returns:
        Columns tangent, bitangent, normal: [F, 3, 3]; differentiable in ``vertices``.
    """
    corners = vertices[faces]  # [F, 3, 3]
    edge_a, edge_b = corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]
    area_normal = torch.linalg.cross(edge_a, edge_b)
    vertex_normal = torch.zeros_like(vertices)
    vertex_normal = vertex_normal.index_add(
        0, faces.flatten(), area_normal.repeat_interleave(3, dim=0)
    )
    normal = _unit(vertex_normal[faces].sum(1))
    rows = torch.arange(len(faces), device=faces.device)
    edge = corners[rows, (tangent_edge + 1) % 3] - corners[rows, tangent_edge]
    tangent = _unit(edge - (edge * normal).sum(-1, keepdim=True) * normal)
    return torch.stack([tangent, torch.linalg.cross(normal, tangent), normal], -1)


class SurfaceBinding(nn.Module):
    """Binds N Gaussians to a mesh (mu_M of eq. 7, and how far each triangle has turned).

    Args:
        samples: where the Gaussians sit.
        faces: triangles of the mesh, [F, 3] int64.
        rest: rest vertices, canonical space, metres, [V, 3].
    """

    face: Tensor
    barycentric: Tensor
    corner: Tensor
    used_face: Tensor
    used_index: Tensor
    faces: Tensor
    tangent_edge: Tensor
    rest_frames: Tensor
    rest_points: Tensor

    def __init__(self, samples: SurfaceSamples, faces: Tensor, rest: Tensor) -> None:
        super().__init__()
        used, used_index = torch.unique(samples.face, return_inverse=True)
        # Only triangles that carry a Gaussian, or touch one that does, shape a frame.
        touched = torch.zeros(len(rest), dtype=torch.bool)
        touched[faces[used].flatten()] = True
        near = torch.nonzero(touched[faces].any(1)).flatten()
        position = torch.full((len(faces),), -1, dtype=torch.long)
        position[near] = torch.arange(len(near))
        local_faces = faces[near]
        corners = rest[local_faces]
        lengths = (corners.roll(-1, 1) - corners).square().sum(-1)
        constants = {
            "face": samples.face,
            "barycentric": samples.barycentric,
            "corner": faces[samples.face],
            "faces": local_faces,
            "used_face": position[used],
            "used_index": used_index,
            "tangent_edge": lengths.argmax(1),
        }
        for name, value in constants.items():
            self.register_buffer(name, value, persistent=False)
        frames = triangle_frames(rest, self.faces, self.tangent_edge)[self.used_face]
        self.register_buffer("rest_frames", frames, persistent=False)
        self.register_buffer("rest_points", self.points(rest), persistent=False)
        self._arrays: BindingArrays | None = None

    def arrays(self) -> BindingArrays:
        """The binding as arrays that share nothing with it; made once."""
        if self._arrays is None:

            def indices(tensor: Tensor) -> NDArray[np.int32]:
                return tensor.cpu().numpy().astype(np.int32)

            self._arrays = BindingArrays(
                (
                    indices(self.faces),
                    indices(self.used_face),
                    indices(self.tangent_edge),
                    self.rest_frames.cpu().double().numpy(),
                ),
                (indices(self.corner), self.barycentric.cpu().numpy(), indices(self.used_index)),
            )
        return self._arrays

    @property
    def gaussian_rest_frames(self) -> Tensor:
        """Frame of the rest surface under each Gaussian, columns as of triangle_frames()."""
        return self.rest_frames[self.used_index]

    def points(self, vertices: Tensor) -> Tensor:
        """Points on the posed surface: vertices [V, 3] -> mu_M [N, 3]."""
        return (vertices[self.corner] * self.barycentric[..., None]).sum(1)

    def normals(self, vertices: Tensor) -> Tensor:
        """Unit outward normal under each Gaussian: posed vertices [V, 3] -> [N, 3]."""
        frames = triangle_frames(vertices, self.faces, self.tangent_edge)[self.used_face]
        return frames[self.used_index, :, 2]

    def rotations(self, vertices: Tensor) -> tuple[Tensor, Tensor]:
        """How each Gaussian's triangle has turned from rest to the posed ``vertices`` [V, 3].

        Returns:
            Rotation matrices [N, 3, 3] and the same as quaternions wxyz [N, 4].
        """
        frames = triangle_frames(vertices, self.faces, self.tangent_edge)[self.used_face]
        turn = frames @ self.rest_frames.transpose(1, 2)
        quaternion = matrix_to_quaternion(turn)
        return turn[self.used_index], quaternion[self.used_index]


def initial_scale(points: Tensor) -> Tensor:
    """Isotropic standard deviation of each Gaussian, metres: [N, 3] rest points -> [N].

    Root of the mean squared distance to the three nearest neighbours, as in 3D Gaussian splatting.
    Fewer than four points give the distances there are; a single point gets 1 mm.
    """
    if len(points) < 2:
        return torch.full((len(points),), 1e-3, device=points.device)
    positions = points.detach().cpu().double().numpy()
    distance, _ = cKDTree(positions).query(positions, k=min(4, len(points)))
    mean_square = torch.from_numpy((distance[:, 1:] ** 2).mean(1))
    return mean_square.sqrt().clamp(1e-5, 0.05).to(points)
