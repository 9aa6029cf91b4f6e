"""What draws an avatar live on this machine: a CUDA graph, one C function, or neither."""

from __future__ import annotations

import logging
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cag_avatar.avatar.compiled import CompiledAvatar
from cag_avatar.avatar.model import Avatar
from cag_avatar.camera import PinholeCamera
from cag_avatar.native.library import NativeUnavailableError
from cag_avatar.rendering.rasterizer import Backend, get_rasterizer

__all__ = ["LiveRenderer", "make_live_renderer"]

_LOG = logging.getLogger(__name__)


class LiveRenderer(Protocol):
    """An avatar whose frames are one call; not thread-safe."""

    @property
    def avatar(self) -> Avatar:
        """Its own copy of the avatar, frozen, on the CPU."""

    @property
    def stages(self) -> dict[str, float]:
        """Seconds of parts of the last frame."""

    def render(
        self,
        code: NDArray[np.float32] | Tensor,
        head_pose: NDArray[np.float32] | Tensor,
        torso_pose: NDArray[np.float32] | Tensor,
        out: NDArray[np.uint8] | None = None,
        channels: int = 3,
        bgr: bool = False,
    ) -> NDArray[np.uint8]:
        """One frame, [H, W, channels]; see CompiledAvatar.render()."""


def make_live_renderer(
    avatar: Avatar,
    camera: PinholeCamera,
    background: tuple[float, float, float],
    backend: Backend = "auto",
) -> LiveRenderer | None:
    """The fastest renderer that there is for a back end; which and why is logged.

    "cuda" is a CUDA graph, "cpu" the C function, "auto" the first where CUDA device and gsplat are
    there. None where network and rasteriser have to run one after the other: for "torch", and on
    the CPU without a C compiler.

    Raises:
        InputError: "cuda" asked for without a CUDA device, or gsplat cannot be used.
        MissingDependencyError: "cuda" asked for and gsplat is not installed.
    """
    if backend == "auto":
        # Where there is no CUDA device, the question would load numba for its answer.
        backend = "cuda" if torch.cuda.is_available() else "cpu"
        if backend == "cuda" and get_rasterizer("auto").name != "cuda":
            backend = "cpu"
    if backend == "cuda":
        from cag_avatar.avatar.cuda_avatar import CudaAvatar

        drawn = CudaAvatar(avatar, camera, background)
        _LOG.info("live renderer: cuda graph, %s", torch.cuda.get_device_name())
        return drawn
    if backend != "cpu":
        return None
    try:
        compiled = CompiledAvatar(avatar, camera, background, avatar.live_basis)
    except NativeUnavailableError as error:
        _LOG.warning("rendering without the compiled renderer, several times slower: %s", error)
        return None
    if avatar.live_basis is None:
        _LOG.warning(
            "the avatar's file has no live basis: every frame runs the whole offset network; "
            "run 'cag-avatar compile' once"
        )
    _LOG.info(
        "compiled renderer: cpu, %d threads, %s",
        torch.get_num_threads(),
        "the whole network" if avatar.live_basis is None else "live basis",
    )
    return compiled
