"""A head model whose expression is linear in ARKit's coefficients (Anny)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from cag_avatar.geometry import midway_transform, transform_about
from cag_avatar.head_models.arkit import ARKIT_INDEX
from cag_avatar.head_models.base import MAX_GAZE_PITCH, MAX_GAZE_YAW, HeadModel

__all__ = ["JOINTS", "LinearHeadModel"]

#: Skinning joints, in the order of the columns of ``skinning``. The neck moves midway between
#: torso and head; each eye turns about its own centre.
JOINTS: tuple[str, ...] = ("torso", "neck", "head", "eye_left", "eye_right")


@dataclass(frozen=True, eq=False, kw_only=True)
class LinearHeadModel(HeadModel, kind="linear"):
    """Blend shapes for ARKIT_NAMES, and the five JOINTS; eyeballs turn with eyeLook*."""

    tensor_shapes: ClassVar[dict[str, tuple[str | int, ...]]] = {
        **HeadModel.tensor_shapes,
        "expression_basis": ("E", "V", 3),
    }

    expression_basis: Tensor
    """Offsets at an expression coefficient of 1, [E, V, 3] float32."""

    @property
    def joint_names(self) -> tuple[str, ...]:
        """JOINTS."""
        return JOINTS

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
        return arkit_gaze(code)

    def joint_transforms(
        self, rest: Tensor, code: Tensor, head_pose: Tensor, torso_pose: Tensor
    ) -> Tensor:
        """[B, 5, 4, 4] in the order of JOINTS; arguments as in HeadModel."""
        neck = midway_transform(torso_pose, head_pose, self.neck_pivot)
        eyes = head_pose[:, None] @ transform_about(self.gaze(code), self.eye_centres(rest))
        return torch.cat([torch.stack([torso_pose, neck, head_pose], 1), eyes], 1)


def arkit_gaze(arkit: Tensor) -> Tensor:
    """Eyeball rotation of ARKIT_NAMES coefficients [B, 52]: rotation vectors [B, 2, 3], radians.

    Left eye, then right; rotation about x (down is positive), about y (to the subject's left).
    """

    def c(name: str) -> Tensor:
        return arkit[:, ARKIT_INDEX[name]]

    yaw_left = c("eyeLookOutLeft") - c("eyeLookInLeft")
    yaw_right = c("eyeLookInRight") - c("eyeLookOutRight")
    pitch_left = c("eyeLookDownLeft") - c("eyeLookUpLeft")
    pitch_right = c("eyeLookDownRight") - c("eyeLookUpRight")
    zero = torch.zeros_like(yaw_left)
    left = torch.stack([pitch_left * MAX_GAZE_PITCH, yaw_left * MAX_GAZE_YAW, zero], -1)
    right = torch.stack([pitch_right * MAX_GAZE_PITCH, yaw_right * MAX_GAZE_YAW, zero], -1)
    return torch.stack([left, right], 1)
