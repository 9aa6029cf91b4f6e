"""What a frame's code and poses mean for an avatar of any kind."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from cag_avatar.avatar.linear_pose import LinearPose, LivePose
from cag_avatar.avatar.model import Avatar
from cag_avatar.fusion.concat import ConcatFusion
from cag_avatar.fusion.cross_attention import CrossAttentionFusion
from cag_avatar.head_models.linear import LinearHeadModel

__all__ = ["make_live_pose"]

Array = NDArray[np.float32]


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

    @torch.inference_mode()
    def canonical(self, code: Array) -> Array:
        given = torch.from_numpy(np.ascontiguousarray(code))[None]
        return np.asarray(self._head.express(self._avatar.rest, given)[0].numpy())


def _linear_pose(avatar: Avatar, head: LinearHeadModel) -> LinearPose:
    embedding, fusion = None, avatar.fusion
    if isinstance(fusion, CrossAttentionFusion):
        # values() of the unit vectors: it is linear, and each value has a token of its own.
        unit = fusion.values(torch.ones(len(fusion.embedding[0])))
        embedding = unit.detach().numpy()
    return LinearPose(
        avatar.neutral_code.numpy(),
        avatar.config.neck_tokens,
        head.neck_pivot.double().numpy(),
        head.eye_centres(avatar.rest).double().numpy(),
        embedding,
    )


def make_live_pose(avatar: Avatar) -> LivePose:
    """The quickest way for this avatar."""
    head, fusion = avatar.head, avatar.fusion
    one_each = isinstance(fusion, CrossAttentionFusion) and fusion.groups is None
    if type(head) is LinearHeadModel and (one_each or isinstance(fusion, ConcatFusion)):
        return _linear_pose(avatar, head)
    return _TorchPose(avatar)
