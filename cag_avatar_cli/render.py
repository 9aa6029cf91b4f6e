"""``cag-avatar render``."""

from __future__ import annotations

from pathlib import Path

from cag_avatar_training.progress import bar
from cag_avatar_training.reenactment import DriveConfig, Expression, Head, Regressor, reenact

from cag_avatar.avatar.animator import Animator
from cag_avatar.avatar.retargeting import Gaze
from cag_avatar_cli.options import Backend, OutputPath, PathArgument


def command(
    avatar: PathArgument,
    drive: Path,
    output: OutputPath,
    size: int | None = None,
    expression: Expression = "auto",
    head: Head = "auto",
    gaze: Gaze = "follow",
    regressor: Regressor = "auto",
    backend: Backend = "auto",
) -> None:
    """Drive an avatar by a dataset or by a video of anybody, and write a video.

    Args:
        avatar: *.cag file.
        drive: dataset folder, or video.
        output: MP4 to write.
        size: width and height of the avatar's pictures; by default those of its training.
        expression: relative to the driver's face at rest, or absolute: codes as they are; auto is
            absolute for the avatar's own dataset, else relative.
        head: relative to the driver's pose at rest, absolute, or none; auto as for expression.
        gaze: follow the driver's, or none.
        regressor: codes by the network that knows the avatar's person alone: on says that they
            drive, auto looks whether they do.
        backend: rasteriser.
    """
    animator = Animator.load(avatar, backend, None if size is None else (size, size))
    config = DriveConfig(expression, head, gaze, regressor)
    with bar("render") as progress:
        frames = reenact(animator, drive, output, progress, config)
    print(f"video: {output} ({frames} frames)")
