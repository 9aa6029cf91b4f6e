"""Avatars drawn live on a CUDA device: codes and poses in, uint8 pictures out.

The whole frame is one CUDA graph: offsets, posed mesh, Gaussians (``frame_module.py``), gsplat's
projection, the tiles' lists, gsplat's blending, conversion to bytes. The lists are made by
``rendering/tile_lists.py`` and not by gsplat's ``isect_tiles``, which reads their length back to
the host. So their length has a bound here; a frame that exceeds it says so in its last bytes, and
is drawn again with a graph that has more room.
"""

from __future__ import annotations

import copy
import logging
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cag_avatar.avatar.frame_module import FrameModule
from cag_avatar.avatar.frame_program import FrameProgram
from cag_avatar.avatar.graph_runner import IN_FLIGHT, EagerRunner, GraphRunner, Runner
from cag_avatar.avatar.model import Avatar
from cag_avatar.avatar.offset_basis import OffsetBasis
from cag_avatar.camera import PinholeCamera
from cag_avatar.errors import InputError
from cag_avatar.rendering.gsplat_kernels import GsplatKernels, TileKernels

__all__ = ["CudaAvatar", "Driving"]

#: Most (Gaussian, tile) pairs that are drawn; sorting takes some 50 bytes each.
_MAX_PAIRS = 50_000_000
#: Pairs for each Gaussian that there is room for at first, and to what it is rounded up.
_PAIRS, _ROUND = 12, 1 << 14
#: Graphs that are kept, of different batches and kinds of picture.
_MOST_PROGRAMS = 4
#: Largest change that half precision may make to an offset: metres, rotation, log-scale, colour.
_HALF_ERROR = (2e-5,) * 3 + (2e-3,) * 3 + (2e-3,) * 3 + (1e-3,) * 3

_LOG = logging.getLogger(__name__)

Values = NDArray[np.floating] | Tensor
#: Codes [B, E], head poses [B, 4, 4] and torso poses [B, 4, 4] or [4, 4].
Driving = tuple[Values, Values, Values]
MakeKernels = Callable[[PinholeCamera, int, torch.device], TileKernels]


def _array(values: Values) -> NDArray[np.float32]:
    if isinstance(values, Tensor):
        values = values.detach().cpu().numpy()
    return np.asarray(values, np.float32)


class CudaAvatar:
    """Renders one avatar, or several that are alike, on a CUDA device; not thread-safe.

    The first picture of each kind and batch size captures a graph, which takes part of a second.

    Args:
        avatar: one, or A of equal numbers of Gaussians, structure and head model, for
            :meth:`render_batch`; later changes to them have no effect here.
        camera: of the pictures.
        background: RGB, 0 to 255.
        basis: makes the offsets (one for each avatar); None runs the offset network for every
            Gaussian, which a GPU hardly notices and which is nearer to the training-time picture.
        dtype: of the offset network; None takes float16 where that makes no difference, else
            float32, and logs which.
        device: where to draw; None is the current CUDA device.
        kernels: makes the projection and blending for a camera, a batch size and a device.

    Raises:
        InputError: the avatars are not alike, there is no CUDA device, or gsplat cannot be used.
        MissingDependencyError: gsplat is not installed.
    """

    def __init__(
        self,
        avatar: Avatar | Sequence[Avatar],
        camera: PinholeCamera,
        background: tuple[float, float, float] = (255.0, 255.0, 255.0),
        basis: OffsetBasis | Sequence[OffsetBasis] | None = None,
        dtype: torch.dtype | None = None,
        device: torch.device | None = None,
        kernels: MakeKernels = GsplatKernels,
    ) -> None:
        avatars = [avatar] if isinstance(avatar, Avatar) else list(avatar)
        if not avatars:
            raise InputError("avatars: give at least one")
        bases = [basis] if isinstance(basis, OffsetBasis) else basis
        self._make_kernels = kernels
        if device is None:
            kernels(camera, 1, torch.device("cuda"))  # says what is missing
            device = torch.device("cuda", torch.cuda.current_device())
        self._device = device
        self.camera = camera
        self._background = background
        self._count = len(avatars)
        self._avatar = copy.deepcopy(avatars[0]).cpu().eval().requires_grad_(False)
        exact = FrameModule(avatars, bases).to(device)
        if dtype is None:
            dtype = self._fastest(exact, avatars, bases)
        self._module = (
            exact if dtype == torch.float32 else FrameModule(avatars, bases, dtype).to(device)
        )
        self._pairs = _PAIRS * self._avatar.num_gaussians  # of a picture
        self._programs: dict[tuple[int, int, bool], tuple[FrameProgram, Runner]] = {}
        self._used: tuple[FrameProgram, Runner] | None = None

    @property
    def avatar(self) -> Avatar:
        """Its own copy of the (first) avatar, frozen, on the CPU."""
        return self._avatar

    @property
    def num_avatars(self) -> int:
        """Number A of avatars."""
        return self._count

    @property
    def stages(self) -> dict[str, float]:
        """Seconds of the last picture on the device, by CUDA events: ``draw``, ``read-back``."""
        return {} if self._used is None else self._used[1].seconds

    def _example(self, batch: int) -> Driving:
        """The face at rest in its neutral pose, as far as there is a record."""
        own, record = self._avatar, self._avatar.record
        poses = (
            (np.eye(4), np.eye(4))
            if record is None
            else (record.neutral_head_pose, record.neutral_torso_pose)
        )
        head, torso = (np.tile(p.astype(np.float32), (batch, 1, 1)) for p in poses)
        return np.tile(own.neutral_code.numpy(), (batch, 1)), head, torso

    @torch.no_grad()
    def _fastest(
        self, exact: FrameModule, avatars: list[Avatar], bases: Sequence[OffsetBasis] | None
    ) -> torch.dtype:
        """float16 if it equals float32 at the face at rest and at its extremes."""
        if self._device.type != "cuda":
            return torch.float32
        batch = 3 * self._count
        code, head, torso = (torch.from_numpy(_array(v)) for v in self._example(batch))
        record = self._avatar.record
        if record is not None:
            code[1::3] = torch.from_numpy(record.code_max.astype(np.float32))
            code[2::3] = torch.from_numpy(record.code_min.astype(np.float32))
        driving = [v.to(self._device) for v in (code, head, torso)]
        half = FrameModule(avatars, bases, torch.float16).to(self._device)
        error = (half.offsets(*driving) - exact.offsets(*driving)).abs().amax((0, 1)).cpu()
        equal = bool((error <= torch.tensor(_HALF_ERROR)).all())
        _LOG.info(
            "offset network in %s (float16 moves Gaussians by up to %.3f mm)",
            "float16" if equal else "float32",
            1e3 * float(error[:3].max()),
        )
        return torch.float16 if equal else torch.float32

    def render(
        self,
        code: Values,
        head_pose: Values,
        torso_pose: Values,
        out: NDArray[np.uint8] | None = None,
        channels: int = 3,
        bgr: bool = False,
    ) -> NDArray[np.uint8]:
        """Render one frame of one avatar.

        Args:
            code: expression code, [E].
            head_pose: canonical to camera space, [4, 4].
            torso_pose: canonical to camera space, [4, 4].
            out: uint8 [H, W, channels] to write into; None makes one.
            channels: 3, or 4 for colours that are not blended with the background, and their alpha.
            bgr: blue first.

        Returns:
            ``out``.

        Raises:
            InputError: the Gaussians cover too many tiles to be drawn.
            ValueError: ``out`` does not fit, or there are several avatars.
        """
        batch = None if out is None else out[None]
        driving = (_array(code)[None], _array(head_pose)[None], _array(torso_pose)[None])
        return self.render_batch(*driving, batch, channels, bgr)[0]

    def render_batch(
        self,
        codes: Values,
        head_poses: Values,
        torso_poses: Values,
        out: NDArray[np.uint8] | None = None,
        channels: int = 3,
        bgr: bool = False,
    ) -> NDArray[np.uint8]:
        """Render B frames together: states, views (poses) or avatars.

        Args:
            codes: expression codes, [B, E]; B is a multiple of the avatars' number A, and the first
                B / A frames are the first avatar's.
            head_poses: canonical to camera space, [B, 4, 4].
            torso_poses: canonical to camera space, [B, 4, 4], or [4, 4] for all.
            out: uint8 [B, H, W, channels] to write into; None makes one.
            channels: as for :meth:`render`.
            bgr: as for :meth:`render`.

        Returns:
            ``out``.

        Raises:
            InputError: the Gaussians cover too many tiles to be drawn.
            ValueError: shapes do not fit.
        """
        frames = [(codes, head_poses, torso_poses)]
        pictures = next(self._stream(frames, channels, bgr))
        if out is None:
            return pictures.copy()
        if out.shape != pictures.shape or out.dtype != np.uint8:
            raise ValueError(f"out: must be uint8 {list(pictures.shape)}")
        out[...] = pictures
        return out

    def stream(
        self, frames: Iterable[Driving], channels: int = 3, bgr: bool = False
    ) -> Iterator[NDArray[np.uint8]]:
        """Render batches of one size one after the other, the next being drawn while one is read
        back: more pictures a second than by :meth:`render_batch`, each a little later.

        Args:
            frames: codes, head poses and torso poses of each batch, as for :meth:`render_batch`.
            channels: as for :meth:`render`.
            bgr: as for :meth:`render`.

        Yields:
            uint8 [B, H, W, channels] of each batch in order; valid until the next is asked for.
            Nothing else may be rendered meanwhile.
        """
        yield from self._stream(frames, channels, bgr)

    def _stream(
        self, frames: Iterable[Driving], channels: int, bgr: bool
    ) -> Iterator[NDArray[np.uint8]]:
        pending: deque[NDArray[np.float32]] = deque()
        key: tuple[int, int, bool] | None = None
        try:
            for driving in frames:
                code, head, torso = self._checked(driving)
                if key is not None and key[0] != len(code):
                    raise ValueError("frames: all batches of a stream must be of one size")
                key = (len(code), channels, bgr)
                if len(pending) == IN_FLIGHT:
                    yield self._collect(key, pending)
                program, runner = self._program(key)
                inputs = np.empty(program.inputs, np.float32)
                program.pack(inputs, code, head, torso)
                runner.submit(inputs)
                pending.append(inputs)
            while pending:
                assert key is not None
                yield self._collect(key, pending)
        finally:  # who stops listening, or an error, leaves frames behind
            if key in self._programs:
                self._programs[key][1].drain()

    def _checked(self, driving: Driving) -> tuple[NDArray[np.float32], ...]:
        code, head, torso = (_array(v) for v in driving)
        expressions = self._avatar.neutral_code.shape[0]
        batch = len(code) if code.ndim == 2 else 0
        if code.shape != (batch, expressions) or batch < 1 or batch % self._count:
            raise ValueError(
                f"codes: shape {list(code.shape)}, expected [B, {expressions}] with B a multiple "
                f"of {self._count}"
            )
        if torso.shape == (4, 4):
            torso = np.broadcast_to(torso, (batch, 4, 4))
        for name, pose in (("head_poses", head), ("torso_poses", torso)):
            if pose.shape != (batch, 4, 4):
                raise ValueError(f"{name}: shape {list(pose.shape)}, expected [{batch}, 4, 4]")
        return code, head, torso

    def _collect(
        self, key: tuple[int, int, bool], pending: deque[NDArray[np.float32]]
    ) -> NDArray[np.uint8]:
        """The oldest frame; drawn again with more room if there was too little."""
        while True:
            program, runner = self._used = self._programs[key]
            pictures, pairs = program.unpack(runner.collect())
            if pairs <= program.capacity:
                pending.popleft()
                return pictures
            runner.drain()  # those behind it are drawn again too
            self._make_room(key[0], pairs)
            del self._programs[key]
            runner = self._program(key)[1]
            for inputs in pending:
                runner.submit(inputs)

    def _make_room(self, batch: int, pairs: int) -> None:
        if pairs > _MAX_PAIRS:
            raise InputError(
                f"scales: the Gaussians cover more than {_MAX_PAIRS:,} tiles in all: bound their "
                "size"
            )
        self._pairs = max(self._pairs, -(-min(2 * pairs, _MAX_PAIRS) // batch))
        _LOG.info("room for %d Gaussians in tiles, a picture", self._pairs)

    def _program(self, key: tuple[int, int, bool]) -> tuple[FrameProgram, Runner]:
        if key not in self._programs:
            while len(self._programs) >= _MOST_PROGRAMS:
                del self._programs[next(iter(self._programs))]
            self._programs[key] = self._build(*key)
        return self._programs[key]

    def _build(self, batch: int, channels: int, bgr: bool) -> tuple[FrameProgram, Runner]:
        if channels not in (3, 4):
            raise ValueError(f"channels: {channels}, expected 3 or 4")
        program = self.program(batch, channels, bgr)
        if self._device.type != "cuda":
            return program, EagerRunner(program, self._device)
        return program, GraphRunner(program, self.example(program), self._device)

    def program(self, batch: int, channels: int = 3, bgr: bool = False) -> FrameProgram:
        """What draws a batch, with the room that is known to be needed."""
        return FrameProgram(
            self._module,
            self._make_kernels(self.camera, batch, self._device),
            self.camera,
            self._background,
            batch,
            -(-batch * self._pairs // _ROUND) * _ROUND,
            channels,
            bgr,
        )

    def example(self, program: FrameProgram) -> NDArray[np.float32]:
        """Inputs of a program: faces at rest."""
        inputs = np.empty(program.inputs, np.float32)
        program.pack(inputs, *(_array(v) for v in self._example(len(inputs))))
        return inputs
