"""An avatar compiled for live use on the CPU: code and pose in, uint8 picture out.

Does in one C function (``native/frame.c``) what ``PreparedAvatar``, ``carry`` and the rasteriser do
one after the other: offset network, skinning, projection, sorting and blending on all cores, in
memory that is allocated once. Colours, opacities and what the fusion knows of the Gaussians alone
are kept activated. With an :class:`OffsetBasis` the network is run on a few Gaussians only.
"""

from __future__ import annotations

import copy
import ctypes
from ctypes import c_double, c_float, c_int32, c_int64, c_void_p
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cag_avatar.avatar.live_pose import make_live_pose
from cag_avatar.avatar.model import Avatar
from cag_avatar.avatar.offset_basis import BLOCK, OffsetBasis
from cag_avatar.camera import PinholeCamera
from cag_avatar.errors import InputError
from cag_avatar.fusion.concat import ConcatFusion
from cag_avatar.fusion.cross_attention import CrossAttentionFusion
from cag_avatar.fusion.offsets import NUM_OUTPUTS
from cag_avatar.fusion.one_token import OneTokenFusion
from cag_avatar.head_models.linear import LinearHeadModel
from cag_avatar.native.library import NativeUnavailableError, load_library
from cag_avatar.parallel import kernel_launch
from cag_avatar.rendering.projection import frustum_limits
from cag_avatar.rendering.spherical_harmonics import SH_CONSTANT

__all__ = ["STAGES", "CompiledAvatar"]

#: Stages that a frame is timed in, in the order of Frame.seconds.
STAGES = ("network", "mesh", "gaussians", "sort", "bin", "blend")
#: Most (Gaussian, tile) pairs that are drawn; they take 4 bytes each.
_MAX_PAIRS = 100_000_000
#: Highest degree of the spherical harmonics that frame.c evaluates.
_MAX_SH_DEGREE = 2
#: OUTPUT_ROOM of frame.c: room for the outputs of a Gaussian.
_ROOM = 16


class _Network(ctypes.Structure):
    """``Network`` of frame.c."""

    _fields_ = (
        *((name, c_int32) for name in (
            "rows", "context", "heads", "tokens", "head_size", "width", "hidden", "local",
        )),
        *((name, c_void_p) for name in (
            "gate", "first", "from_context", "hidden_weight", "hidden_bias", "last_weight",
            "last_bias", "local_weight", "limit", "mean", "solve",
        )),
    )  # fmt: skip


class _Scene(ctypes.Structure):
    """``Scene`` of frame.c."""

    _fields_ = (
        *((name, c_int32) for name in (
            "gaussians", "vertices", "faces", "triangles", "joints", "sh_degree", "rank",
            "expressions",
        )),
        *((name, c_void_p) for name in (
            "rest", "expression", "skinning", "face", "vertex_start", "vertex_face", "used", "edge",
            "rest_frame", "corner", "weight", "triangle", "rotation", "log_scale", "log2_opacity",
            "color", "sh", "mean_offset", "limit", "basis", "basis_step",
        )),
    )  # fmt: skip


class _Work(ctypes.Structure):
    """``Work`` of frame.c."""

    _fields_ = (
        *((name, c_void_p) for name in (
            "known", "basis_weight", "canonical", "offset", "posed", "face_normal", "vertex_normal",
            "turn", "record", "box", "key", "order", "start", "end", "pair",
        )),
        ("room", c_int64),
    )  # fmt: skip


class _Frame(ctypes.Structure):
    """``Frame`` of frame.c."""

    _fields_ = (
        *((n, c_int32) for n in ("width", "height", "threads", "channels", "bgr", "visible")),
        *((name, c_float) for name in ("fx", "fy", "cx", "cy")),
        ("limits", c_float * 4),
        ("head", c_float * 9),
        ("background", c_float * 3),
        ("reserved", c_float),
        *((name, c_void_p) for name in ("code", "values", "joint", "image")),
        ("seconds", c_double * 6),
    )  # fmt: skip


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


class CompiledAvatar:
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
        self._library = load_library()
        lanes = int(self._library.cag_lanes())
        if isinstance(avatar.fusion, CrossAttentionFusion) and avatar.fusion.head_size % lanes:
            raise NativeUnavailableError(f"head_size must be a multiple of {lanes} here")
        for structure in (_Network, _Scene, _Work, _Frame):
            size = getattr(self._library, f"cag{structure.__name__.lower()}_size")()
            assert size == ctypes.sizeof(structure), structure.__name__
        self._render_frame = self._library.cag_render
        self._render_frame.restype = c_int64
        self._render_frame.argtypes = [c_void_p] * 4
        self._avatar = copy.deepcopy(avatar).eval().requires_grad_(False)
        self._head = self._avatar.head
        self._pose = make_live_pose(self._avatar)
        self.camera = camera
        #: Arrays that the structures point into.
        self._kept: dict[str, NDArray[Any]] = {}
        with torch.no_grad():
            self._scene = self._make_scene(basis)
            self._network = self._make_network(basis)
        self._background = background
        self._frame = self._make_frame(threads or torch.get_num_threads())
        self._work = self._make_work()

    @property
    def avatar(self) -> Avatar:
        """Its own copy of the avatar, frozen."""
        return self._avatar

    @property
    def stages(self) -> dict[str, float]:
        """Seconds of each stage of the last frame (STAGES); what precedes them is not in it."""
        return dict(zip(STAGES, self._frame.seconds, strict=True))

    @property
    def visible(self) -> int:
        """Gaussians that the last frame drew."""
        return int(self._frame.visible)

    @torch.inference_mode()
    def render(
        self,
        code: NDArray[np.float32] | Tensor,
        head_pose: NDArray[np.float32] | Tensor,
        torso_pose: NDArray[np.float32] | Tensor,
        out: NDArray[np.uint8] | None = None,
        channels: int = 3,
        bgr: bool = False,
    ) -> NDArray[np.uint8]:
        """Render one frame.

        Args:
            code: expression code, [E].
            head_pose: canonical to camera space, [4, 4].
            torso_pose: canonical to camera space, [4, 4].
            out: contiguous uint8 [H, W, channels] to write into; None makes one.
            channels: 3, or 4 for colours that are not blended with the background, and their alpha.
            bgr: blue first.

        Returns:
            ``out``.

        Raises:
            InputError: the Gaussians cover too many tiles to be drawn.
            ValueError: ``out`` does not fit.
        """
        frame = self._frame
        shape = (frame.height, frame.width, channels)
        if out is None:
            out = np.empty(shape, np.uint8)
        elif out.shape != shape or out.dtype != np.uint8 or not out.flags.c_contiguous:
            raise ValueError(f"out: must be contiguous uint8 {list(shape)}")
        code, head_pose, torso_pose = (
            np.asarray(value, np.float32) for value in (code, head_pose, torso_pose)
        )
        self._kept["values"][:], self._kept["joint"][:] = self._pose.drive(
            code, head_pose, torso_pose
        )
        self._kept["code"][:] = code
        if not self._scene.expression:
            canonical = self._head.express(self._avatar.rest, torch.from_numpy(code)[None])[0]
            self._kept["canonical"][:] = canonical.numpy()
        frame.head[:] = head_pose[:3, :3].ravel().tolist()
        frame.channels, frame.bgr = channels, int(bgr)
        frame.background[:] = self._background[::-1] if bgr else self._background
        frame.image = out.ctypes.data
        with kernel_launch:
            pairs = self._draw()
            if pairs > self._work.room:
                if pairs > _MAX_PAIRS:
                    raise InputError(
                        f"scales: the Gaussians cover more than {_MAX_PAIRS:,} tiles in all: bound "
                        "their size"
                    )
                self._make_room(2 * pairs)
                self._draw()
        return out

    def _draw(self) -> int:
        parts = (self._scene, self._network, self._work, self._frame)
        return int(self._render_frame(*(ctypes.addressof(part) for part in parts)))

    def _point(self, structure: ctypes.Structure, arrays: dict[str, NDArray[Any]]) -> None:
        """Hold on to arrays, and enter their addresses in a structure of frame.c."""
        for name, array in arrays.items():
            assert array.flags.c_contiguous, name
            self._kept[name] = array
            setattr(structure, name, array.ctypes.data)

    def _make_scene(self, basis: OffsetBasis | None) -> _Scene:
        own, head = self._avatar, self._head
        attributes = own.attributes
        assert self._library.cag_block() == BLOCK
        n = _up(own.num_gaussians, BLOCK)
        topology = own.binding.arrays()
        face, used, tangent_edge, rest_frames = topology.frame_arguments
        corner, barycentric, triangle = map(np.ascontiguousarray, topology.gaussian_arguments)
        start, around = _faces_around(face, len(own.rest))
        first = face[used, tangent_edge[used]]
        second = face[used, (tangent_edge[used] + 1) % 3]
        scene = _Scene(
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
        self._point(scene, arrays)
        return scene

    def _make_network(self, basis: OffsetBasis | None) -> _Network:
        own = self._avatar
        network, fusion = own.network, own.fusion
        lanes = int(self._library.cag_lanes())
        rows = torch.arange(own.num_gaussians)
        if basis is not None:
            rows = torch.from_numpy(basis.rows.astype(np.int64))
        count = _up(len(rows), BLOCK)  # also a multiple of ROWS, and as many as the offsets' room
        inner, width = fusion.context_size, _up(own.config.width, lanes)
        hidden, local = len(network.hidden), 0 if own.local is None else own.local.weight.shape[1]
        made = _Network(
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
            "last_weight": _grown(network.last.weight.T, (width, _ROOM)),
            "last_bias": _grown(network.last.bias, (_ROOM,)),
            "network_limit": _grown(own.offset_limits[rows], (count, _ROOM)),
            "network_mean": np.zeros((count, _ROOM), np.float32),
            "local_weight": np.zeros((count, local, _ROOM), np.float32),
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
            made.heads, _, made.tokens = gate.shape
            made.head_size = fusion.head_size
            arrays["gate"] = _grown(gate, (made.heads, count, made.tokens))
        if basis is not None:
            arrays["network_mean"][: len(rows), :NUM_OUTPUTS] = basis.mean[:, basis.rows].T
            solve = basis.solve.reshape(basis.rank, len(rows), NUM_OUTPUTS)
            arrays["solve"] = _grown(solve, (basis.rank, count, _ROOM))
        for name in ("limit", "mean"):  # the scene has fields of these names as well
            array = arrays.pop(f"network_{name}")
            self._kept[f"network_{name}"] = array
            setattr(made, name, array.ctypes.data)
        self._point(made, arrays)
        return made

    def _make_frame(self, threads: int) -> _Frame:
        camera, fusion = self.camera, self._avatar.fusion
        frame = _Frame(
            width=camera.width, height=camera.height, channels=3, threads=threads,
            fx=camera.fx, fy=camera.fy, cx=camera.cx, cy=camera.cy,
        )  # fmt: skip
        frame.limits[:] = frustum_limits(camera)
        values: tuple[int, ...] = (fusion.context_size,)
        if isinstance(fusion, CrossAttentionFusion):
            values = (fusion.heads, fusion.num_tokens, fusion.head_size)
        arrays = {
            "code": np.zeros(self._scene.expressions, np.float32),
            "values": np.zeros(values, np.float32),
            "joint": np.zeros((self._scene.joints, 3, 4), np.float32),
        }
        self._point(frame, arrays)
        return frame

    def _make_work(self) -> _Work:
        scene, camera = self._scene, self.camera
        n, tile = scene.gaussians, int(self._library.cag_tile())
        tiles = -(-camera.width // tile) * -(-camera.height // tile)
        sizes: dict[str, tuple[tuple[int, ...], Any]] = {
            "known": ((self._network.rows, _ROOM), np.float32),
            "basis_weight": ((scene.rank,), np.float32),
            "canonical": ((scene.vertices, 3), np.float32),
            "offset": ((NUM_OUTPUTS, 0 if scene.rank else n), np.float32),
            "posed": ((scene.vertices, 3), np.float32),
            "face_normal": ((scene.faces, 3), np.float32),
            "vertex_normal": ((scene.vertices, 3), np.float32),
            "turn": ((9, scene.triangles), np.float32),
            "record": ((n, 16), np.float32),
            "box": ((n, 4), np.int32),
            "key": ((n,), np.uint32),
            "order": ((2, n), np.int32),
            "start": ((tiles + 1,), np.int32),
            "end": ((tiles,), np.int32),
        }
        work = self._work = _Work()
        self._point(work, {name: np.zeros(shape, kind) for name, (shape, kind) in sizes.items()})
        self._make_room(16 * n)
        return work

    def _make_room(self, pairs: int) -> None:
        """Room for so many (Gaussian, tile) pairs."""
        # frame.c looks a few pairs ahead.
        self._point(self._work, {"pair": np.zeros(pairs + 16, np.int32)})
        self._work.room = pairs


def _faces_around(face: NDArray[Any], vertices: int) -> tuple[NDArray[Any], NDArray[Any]]:
    """Faces [F, 3] at each vertex: starts [V + 1] into the list [3 F] of faces, int32."""
    corner = face.ravel()
    order = np.argsort(corner, kind="stable")
    start = np.zeros(vertices + 1, np.int32)
    np.cumsum(np.bincount(corner, minlength=vertices), out=start[1:])
    return start, (order // 3).astype(np.int32)
