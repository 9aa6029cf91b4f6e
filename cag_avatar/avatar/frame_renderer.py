"""Draws live pictures on the CPU from arrays that were made of an avatar; knows no torch.

One C function (``native/frame.c``) does a frame on all cores, in memory that is allocated once.
``compiled.py`` makes the arrays.
"""

from __future__ import annotations

import ctypes
from collections.abc import Mapping
from ctypes import c_double, c_float, c_int32, c_int64, c_void_p
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cag_avatar.avatar.linear_pose import LivePose
from cag_avatar.camera import PinholeCamera
from cag_avatar.errors import InputError
from cag_avatar.native.library import check_layout, load_library
from cag_avatar.parallel import kernel_launch
from cag_avatar.rendering.frustum import frustum_limits

__all__ = ["OUTPUTS", "ROOM", "STAGES", "FrameParts", "FrameRenderer"]

#: Stages that a frame is timed in, in the order of Frame.seconds.
STAGES = ("network", "mesh", "gaussians", "sort", "bin", "blend")
#: Offsets of a Gaussian (NUM_OUTPUTS of the network), and the room for them in frame.c.
OUTPUTS, ROOM = 12, 16
#: Most (Gaussian, tile) pairs that are drawn; they take 4 bytes each.
_MAX_PAIRS = 100_000_000


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
        ("blur", c_float),
        *((name, c_void_p) for name in ("code", "values", "joint", "image")),
        ("seconds", c_double * 6),
    )  # fmt: skip


@dataclass(frozen=True, eq=False)
class FrameParts:
    """What ``frame.c`` has to know of an avatar: the fields of its ``Scene`` and ``Network``."""

    scene_sizes: dict[str, int]
    """Numbers of the scene."""
    scene: dict[str, NDArray[Any]]
    """Arrays of the scene, contiguous."""
    network_sizes: dict[str, int]
    """Numbers of the network."""
    network: dict[str, NDArray[Any]]
    """Arrays of the network, contiguous."""
    values: tuple[int, ...]
    """Shape of the first thing that LivePose.drive() gives."""


class FrameRenderer:
    """Renders one avatar on the CPU; not thread-safe.

    Args:
        parts: of the avatar; made for this machine's library (``cag_lanes``).
        pose: what code and poses mean for it.
        camera: of the pictures.
        background: RGB, 0 to 255.
        threads: cores to use.

    Raises:
        NativeUnavailableError: the C code cannot be built here.
    """

    def __init__(
        self,
        parts: FrameParts,
        pose: LivePose,
        camera: PinholeCamera,
        background: tuple[float, float, float],
        threads: int,
    ) -> None:
        self._library = load_library("frame")
        check_layout(self._library, _Network, _Scene, _Work, _Frame)
        self._render_frame = self._library.cag_render
        self._render_frame.restype = c_int64
        self._render_frame.argtypes = [c_void_p] * 4
        self._pose = pose
        self.camera = camera
        #: Arrays that the structures point into.
        self._kept: dict[str, NDArray[Any]] = {}
        self._scene, self._network = _Scene(**parts.scene_sizes), _Network(**parts.network_sizes)
        self._point(self._scene, parts.scene)
        self._point(self._network, parts.network, "network.")
        self._background = background
        self._frame = self._make_frame(parts.values, threads)
        self._work = self._make_work()

    @property
    def stages(self) -> dict[str, float]:
        """Seconds of each stage of the last frame (STAGES); what precedes them is not in it."""
        return dict(zip(STAGES, self._frame.seconds, strict=True))

    @property
    def visible(self) -> int:
        """Gaussians that the last frame drew."""
        return int(self._frame.visible)

    def render(
        self,
        code: ArrayLike,
        head_pose: ArrayLike,
        torso_pose: ArrayLike,
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
            self._kept["canonical"][:] = self._pose.canonical(code)
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

    def _point(
        self, structure: ctypes.Structure, arrays: Mapping[str, NDArray[Any]], prefix: str = ""
    ) -> None:
        """Hold on to arrays, and enter their addresses in a structure of frame.c."""
        for name, array in arrays.items():
            assert array.flags.c_contiguous, name
            self._kept[prefix + name] = array
            setattr(structure, name, array.ctypes.data)

    def _make_frame(self, values: tuple[int, ...], threads: int) -> _Frame:
        camera = self.camera
        frame = _Frame(
            width=camera.width, height=camera.height, channels=3, threads=threads,
            fx=camera.fx, fy=camera.fy, cx=camera.cx, cy=camera.cy, blur=camera.blur_variance,
        )  # fmt: skip
        frame.limits[:] = frustum_limits(camera)
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
            "known": ((self._network.rows, ROOM), np.float32),
            "basis_weight": ((scene.rank,), np.float32),
            "canonical": ((scene.vertices, 3), np.float32),
            "offset": ((OUTPUTS, 0 if scene.rank else n), np.float32),
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
