"""``cag-avatar render``."""

from __future__ import annotations

from pathlib import Path

from cag_avatar_training.progress import bar
from cag_avatar_training.reenactment import reenact

from cag_avatar.avatar.animator import Animator
from cag_avatar_cli.options import Backend, OutputPath, PathArgument


def command(
    avatar: PathArgument,
    drive: Path,
    output: OutputPath,
    size: int | None = None,
    backend: Backend = "auto",
) -> None:
    """Drive an avatar by a dataset or by a video of anybody, and write a video.

    Args:
        avatar: *.cag file.
        drive: dataset folder, or video.
        output: MP4 to write.
        size: width and height of the avatar's pictures; by default those of its training.
        backend: rasteriser.
    """
    animator = Animator.load(avatar, backend, None if size is None else (size, size))
    with bar("render") as progress:
        frames = reenact(animator, drive, output, progress)
    print(f"video: {output} ({frames} frames)")
