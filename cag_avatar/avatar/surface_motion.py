"""Meshes posed and Gaussians carried with them, for several frames and avatars together.

The values of ``carry_plain`` in fewer, larger operations: vertex normals are gathered from the
faces around (added up in the same order every time, which atomic additions are not).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from cag_avatar.avatar.model import Avatar
from cag_avatar.avatar.quaternion_products import QuaternionProducts
from cag_avatar.gaussians.carry import Carried
from cag_avatar.head_models.base import HeadModel
from cag_avatar.head_models.linear import LinearHeadModel, arkit_gaze

__all__ = ["SurfaceMotion"]


def _unit(vector: Tensor) -> Tensor:
    return vector / torch.sqrt((vector * vector).sum(-1, keepdim=True) + 1e-24)


def _faces_around(faces: Tensor, corners: Tensor) -> tuple[Tensor, Tensor]:
    """Faces [F, 3] at each vertex of ``corners`` [T, 3]: [U, K], filled up with F; and the rows of
    ``corners``' vertices in it, [T, 3]."""
    vertices, rows = torch.unique(corners, return_inverse=True)
    place = torch.full((int(faces.max()) + 1,), -1, dtype=torch.long)
    place[vertices] = torch.arange(len(vertices))
    at = place[faces].flatten()
    owner, order = torch.sort(at, stable=True)
    face = torch.arange(len(faces)).repeat_interleave(3)[order]
    face, owner = face[owner >= 0], owner[owner >= 0]
    count = torch.bincount(owner, minlength=len(vertices))
    nth = torch.arange(len(owner)) - (count.cumsum(0) - count)[owner]
    around = torch.full((len(vertices), int(count.max())), len(faces), dtype=torch.long)
    around[owner, nth] = face
    return around, rows


class SurfaceMotion(nn.Module):
    """Posing and carrying for A avatars of one head model, S frames of each.

    Args:
        avatars: whose Gaussians sit at the same places of the same mesh.
    """

    rest: Tensor
    rotation: Tensor
    rest_frames: Tensor
    edge: Tensor
    faces: Tensor
    around: Tensor
    used_corner: Tensor
    used_index: Tensor
    corner: Tensor
    barycentric: Tensor
    gaze: Tensor
    pivot: Tensor
    eyes: Tensor

    @torch.no_grad()
    def __init__(self, avatars: Sequence[Avatar]) -> None:
        super().__init__()
        first = avatars[0].binding
        device = first.faces.device
        used_faces = first.faces[first.used_face]
        around, rows = _faces_around(first.faces.cpu(), used_faces.cpu())
        edges = []
        for avatar in avatars:
            start = avatar.binding.tangent_edge[first.used_face][:, None]
            ends = used_faces.gather(1, torch.cat([start, (start + 1) % 3], 1))
            edges.append(ends.flatten())
        constants = {
            "rest": torch.stack([a.rest for a in avatars]),
            "rotation": torch.stack([a.attributes.rotation.detach() for a in avatars])[:, None],
            "rest_frames": torch.stack(
                [a.binding.rest_frames.transpose(1, 2) for a in avatars]
            ).contiguous()[:, None],
            "edge": torch.stack(edges),
            "faces": first.faces,
            "around": around.to(device),
            "used_corner": rows.to(device),
            "used_index": first.used_index,
            "corner": first.corner,
            "barycentric": first.barycentric[..., None],
        }
        head = avatars[0].head
        self._linear = type(head) is LinearHeadModel
        if self._linear:
            unit = torch.eye(head.num_expression, device=device)
            constants |= {
                "gaze": arkit_gaze(unit).flatten(1),  # it is linear
                "pivot": head.neck_pivot,
                "eyes": torch.stack([head.eye_centres(a.rest) for a in avatars])[:, None],
            }
        for name, value in constants.items():
            self.register_buffer(name, value.clone(), persistent=False)
        self._algebra = QuaternionProducts().to(device)

    def vertices(
        self, head: HeadModel, code: Tensor, head_pose: Tensor, torso_pose: Tensor
    ) -> Tensor:
        """Posed meshes [A, S, V, 3] of codes [A, S, E] and poses [A, S, 4, 4]; ``head`` is any of
        the avatars'."""
        if self._linear:
            assert isinstance(head, LinearHeadModel)
            flat = code @ head.expression_basis.flatten(1)
            canonical = self.rest[:, None] + flat.unflatten(-1, (-1, 3))
            joints = self._linear_joints(code, head_pose, torso_pose)
            return head.skin(canonical.flatten(0, 1), joints.flatten(0, 1)).unflatten(
                0, code.shape[:2]
            )
        if len(self.rest) == 1:
            return head.posed_vertices(self.rest[0], code[0], head_pose[0], torso_pose[0])[None]
        posed: Tensor = torch.func.vmap(head.posed_vertices)(self.rest, code, head_pose, torso_pose)
        return posed

    def bend(self, head_pose: Tensor, torso_pose: Tensor) -> Tensor:
        """Rotations of the head in the torso's axes: unit quaternions [A, S, 4] with w >= 0."""
        relative = torso_pose[..., :3, :3].transpose(-1, -2) @ head_pose[..., :3, :3]
        return self._algebra.near_one(self._algebra.of_matrix(relative))

    def neck_tokens(self, head_pose: Tensor, torso_pose: Tensor) -> Tensor:
        """The same as rotation vectors [A, S, 3], radians."""
        return self._algebra.vector(self.bend(head_pose, torso_pose))

    def _linear_joints(self, code: Tensor, head_pose: Tensor, torso_pose: Tensor) -> Tensor:
        """LinearHeadModel.joint_transforms(), [A, S, 5, 3, 4]."""
        algebra = self._algebra
        poses = torch.stack([torso_pose, head_pose], 2)[..., :3, :]  # [A, S, 2, 3, 4]
        half = algebra.halfway(self.bend(head_pose, torso_pose))
        gaze = algebra.of_vector((code @ self.gaze).unflatten(-1, (2, 3)))
        turns = algebra.matrix(torch.cat([half[..., None, :], gaze], -2))  # [A, S, 3, 3, 3]
        # The neck turns with the torso, the eyes with the head.
        carriers = torch.stack([poses[:, :, 0], poses[:, :, 1], poses[:, :, 1]], 2)
        turned = carriers[..., :3] @ turns
        pivot = (poses[..., :3] @ self.pivot + poses[..., 3]).mean(2, keepdim=True)
        eyes = self.eyes.expand(-1, code.shape[1], -1, -1)
        seated = (poses[:, :, 1:, :, :3] @ eyes[..., None])[..., 0] + poses[:, :, 1:, :, 3]
        centres = torch.cat([self.pivot.expand(*eyes.shape[:2], 1, 3), eyes], 2)
        shift = torch.cat([pivot, seated], 2) - (turned @ centres[..., None])[..., 0]
        moved = torch.cat([turned, shift[..., None]], -1)
        return torch.cat([poses[:, :, :1], moved[:, :, :1], poses[:, :, 1:], moved[:, :, 1:]], 2)

    def _turns(self, vertices: Tensor) -> Tensor:
        """How far the triangles that carry Gaussians have turned from rest, [A, S, T, 3, 3]."""
        corners = vertices[:, :, self.faces]
        first, second, third = corners.unbind(-2)
        area = torch.linalg.cross(second - first, third - first)
        area = nn.functional.pad(area, (0, 0, 0, 1))
        normal = area[:, :, self.around].sum(-2)
        normal = _unit(normal[:, :, self.used_corner].sum(-2))
        index = self.edge[:, None, :, None].expand(-1, vertices.shape[1], -1, 3)
        start, end = vertices.gather(2, index).unflatten(2, (-1, 2)).unbind(-2)
        edge = end - start
        tangent = _unit(edge - (edge * normal).sum(-1, keepdim=True) * normal)
        frames = torch.stack([tangent, torch.linalg.cross(normal, tangent), normal], -1)
        return frames @ self.rest_frames

    def carry(self, vertices: Tensor, position: Tensor, turn: Tensor) -> Carried:
        """gaussians.carry.carry() of vertices [A, S, V, 3] and offsets [A, S, N, 3]; the fields of
        what it returns have the first axes A and S too."""
        points = (vertices[:, :, self.corner] * self.barycentric).sum(-2)
        turns = self._turns(vertices)
        quaternions = self._algebra.of_matrix(turns)
        moved = (turns[:, :, self.used_index] @ position[..., None])[..., 0]
        turned = self._algebra.multiply(nn.functional.pad(turn, (1, 0), value=1.0), self.rotation)
        local = nn.functional.normalize(turned, dim=-1)
        return Carried(
            means=points + moved,
            quaternions=self._algebra.multiply(quaternions[:, :, self.used_index], local),
            points=points,
        )
