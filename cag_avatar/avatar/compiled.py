"""An avatar compiled for live use on the CPU: code and pose in, uint8 picture out.

Does in one C function (``native/frame.c``) what ``PreparedAvatar``, ``carry`` and the rasteriser do
one after the other: offset network, skinning, projection, sorting and blending on all cores, in
memory that is allocated once. Colours, opacities and what the fusion knows of the Gaussians alone
are kept activated. With an :class:`OffsetBasis` the network is run on a few Gaussians only.
"""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cag_avatar.avatar.frame_renderer import OUTPUTS, ROOM, STAGES, FrameParts, FrameRenderer
from cag_avatar.avatar.live_pose import make_live_pose
from cag_avatar.avatar.model import Avatar
from cag_avatar.avatar.offset_basis import BLOCK, OffsetBasis
from cag_avatar.camera import PinholeCamera
from cag_avatar.fusion.concat import ConcatFusion
from cag_avatar.fusion.cross_attention import CrossAttentionFusion
from cag_avatar.fusion.offsets import NUM_OUTPUTS
from cag_avatar.fusion.one_token import OneTokenFusion
from cag_avatar.head_models.linear import LinearHeadModel
from cag_avatar.native.library import NativeUnavailableError, load_library
from cag_avatar.rendering.spherical_harmonics import SH_CONSTANT

__all__ = ["STAGES", "CompiledAvatar"]

#: Highest degree of the spherical harmonics that frame.c evaluates.
_MAX_SH_DEGREE = 2


def _padded(values: Tensor, count: int, fill: float = 0.0) -> NDArray[Any]:
    """[N, ...] -> contiguous [..., count], the rest filled."""
    array = values.detach().cpu().numpy()
    out = np.full((*array.shape[1:], count), fill, array.dtype)
    out[..., : len(array)] = np.moveaxis(array, 0, -1)
    return np.ascontiguousarray(out)


def _grown(values: Tensor | NDArray[Any], shape: tuple[int, ...]) -> NDArray[np.float32]:
    """Contiguous float32 of a larger shape, zero beyond ``values``."""
    array = values.detach().numpy() if isinstance(values, Tensor) else values
    out = np.zeros(shape, np.float32)
    out[tuple(slice(0, side) for side in array.shape)] = array
    return out


def _up(count: int, multiple: int) -> int:
    return -(-count // multiple) * multiple


class CompiledAvatar(FrameRenderer):
    """Renders one avatar on the CPU; not thread-safe.

    Args:
        avatar: on the CPU; later changes to it have no effect here.
        camera: of the pictures.
        background: RGB, 0 to 255.
        basis: makes the offsets; None runs the offset network for every Gaussian.
        threads: cores to use; None takes torch's number.

    Raises:
        NativeUnavailableError: the C code cannot be built here, or does not do this avatar.
    """

    def __init__(
        self,
        avatar: Avatar,
        camera: PinholeCamera,
        background: tuple[float, float, float] = (255.0, 255.0, 255.0),
        basis: OffsetBasis | None = None,
        threads: int | None = None,
    ) -> None:
        if avatar.config.sh_degree > _MAX_SH_DEGREE:
            raise NativeUnavailableError(f"it does not do sh_degree {avatar.config.sh_degree}")
        known = (CrossAttentionFusion, ConcatFusion, OneTokenFusion)
        if not isinstance(avatar.fusion, known):
            raise NativeUnavailableError(f"it does not do {type(avatar.fusion).__name__}")
        library = load_library("frame")
        lanes = int(library.cag_lanes())
        if isinstance(avatar.fusion, CrossAttentionFusion) and avatar.fusion.head_size % lanes:
            raise NativeUnavailableError(f"head_size must be a multiple of {lanes} here")
        assert (NUM_OUTPUTS, int(library.cag_block())) == (OUTPUTS, BLOCK)
        self._avatar = copy.deepcopy(avatar).eval().requires_grad_(False)
        self._head = self._avatar.head
        with torch.no_grad():
            scene_sizes, scene = self._make_scene(basis)
            network_sizes, network = self._make_network(basis, lanes)
            pose = make_live_pose(self._avatar)
        fusion = self._avatar.fusion
        values: tuple[int, ...] = (fusion.context_size,)
        if isinstance(fusion, CrossAttentionFusion):
            values = (fusion.heads, fusion.num_tokens, fusion.head_size)
        self.parts = FrameParts(scene_sizes, scene, network_sizes, network, values)
        self.pose = pose
        super().__init__(self.parts, pose, camera, background, threads or torch.get_num_threads())

    @property
    def avatar(self) -> Avatar:
        """Its own copy of the avatar, frozen."""
        return self._avatar

    def _make_scene(
        self, basis: OffsetBasis | None
    ) -> tuple[dict[str, int], dict[str, NDArray[Any]]]:
        own, head = self._avatar, self._head
        attributes = own.attributes
        n = _up(own.num_gaussians, BLOCK)
        topology = own.binding.arrays()
        face, used, tangent_edge, rest_frames = topology.frame_arguments
        corner, barycentric, triangle = map(np.ascontiguousarray, topology.gaussian_arguments)
        start, around = _faces_around(face, len(own.rest))
        first = face[used, tangent_edge[used]]
        second = face[used, (tangent_edge[used] + 1) % 3]
        sizes = dict(
            gaussians=n, vertices=len(own.rest), faces=len(face), triangles=len(used),
            joints=len(head.joint_names), sh_degree=own.config.sh_degree,
            rank=0 if basis is None else basis.rank, expressions=head.num_expression,
        )  # fmt: skip
        arrays: dict[str, NDArray[Any]] = {
            "skinning": np.ascontiguousarray(head.skinning.numpy(), np.float32),
            "face": np.ascontiguousarray(face, np.int32),
            "vertex_start": start,
            "vertex_face": around,
            "used": np.ascontiguousarray(used, np.int32),
            "edge": np.ascontiguousarray(np.stack([first, second], 1), np.int32),
            "rest_frame": np.ascontiguousarray(rest_frames, np.float32),
            "corner": _padded(torch.from_numpy(corner), n),
            "weight": _padded(torch.from_numpy(barycentric), n),
            "triangle": _padded(torch.from_numpy(triangle), n),
            "rotation": _padded(attributes.rotation, n, 1.0),
            "log_scale": _padded(attributes.log_scale, n, -20.0),
            "log2_opacity": _padded(attributes.opacity_logit.sigmoid().log2(), n, -np.inf),
            "color": _padded(0.5 + SH_CONSTANT * attributes.color_base[:, 0], n),
            "sh": _padded(attributes.color_rest, n),
            "limit": _padded(own.offset_limits, n),
        }
        if type(head) is LinearHeadModel:  # others say themselves what a code does
            arrays["rest"] = np.ascontiguousarray(own.rest.numpy(), np.float32)
            arrays["expression"] = np.ascontiguousarray(head.expression_basis.numpy(), np.float32)
        if basis is not None:
            arrays |= {
                "mean_offset": basis.mean, "basis": basis.levels, "basis_step": basis.step,
            }  # fmt: skip
        return sizes, arrays

    def _make_network(
        self, basis: OffsetBasis | None, lanes: int
    ) -> tuple[dict[str, int], dict[str, NDArray[Any]]]:
        own = self._avatar
        network, fusion = own.network, own.fusion
        rows = torch.arange(own.num_gaussians)
        if basis is not None:
            rows = torch.from_numpy(basis.rows.astype(np.int64))
        count = _up(len(rows), BLOCK)  # also a multiple of ROWS, and as many as the offsets' room
        inner, width = fusion.context_size, _up(own.config.width, lanes)
        hidden, local = len(network.hidden), 0 if own.local is None else own.local.weight.shape[1]
        sizes = dict(
            rows=count, context=inner, width=width, hidden=hidden, local=local,
            heads=0, tokens=0, head_size=0,
        )  # fmt: skip
        arrays = {
            "first": _grown(network.static(own.encoding[rows]), (count, width)),
            "from_context": _grown(
                network.first.weight[:, network.encoding_size :].T, (inner, width)
            ),
            "hidden_weight": np.zeros((hidden, width, width), np.float32),
            "hidden_bias": np.zeros((hidden, width), np.float32),
            "last_weight": _grown(network.last.weight.T, (width, ROOM)),
            "last_bias": _grown(network.last.bias, (ROOM,)),
            "limit": _grown(own.offset_limits[rows], (count, ROOM)),
            "mean": np.zeros((count, ROOM), np.float32),
            "local_weight": np.zeros((count, local, ROOM), np.float32),
        }
        for k, layer in enumerate(network.hidden):
            assert isinstance(layer, torch.nn.Linear)
            arrays["hidden_weight"][k] = _grown(layer.weight.T, (width, width))
            arrays["hidden_bias"][k] = _grown(layer.bias, (width,))
        if own.local is not None:
            gained = own.local.weight[rows] * own.local.gain[rows][:, None]
            arrays["local_weight"][: len(rows), :, :NUM_OUTPUTS] = gained.numpy()
        if isinstance(fusion, CrossAttentionFusion):
            gate = own.attention(rows)
            assert gate is not None
            heads, _, tokens = gate.shape
            sizes |= {"heads": heads, "tokens": tokens, "head_size": fusion.head_size}
            arrays["gate"] = _grown(gate, (heads, count, tokens))
        if basis is not None:
            arrays["mean"][: len(rows), :NUM_OUTPUTS] = basis.mean[:, basis.rows].T
            solve = basis.solve.reshape(basis.rank, len(rows), NUM_OUTPUTS)
            arrays["solve"] = _grown(solve, (basis.rank, count, ROOM))
        return sizes, arrays


def _faces_around(face: NDArray[Any], vertices: int) -> tuple[NDArray[Any], NDArray[Any]]:
    """Faces [F, 3] at each vertex: starts [V + 1] into the list [3 F] of faces, int32."""
    corner = face.ravel()
    order = np.argsort(corner, kind="stable")
    start = np.zeros(vertices + 1, np.int32)
    np.cumsum(np.bincount(corner, minlength=vertices), out=start[1:])
    return start, (order // 3).astype(np.int32)
