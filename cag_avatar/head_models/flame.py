"""FLAME: blend shapes, pose correctives and joints.

Li et al., "Learning a model of facial shape and expression from 4D scans" (2017).

A code holds, in FlashAvatar's and metrical-tracker's order, the expression coefficients (100), the
jaw's rotation (6), the two eyes' (12) and the two eyelids (2). Rotations are the first two rows of
their matrices, so the neutral code is not zero. FLAME has no teeth, tongue or mouth cavity: those
regions are empty, and Gaussians of the lips have to stand in.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from cag_avatar.geometry import (
    matrix_to_rotation_6d,
    rigid_transform,
    rotation_6d_derivative,
    rotation_6d_to_matrix,
    rotation_vector_to_matrix,
)
from cag_avatar.head_models.arkit import ARKIT_INDEX
from cag_avatar.head_models.base import HeadModel
from cag_avatar.head_models.linear import arkit_gaze

__all__ = ["MAX_JAW_ANGLE", "FlameHeadModel", "flame_code_names"]

#: Jaw rotation, radians, that ARKit's jawOpen of 1 stands for.
MAX_JAW_ANGLE = np.deg2rad(25.0)

_NEUTRAL = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)
#: Joints that a code turns, by their place among FLAME's joints: jaw and the two eyes.
_TURNED = slice(2, 5)


def flame_code_names(expressions: int = 100, left_eye_first: bool = True) -> tuple[str, ...]:
    """Names of the coefficients: ``expression000`` ..., ``jaw0`` ... ``eyelidRight``."""
    sides = ("Left", "Right") if left_eye_first else ("Right", "Left")
    return (
        *(f"expression{i:03d}" for i in range(expressions)),
        *(f"{part}{i}" for part in ("jaw", f"eye{sides[0]}", f"eye{sides[1]}") for i in range(6)),
        "eyelidLeft",
        "eyelidRight",
    )


@dataclass(frozen=True, eq=False, kw_only=True)
class FlameHeadModel(HeadModel, kind="flame"):
    """FLAME in canonical space; made by load_flame().

    X expression components; a code has E = X + 20 coefficients. The joints are FLAME's five; its
    root is the torso and what it calls the neck joint carries the head, so head and torso pose
    stand for the global and the neck rotation (:meth:`poses` converts).
    """

    embeddable: ClassVar[bool] = False
    tensor_shapes: ClassVar[dict[str, tuple[str | int, ...]]] = {
        **HeadModel.tensor_shapes,
        "expression_basis": ("X", "V", 3),
        "eyelid_basis": (2, "V", 3),
        "pose_basis": (36, "V", 3),
        "joint_regressor": (5, "V"),
        "joint_offset": (5, 3),
        "joint_expression": ("X", 5, 3),
        "origin": (3,),
    }

    expression_basis: Tensor
    """Offsets per expression coefficient, [X, V, 3] float32."""
    eyelid_basis: Tensor
    """Offsets of the left and the right closed eyelid, [2, V, 3] float32; zero if not known."""
    pose_basis: Tensor
    """Corrective offsets per entry of (rotation - identity), row by row, of neck, jaw and both
    eyes, [36, V, 3] float32."""
    joint_regressor: Tensor
    """Joint positions are ``joint_regressor @ vertices + joint_offset``, [5, V] float32."""
    joint_offset: Tensor
    """[5, 3] float32; not zero only if a row of the regressor does not sum to 1."""
    joint_expression: Tensor
    """Motion of the joints per expression coefficient, [X, 5, 3] float32."""
    origin: Tensor
    """The canonical origin in the file's coordinates, [3] float32, metres; axes are the same."""

    @property
    def _left_eye_first(self) -> bool:
        return self.expression_names.index("eyeLeft0") < self.expression_names.index("eyeRight0")

    @property
    def joint_names(self) -> tuple[str, ...]:
        """Torso (FLAME's root), head (its neck), jaw, and the eyes in the file's order."""
        eyes = ("eye_left", "eye_right") if self._left_eye_first else ("eye_right", "eye_left")
        return ("torso", "head", "jaw", *eyes)

    @property
    def neutral_code(self) -> Tensor:
        """Zero, with identity rotations, [E]."""
        code = self.vertices.new_zeros(self.num_expression)
        code[-20:-2] = code.new_tensor(_NEUTRAL * 3)
        return code

    @property
    def code_low(self) -> Tensor:
        """-inf but for the eyelids, [E]."""
        low = self.vertices.new_full((self.num_expression,), -torch.inf)
        low[-2:] = 0.0
        return low

    @property
    def code_high(self) -> Tensor:
        """inf but for the eyelids, [E]."""
        return torch.where(self.code_low == 0, 1.0, torch.inf).to(self.vertices)

    @property
    def code_deviation(self) -> Tensor:
        """1 for expression components, which have no ARKit name and unit variance; jaw 0.12 and
        eyes 0.35 (about radians), eyelids 0.25, [E]."""
        deviation = self.vertices.new_ones(self.num_expression)
        deviation[-20:-14], deviation[-14:-2], deviation[-2:] = 0.12, 0.35, 0.25
        return deviation

    @property
    def code_tokens(self) -> tuple[str, ...]:
        """Each rotation is one token, every other coefficient one of its own."""
        return tuple(
            name[:-1] if name[:-1] in ("jaw", "eyeLeft", "eyeRight") else name
            for name in self.expression_names
        )

    def arkit_to_code(self, arkit: Tensor) -> Tensor:
        """ARKit coefficients [B, 52] -> codes [B, E]: jaw, gaze and eyelids only.

        jawOpen turns the jaw about x by MAX_JAW_ANGLE, eyeLook* turn the eyes and eyeBlink* close
        the lids, exactly. FLAME's expression coefficients have no names: what the other 46 ARKit
        coefficients would be is left to fitting, and stays neutral here.
        """
        code = self.neutral_code.to(arkit).repeat(len(arkit), 1)
        opening = arkit[:, ARKIT_INDEX["jawOpen"]] * MAX_JAW_ANGLE
        zero = torch.zeros_like(opening)
        gaze = arkit_gaze(arkit)
        eyes = gaze if self._left_eye_first else gaze.flip(1)
        vectors = torch.cat([torch.stack([opening, zero, zero], -1)[:, None], eyes], 1)
        rotations = matrix_to_rotation_6d(rotation_vector_to_matrix(vectors))
        blink = [arkit[:, ARKIT_INDEX[f"eyeBlink{side}"]] for side in ("Left", "Right")]
        code[:, -20:-2] = rotations.flatten(1)
        code[:, -2:] = torch.stack(blink, -1)
        return code

    def rotations(self, code: Tensor) -> Tensor:
        """Rotations of a code [B, E]: jaw, then the eyes in the file's order, [B, 3, 3, 3]."""
        return rotation_6d_to_matrix(code[:, -20:-2].unflatten(1, (3, 6)))

    def joints(self, rest: Tensor, code: Tensor) -> Tensor:
        """Joint positions, canonical space, of rest [V, 3] and codes [B, E]: [B, 5, 3]."""
        still = self.joint_regressor @ rest + self.joint_offset
        expression = code[:, :-20] @ self.joint_expression.flatten(1)
        return still + expression.unflatten(1, (5, 3))

    def express(self, rest: Tensor, code: Tensor) -> Tensor:
        """Add expression, eyelids and the correctives of jaw and eyes (not the neck's).

        rest [V, 3], code [B, E] -> canonical vertices [B, V, 3].
        """
        return self._express(rest, code, slice(None))

    def _express(self, rest: Tensor, code: Tensor, rows: Tensor | slice) -> Tensor:
        """As express(), of the vertices ``rows`` alone, whose rest positions are ``rest``."""
        turn = self.rotations(code) - torch.eye(3, dtype=code.dtype, device=code.device)
        moved = code[:, :-20] @ self.expression_basis[:, rows].flatten(1)
        moved = moved + code[:, -2:] @ self.eyelid_basis[:, rows].flatten(1)
        moved = moved + turn.flatten(1) @ self.pose_basis[9:, rows].flatten(1)
        return rest + moved.unflatten(1, (-1, 3))

    def joint_transforms(
        self, rest: Tensor, code: Tensor, head_pose: Tensor, torso_pose: Tensor
    ) -> Tensor:
        """[B, 5, 4, 4] in the order of ``joint_names``; arguments as in HeadModel."""
        pivots = self.joints(rest, code)[:, _TURNED]
        turn = self.rotations(code)
        local = rigid_transform(turn, pivots - (turn @ pivots[..., None])[..., 0])
        return torch.cat([torch.stack([torso_pose, head_pose], 1), head_pose[:, None] @ local], 1)

    def posed_vertices(
        self, rest: Tensor, code: Tensor, head_pose: Tensor, torso_pose: Tensor
    ) -> Tensor:
        """Vertices in camera space [B, V, 3], with the neck's corrective too."""
        neck = torso_pose[:, :3, :3].transpose(1, 2) @ head_pose[:, :3, :3]
        neck = neck - torch.eye(3, dtype=neck.dtype, device=neck.device)
        corrective = (neck.flatten(1) @ self.pose_basis[:9].flatten(1)).unflatten(1, (-1, 3))
        joints = self.joint_transforms(rest, code, head_pose, torso_pose)
        return self.skin(self.express(rest, code) + corrective, joints)

    def poses(
        self, rest: Tensor, code: Tensor, rotation: Tensor, neck: Tensor, translation: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Head and torso pose that pose this model as FLAME's own parameters pose FLAME.

        Args:
            rest: rest head [V, 3].
            code: expression codes [B, E] (FLAME's joints follow the expression a little).
            rotation: global rotation, about the root joint, [B, 3, 3].
            neck: rotation of the neck joint, [B, 3, 3].
            translation: global translation, metres, [B, 3].

        Returns:
            Canonical space to FLAME's world, [B, 4, 4] each: head, torso.
        """
        joints = self.joints(rest, code) + self.origin
        root, hinge = joints[:, 0], joints[:, 1]
        at_root = root - (rotation @ root[..., None])[..., 0] + translation
        torso = rigid_transform(rotation, at_root)
        head = torso @ rigid_transform(neck, hinge - (neck @ hinge[..., None])[..., 0])
        shift = rigid_transform(torch.eye(3).to(self.origin), self.origin).to(torso)
        return head @ shift, torso @ shift

    def local_points(
        self, rest: Tensor, code: Tensor, faces: Tensor, barycentric: Tensor
    ) -> tuple[Tensor, Tensor]:
        """As in HeadModel, in closed form; correctives and moving joints are in the Jacobian."""
        corners = self.faces[faces]  # [N, 3]
        flat = corners.flatten()
        frames, points = len(code), len(faces)
        still = torch.eye(4, dtype=code.dtype, device=code.device).expand(frames, 4, 4)
        joints = self.joint_transforms(rest, code, still, still)  # [T, 5, 4, 4]
        weights = self.skinning[flat].reshape(points, 3, -1)  # [N, 3, J]
        canonical = self._express(rest[flat], code, flat).unflatten(1, (points, 3))
        share = weights * barycentric[..., None]
        blended = torch.einsum("ncj,tjab->tncab", share, joints[:, :, :3])  # [T, N, 3, 3, 4]
        turn = blended[..., :3]
        positions = torch.einsum("tncab,tncb->tna", turn, canonical) + blended[..., 3].sum(2)

        held = share[..., _TURNED]  # [N, 3, 3]
        near = torch.nonzero(held.sum((1, 2))).flatten()

        def moved(basis: Tensor) -> Tensor:
            """Motion of the points [T, K, N, 3] when vertices move by a basis [K, V, 3]."""
            at = basis[:, flat].unflatten(1, (points, 3))
            # Only what jaw and eyes carry turns in the head's own frame.
            alone = torch.einsum("nc,kncb->knb", share.sum(2), at)
            result = alone.repeat(frames, 1, 1, 1)
            result[:, :, near] = torch.einsum("tncab,kncb->tkna", turn[:, near], at[:, near])
            return result

        rotation = joints[:, _TURNED, :3, :3]
        # A moved joint shifts what turns about it: p - R p.
        lag = torch.eye(3).to(rotation) - rotation
        shift = torch.einsum("tjab,kjb->tkja", lag, self.joint_expression[:, _TURNED])
        jacobian = code.new_empty(frames, self.num_expression, points, 3)
        jacobian[:, :-20] = moved(self.expression_basis)
        jacobian[:, :-20, near] += torch.einsum("nj,tkja->tkna", held[near].sum(1), shift)
        jacobian[:, -2:] = moved(self.eyelid_basis)

        six = code[:, -20:-2].unflatten(1, (3, 6))
        slope = rotation_6d_derivative(six)  # [T, 3, 6, 3, 3]
        pivots = self.joints(rest, code)[:, _TURNED]
        arm = canonical[:, None] - pivots[:, :, None, None]  # [T, 3, N, 3, 3]
        arm = torch.einsum("ncj,tjnca->tjna", held, arm)
        turned = torch.einsum("tjiab,tjnb->tjina", slope, arm)
        entries = moved(self.pose_basis[9:]).unflatten(1, (3, 9))  # [T, 3, 9, N, 3]
        corrective = torch.einsum("tjie,tjena->tjina", slope.flatten(3), entries)
        jacobian[:, -20:-2] = (turned + corrective).flatten(1, 2)
        return positions, jacobian
