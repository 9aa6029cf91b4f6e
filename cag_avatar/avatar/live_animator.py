"""Starts an animator in a fraction of a second: from what an earlier start has prepared.

Reading an avatar, compiling it, and the import of torch for both take seconds. So what live
pictures are drawn from is kept in the cache folder, beside the C library, under a name that holds
what it depends on: the avatar file's content, this package, the C code, the width of the
processor's vectors.
"""

from __future__ import annotations

import hashlib
import logging
import os
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from cag_avatar import __version__
from cag_avatar.avatar.animator_base import AnimatorBase, check_picture
from cag_avatar.avatar.frame_renderer import FrameRenderer
from cag_avatar.avatar.linear_pose import LinearPose
from cag_avatar.avatar.live_parts import DamagedPartsError, LiveParts
from cag_avatar.errors import InputError
from cag_avatar.native.library import NativeUnavailableError, cache_folder, load_library
from cag_avatar.parallel import core_count

if TYPE_CHECKING:
    from cag_avatar.rendering.rasterizer import Backend

__all__ = ["LiveAnimator", "load_animator"]

_LOG = logging.getLogger(__name__)

#: Files that decide what is kept; with another content of theirs it is prepared anew.
_SOURCES = (
    ("cag_avatar.native", "frame.c"),
    ("cag_avatar.native", "lanes.h"),
    ("cag_avatar.avatar", "compiled.py"),
    ("cag_avatar.avatar", "live_parts.py"),
    ("cag_avatar.avatar", "linear_pose.py"),
)
#: Avatars that are kept; the ones that were not used for longest go. Each takes some 30 MB.
_KEPT = 12
#: Devices of which Linux says that a GPU may be there, which only torch can tell.
_GPUS = ("/dev/nvidiactl", "/dev/dxg", "/dev/kfd", "/dev/nvhost-gpu", "/dev/nvmap")


class LiveAnimator(AnimatorBase):
    """Renders one avatar by the compiled renderer, from prepared parts; not thread-safe.

    Args:
        parts: of the avatar.
        size: width and height of the pictures in pixels; None takes that of training.
        background: RGB, 0 to 255.

    Raises:
        InputError: size or background are out of range.
        NativeUnavailableError: the C code cannot be built here.
    """

    def __init__(
        self,
        parts: LiveParts,
        size: tuple[int, int] | None = None,
        background: tuple[int, int, int] = (255, 255, 255),
    ) -> None:
        check_picture(size, background)
        camera = parts.record.camera
        super().__init__(
            parts.record, parts.layout, camera if size is None else camera.resized(*size)
        )
        self._renderer = FrameRenderer(
            parts.frame, parts.pose, self.camera, background, core_count()
        )

    def render(
        self,
        code: NDArray[np.floating],
        head_pose: NDArray[np.floating] | None = None,
        torso_pose: NDArray[np.floating] | None = None,
    ) -> NDArray[np.uint8]:
        """Render one frame, see AnimatorBase."""
        return self._renderer.render(*self._checked(code, head_pose, torso_pose))

    def render_rgba(
        self,
        code: NDArray[np.floating],
        head_pose: NDArray[np.floating] | None = None,
        torso_pose: NDArray[np.floating] | None = None,
    ) -> NDArray[np.uint8]:
        """Render one frame without a background, see AnimatorBase."""
        return self._renderer.render(*self._checked(code, head_pose, torso_pose), channels=4)


def load_animator(
    path: Path | str,
    backend: Backend = "auto",
    size: tuple[int, int] | None = None,
    background: tuple[int, int, int] = (255, 255, 255),
) -> AnimatorBase:
    """An animator of a .cag file, from prepared parts where there are some; else :class:`Animator`,
    and the parts are prepared for the next time, if this machine draws by the compiled renderer.

    Args:
        path: avatar file.
        backend: rasteriser to use; prepared parts serve ``cpu``, and ``auto`` without a GPU.
        size: width and height of the pictures in pixels; None takes that of training.
        background: RGB, 0 to 255.

    Raises:
        InputError: a bad file, size or background.
    """
    kept = _kept_file(Path(path), backend)
    parts = None if kept is None else _load(kept)
    if parts is not None:
        rank = parts.frame.scene_sizes["rank"]
        if not rank:
            _LOG.warning(
                "the avatar's file has no live basis: every frame runs the whole offset network; "
                "run 'cag-avatar compile' once"
            )
        _LOG.info(
            "compiled renderer: cpu, %d threads, %s, prepared by an earlier start (%s)",
            core_count(),
            "live basis" if rank else "the whole network",
            kept,
        )
        return LiveAnimator(parts, size, background)
    from cag_avatar.avatar.animator import Animator  # brings torch
    from cag_avatar.avatar.compiled import CompiledAvatar

    animator = Animator.load(path, backend, size, background)
    compiled = animator.compiled
    if kept is not None and isinstance(compiled, CompiledAvatar):
        pose = compiled.pose
        if isinstance(pose, LinearPose):
            _keep(kept, LiveParts(compiled.parts, pose, animator.record, animator.layout))
    return animator


def _kept_file(path: Path, backend: Backend) -> Path | None:
    """Where the parts of an avatar are kept; None: they are of no use."""
    may_be_gpu = backend == "auto" and any(map(os.path.exists, _GPUS))
    if may_be_gpu or backend not in ("auto", "cpu"):
        return None
    try:
        lanes = int(load_library("frame").cag_lanes())
        digest = hashlib.sha256(f"{__version__} {lanes}".encode())
        for package, name in _SOURCES:
            digest.update(resources.files(package).joinpath(name).read_bytes())
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    except (NativeUnavailableError, OSError):
        return None  # Animator.load() says what is wrong
    return cache_folder() / f"live-{digest.hexdigest()[:32]}.safetensors"


def _load(kept: Path) -> LiveParts | None:
    if not kept.is_file():
        return None
    try:
        parts = LiveParts.load(kept)
        kept.touch()
    except (OSError, DamagedPartsError, InputError) as error:
        _LOG.warning("%s is damaged (%s): the avatar is prepared anew", kept, error)
        return None
    return parts


def _keep(kept: Path, parts: LiveParts) -> None:
    try:
        parts.save(kept)
        files = sorted(kept.parent.glob("live-*.safetensors"), key=lambda f: f.stat().st_mtime)
        for old in files[:-_KEPT]:
            old.unlink(missing_ok=True)
    except OSError as error:
        _LOG.warning("starts stay slow: %s cannot be written (%s)", kept, error)
