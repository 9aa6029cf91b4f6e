"""The fast path: everything that does not depend on the frame is computed once."""

from __future__ import annotations

import copy

import torch
from torch import Tensor

from cag_avatar.avatar.model import Avatar, compose
from cag_avatar.avatar.precision import fastest_dtype
from cag_avatar.fusion.compiled_offsets import compiled_offsets
from cag_avatar.fusion.offsets import bounded_offsets
from cag_avatar.gaussians.attributes import Gaussians

__all__ = ["PreparedAvatar"]


class PreparedAvatar:
    """A frozen avatar, ready to be driven; equals ``Avatar.gaussians`` up to rounding.

    Attention weights and the position half of the network's first layer are kept (eq. 5's queries
    and keys do not depend on the frame), and attributes are kept activated.

    Args:
        avatar: is copied, later changes to it have no effect here.
        dtype: of the offset network; None takes the compiled network where there is one, else
            measures which is fastest.
    """

    def __init__(self, avatar: Avatar, dtype: torch.dtype | None = None) -> None:
        with torch.no_grad():
            self.avatar = copy.deepcopy(avatar).eval().requires_grad_(False)
            own = self.avatar
            self._compiled = None if dtype is not None else compiled_offsets(own)
            self.dtype = (
                torch.float32
                if self._compiled is not None
                else dtype or fastest_dtype(avatar.rest.device.type)
            )
            static = own.attention()
            self._fusion_static = None if static is None else static.to(self.dtype)
            self._first_static = own.network.static(own.encoding).to(self.dtype)
            self._opacity = own.attributes.opacity_logit.sigmoid()
            self._network = copy.deepcopy(own.network).to(self.dtype)

    @torch.no_grad()
    def raw_offsets(self, code: Tensor, head_pose: Tensor, torso_pose: Tensor) -> Tensor:
        """As Avatar.raw_offsets, from what was kept."""
        own = self.avatar
        tokens = own.tokens(code, head_pose, torso_pose)
        if self._compiled is not None:
            values = self._compiled.frame_values(self._fusion_static, tokens)
            return self._compiled.outputs(self._fusion_static, values)
        context = own.fusion.context(self._fusion_static, tokens)
        return own.decode(self._network, self._first_static, context.to(self.dtype)).float()

    @torch.inference_mode()
    def gaussians(self, code: Tensor, head_pose: Tensor, torso_pose: Tensor) -> Gaussians:
        """As Avatar.gaussians, without gradients."""
        own = self.avatar
        raw = self.raw_offsets(code, head_pose, torso_pose)
        return compose(
            own.binding,
            own.posed_vertices(code, head_pose, torso_pose),
            bounded_offsets(raw, own.offset_limits),
            own.attributes.rotation,
            own.attributes.log_scale,
            self._opacity,
            lambda points: own.base_colors(points, head_pose),
        )
