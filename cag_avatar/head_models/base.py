"""The head model interface: a linear, skinned head with named regions."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from cag_avatar.geometry import midway_transform, transform_about
from cag_avatar.head_models.arkit import ARKIT_INDEX

__all__ = ["JOINTS", "MAX_GAZE_PITCH", "MAX_GAZE_YAW", "REGIONS", "HeadModel"]

#: Skinning joints, in the order of the columns of ``skinning``. The neck moves midway between
#: torso and head; each eye turns about its own centre.
JOINTS: tuple[str, ...] = ("torso", "neck", "head", "eye_left", "eye_right")

#: Named regions; every face of the mesh carries the index of one of them.
REGIONS: tuple[str, ...] = (
    "face_skin",
    "lips",
    "teeth_upper",
    "teeth_lower",
    "tongue",
    "mouth_cavity",
    "eye_left",
    "eye_right",
    "ears",
    "scalp",
    "neck",
    "shoulders",
)

#: Largest eyeball rotation, radians, at an eyeLook* coefficient of 1.
MAX_GAZE_YAW = np.deg2rad(30.0)
MAX_GAZE_PITCH = np.deg2rad(22.0)


@dataclass(frozen=True, eq=False)
class HeadModel:
    """A head mesh with identity and expression bases, joints, UVs and regions.

    V vertices, F faces, I identity and E expression components; canonical space (metres, x to the
    subject's left, y up, z out of the face, origin midway between the eyeballs of the mean head).
    """

    name: str
    """Name of the model, stored in every file that depends on its topology."""
    vertices: Tensor
    """Mean rest head, [V, 3] float32."""
    faces: Tensor
    """Triangles, counter-clockwise seen from outside, [F, 3] int64."""
    uv: Tensor
    """Texture coordinates in [0, 1], v up, one atlas without overlaps, [U, 2] float32."""
    face_uv: Tensor
    """Corner indices into ``uv``, [F, 3] int64."""
    identity_basis: Tensor
    """Offsets per unit-variance identity component, [I, V, 3] float32."""
    expression_basis: Tensor
    """Offsets at an expression coefficient of 1, [E, V, 3] float32."""
    expression_names: tuple[str, ...]
    """Name of each expression component."""
    skinning: Tensor
    """Weights over JOINTS, [V, 5] float32, rows sum to 1."""
    neck_pivot: Tensor
    """Point in which the neck bends, canonical space, [3] float32."""
    eye_vertices: tuple[Tensor, Tensor]
    """Vertex indices of the left and the right eyeball, int64."""
    face_region: Tensor
    """Index into REGIONS of each face, [F] int64."""
    vertex_region: Tensor
    """Index into REGIONS of each vertex, [V] int64."""
    metadata: dict[str, str] = field(default_factory=dict)
    """Source and licence, as text."""

    @property
    def num_identity(self) -> int:
        """Number of identity components I."""
        return int(self.identity_basis.shape[0])

    @property
    def num_expression(self) -> int:
        """Number of expression coefficients E."""
        return int(self.expression_basis.shape[0])

    def region_faces(self, *names: str) -> Tensor:
        """Indices of faces in any of the named regions, int64. Raises KeyError on a bad name."""
        wanted = torch.zeros(len(REGIONS), dtype=torch.bool)
        for name in names:
            if name not in REGIONS:
                raise KeyError(f"no region '{name}'; choose from {', '.join(REGIONS)}")
            wanted[REGIONS.index(name)] = True
        return torch.nonzero(wanted[self.face_region]).flatten()

    def region_vertices(self, *names: str) -> Tensor:
        """Indices of the vertices used by faces of the named regions, int64."""
        return torch.unique(self.faces[self.region_faces(*names)])

    def rest_vertices(self, identity: Tensor, offsets: Tensor | None = None) -> Tensor:
        """Rest head [V, 3] of an identity [I], with optional vertex offsets [V, 3] in metres."""
        flat = self.identity_basis.reshape(self.num_identity, -1)
        rest = self.vertices + (identity @ flat).reshape(-1, 3)
        return rest if offsets is None else rest + offsets

    def express(self, rest: Tensor, code: Tensor) -> Tensor:
        """Add the expression: rest [V, 3], code [B, E] -> canonical vertices [B, V, 3].

        Eyeballs are not turned here: their rotation is part of the joint transforms.
        """
        flat = self.expression_basis.reshape(self.num_expression, -1)
        return rest + (code @ flat).reshape(code.shape[0], -1, 3)

    def gaze(self, code: Tensor) -> Tensor:
        """Eyeball rotation of a code [B, E]: rotation vectors [B, 2, 3] (left, right), radians.

        ARKit's eyeLookIn / Out / Up / Down give yaw and pitch: 1 is 30 degrees of yaw, 22 of pitch.
        """

        def c(name: str) -> Tensor:
            return code[:, ARKIT_INDEX[name]]

        yaw_left = c("eyeLookOutLeft") - c("eyeLookInLeft")
        yaw_right = c("eyeLookInRight") - c("eyeLookOutRight")
        pitch_left = c("eyeLookDownLeft") - c("eyeLookUpLeft")
        pitch_right = c("eyeLookDownRight") - c("eyeLookUpRight")
        zero = torch.zeros_like(yaw_left)
        left = torch.stack([pitch_left * MAX_GAZE_PITCH, yaw_left * MAX_GAZE_YAW, zero], -1)
        right = torch.stack([pitch_right * MAX_GAZE_PITCH, yaw_right * MAX_GAZE_YAW, zero], -1)
        return torch.stack([left, right], 1)

    def eye_centres(self, rest: Tensor) -> Tensor:
        """Centres of the eyeballs of a rest head [V, 3]: [2, 3] (left, right)."""
        return torch.stack([rest[index].mean(0) for index in self.eye_vertices])

    def joint_transforms(
        self, rest: Tensor, code: Tensor, head_pose: Tensor, torso_pose: Tensor
    ) -> Tensor:
        """Transform of every joint, canonical space to camera space.

        Args:
            rest: rest head [V, 3].
            code: expression codes [B, E].
            head_pose: canonical to camera space, [B, 4, 4].
            torso_pose: canonical to camera space, [B, 4, 4].

        Returns:
            [B, 5, 4, 4] in the order of JOINTS.
        """
        neck = midway_transform(torso_pose, head_pose, self.neck_pivot)
        eyes = head_pose[:, None] @ transform_about(self.gaze(code), self.eye_centres(rest))
        return torch.cat([torch.stack([torso_pose, neck, head_pose], 1), eyes], 1)

    def skin(self, canonical: Tensor, joints: Tensor) -> Tensor:
        """Linear blend skinning: canonical [B, V, 3], joints [B, 5, 4, 4] -> camera [B, V, 3]."""
        # Every joint moves every vertex, then the weights blend the results: with few joints one
        # matrix product is ten times quicker than blending a matrix for every vertex.
        batch, vertices = canonical.shape[:2]
        count = joints.shape[1]
        stacked = joints[:, :, :3].reshape(batch, count * 3, 4)
        moved = torch.baddbmm(
            stacked[:, None, :, 3], canonical, stacked[:, :, :3].transpose(1, 2)
        ).reshape(batch, vertices, count, 3)
        return (moved * self.skinning[..., None]).sum(2)

    def posed_vertices(
        self, rest: Tensor, code: Tensor, head_pose: Tensor, torso_pose: Tensor
    ) -> Tensor:
        """Vertices in camera space [B, V, 3]: expression, then skinning. Arguments as above."""
        joints = self.joint_transforms(rest, code, head_pose, torso_pose)
        return self.skin(self.express(rest, code), joints)
