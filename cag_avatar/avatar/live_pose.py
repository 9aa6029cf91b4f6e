"""The small algebra of a live frame: driving values and joint transforms of a code and two poses.

In torch it is a hundred operations on 4 x 4 matrices, which take longer than drawing; for the usual
head model numpy does the same in a few.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from cag_avatar.avatar.model import Avatar
from cag_avatar.fusion.concat import ConcatFusion
from cag_avatar.fusion.cross_attention import CrossAttentionFusion
from cag_avatar.head_models.linear import LinearHeadModel, arkit_gaze

__all__ = ["LivePose", "make_live_pose"]

Array = NDArray[np.float32]


class LivePose(ABC):
    """What a frame's code and poses mean for one avatar."""

    @abstractmethod
    def drive(self, code: Array, head_pose: Array, torso_pose: Array) -> tuple[Array, Array]:
        """What the fusion's tokens say, and where the joints are.

        Args:
            code: expression code, [E].
            head_pose: canonical to camera space, [4, 4].
            torso_pose: canonical to camera space, [4, 4].

        Returns:
            Token values [heads, T, head_size] of cross-attention, else the context of all Gaussians
            [C]; and joint transforms, canonical to camera space, [J, 3, 4].
        """


class _TorchPose(LivePose):
    """By the avatar's own methods: any head model and fusion."""

    def __init__(self, avatar: Avatar) -> None:
        self._avatar = avatar
        self._head = avatar.head

    @torch.inference_mode()
    def drive(self, code: Array, head_pose: Array, torso_pose: Array) -> tuple[Array, Array]:
        own, fusion = self._avatar, self._avatar.fusion
        given = tuple(
            torch.from_numpy(np.ascontiguousarray(a)) for a in (code, head_pose, torso_pose)
        )
        tokens = own.tokens(*given)
        if isinstance(fusion, CrossAttentionFusion):
            values = fusion.values(tokens)
        else:
            # These give every Gaussian the same: the first one stands for all.
            values = fusion.context(fusion.static(own.encoding[:1]), tokens)[0]
        joints = self._head.joint_transforms(own.rest, *(value[None] for value in given))
        return values.numpy(), joints[0, :, :3].numpy()


class _LinearPose(LivePose):
    """The same for LinearHeadModel.joint_transforms() and driving_values()."""

    def __init__(self, avatar: Avatar, head: LinearHeadModel) -> None:
        self._neutral = avatar.neutral_code.numpy()
        self._neck = avatar.config.neck_tokens
        self._pivot = head.neck_pivot.double().numpy()
        self._centres = head.eye_centres(avatar.rest).double().numpy()
        fusion = avatar.fusion
        self._embedding: Array | None = None
        if isinstance(fusion, CrossAttentionFusion):
            # values() of the unit vectors: it is linear, and each value has a token of its own.
            unit = fusion.values(torch.ones(len(fusion.embedding[0])))
            self._embedding = unit.detach().numpy()

    def drive(self, code: Array, head_pose: Array, torso_pose: Array) -> tuple[Array, Array]:
        head, torso = head_pose.astype(np.float64), torso_pose.astype(np.float64)
        bend = Rotation.from_matrix(torso[:3, :3].T @ head[:3, :3]).as_rotvec()
        gaze = arkit_gaze(torch.from_numpy(np.ascontiguousarray(code))[None])[0].numpy()
        half, *eyes = Rotation.from_rotvec(np.vstack([bend / 2, gaze])).as_matrix()
        joints = np.empty((5, 3, 4), np.float32)
        joints[0], joints[2] = torso[:3], head[:3]
        turn = torso[:3, :3] @ half
        both = (torso[:3] + head[:3]) / 2
        joints[1, :, :3] = turn
        joints[1, :, 3] = both[:, :3] @ self._pivot + both[:, 3] - turn @ self._pivot
        for index, (eye, centre) in enumerate(zip(eyes, self._centres, strict=True), start=3):
            turn = head[:3, :3] @ eye
            joints[index, :, :3] = turn
            joints[index, :, 3] = head[:3, :3] @ (centre - eye @ centre) + head[:3, 3]
        tokens = code - self._neutral
        if self._neck:
            tokens = np.concatenate([tokens, bend.astype(np.float32)])
        values = tokens if self._embedding is None else tokens[None, :, None] * self._embedding
        return np.asarray(values, np.float32), joints


def make_live_pose(avatar: Avatar) -> LivePose:
    """The quickest way for this avatar."""
    head, fusion = avatar.head, avatar.fusion
    one_each = isinstance(fusion, CrossAttentionFusion) and fusion.groups is None
    if type(head) is LinearHeadModel and (one_each or isinstance(fusion, ConcatFusion)):
        return _LinearPose(avatar, head)
    return _TorchPose(avatar)
