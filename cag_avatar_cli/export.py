"""``cag-avatar export``."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from cag_avatar_training.dataset import Dataset
from cag_avatar_training.progress import bar
from numpy.typing import NDArray
from torch import Tensor

from cag_avatar.avatar.animator import Animator
from cag_avatar.avatar.expression import parse_expression
from cag_avatar.avatar.file import load_avatar
from cag_avatar.avatar.model import Avatar
from cag_avatar.errors import InputError
from cag_avatar.export.onnx import export_onnx
from cag_avatar.export.ply import Axes, export_ply, torso_in_head
from cag_avatar.export.turntable import Turntable, turntable_frames
from cag_avatar.export.video_file import write_mp4
from cag_avatar_cli.options import Backend, OutputPath, PathArgument

#: Suffix: what is written.
FORMATS = {
    ".ply": "Gaussians of one expression, for viewers and editors",
    ".mp4": "turntable",
    ".onnx": "graph of code and poses to Gaussians",
}


def command(
    avatar: PathArgument,
    output: OutputPath,
    expression: tuple[str, ...] = (),
    dataset: Path | None = None,
    frame: int | None = None,
    axes: Axes = "y-down",
    turntable: Turntable = Turntable(),  # noqa: B008
    size: int | None = None,
    backend: Backend = "auto",
) -> None:
    """Write an avatar for other programs; the suffix of the output says what.

    FILE.ply: its Gaussians in one expression, in the layout of 3D Gaussian splatting (SuperSplat
    and the like). FILE.mp4: a turntable with a moving face. FILE.onnx: code and poses -> Gaussians.

    Args:
        avatar: *.cag file.
        output: file to write: .ply, .mp4 or .onnx.
        expression: of a .ply or .mp4, such as jawOpen=0.6 mouthSmileLeft=0.4; neutral otherwise
            (.ply), or a little of everything (.mp4).
        dataset: take the expression from this dataset's frame, with --frame.
        frame: number of the frame, from 0.
        axes: of a .ply: y-down is what viewers expect of it; y-up keeps the head's own axes.
        turntable: of an .mp4.
        size: width and height of an .mp4; by default those of the training.
        backend: rasteriser of an .mp4.
    """
    suffix = output.suffix.lower()
    if suffix not in FORMATS:
        choices = ", ".join(f"{name} ({what})" for name, what in FORMATS.items())
        raise InputError(f"{output}: the suffix names the format; choose from {choices}")
    opened = load_avatar(avatar)
    code, torso = _expression(opened, expression, dataset, frame)
    if suffix == ".ply":
        if torso is None:
            torso = torso_in_head(opened, None, None)
        shown = opened.neutral_code if code is None else code
        count = export_ply(output, opened, shown, torso, axes)
        print(f"gaussians: {output} ({count})")
    elif suffix == ".onnx":
        if code is not None:
            raise InputError("expression, frame: an .onnx takes any expression; leave them out")
        export_onnx(output, opened)
        print(f"graph: {output}")
    else:
        animator = Animator(opened, backend, None if size is None else (size, size))
        pictures = turntable_frames(animator, None if code is None else code.numpy(), turntable)
        with bar("turntable") as progress:
            counted = _counted(pictures, lambda done: progress(done, turntable.frames))
            count = write_mp4(output, counted, turntable.fps)
        print(f"video: {output} ({count} frames)")


def _counted(
    pictures: Iterator[NDArray[np.uint8]], tell: Callable[[int], None]
) -> Iterator[NDArray[np.uint8]]:
    for done, picture in enumerate(pictures, start=1):
        yield picture
        tell(done)


def _expression(
    avatar: Avatar, words: tuple[str, ...], dataset: Path | None, frame: int | None
) -> tuple[Tensor | None, Tensor | None]:
    """Code [E] and the torso's pose in the head's frame [4, 4]; None where nobody asked."""
    if (dataset is None) != (frame is None):
        raise InputError("frame: give --dataset and --frame together")
    if dataset is None or frame is None:
        return (parse_expression(avatar, words) if words else None), None
    if words:
        raise InputError("expression: give either it or --dataset and --frame")
    tracking = Dataset.open(dataset).tracking
    if not 0 <= frame < len(tracking):
        raise InputError(f"frame: {frame} is not in {dataset}, which has 0 .. {len(tracking) - 1}")
    code = torch.from_numpy(tracking.codes[frame])
    if len(code) != len(avatar.expression_names):
        raise InputError(f"{dataset}: codes of {len(code)} coefficients are not for this avatar")
    head, torso = (torch.from_numpy(p[frame]) for p in (tracking.head_pose, tracking.torso_pose))
    return code, torso_in_head(avatar, head, torso)
