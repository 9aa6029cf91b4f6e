"""metrical-tracker's ``.frame`` files, read without running what they hold.

A .frame is a ``torch.save`` of a dictionary of numpy arrays, that is, a pickle, and a pickle may
name any function to call. torch's weights-only reader takes the plain containers, and here, beyond
them, what rebuilds an array of numbers; a file that names anything else is refused.
"""

from __future__ import annotations

import io
import pickle
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from cag_avatar_training.importers.fields import Record, require_file
from cag_avatar_training.importers.foreign import FlameTrack
from cag_avatar_training.importers.rotations import from_rotation_6d
from numpy.typing import NDArray

from cag_avatar.errors import InputError

__all__ = ["TrackerFrame", "read_frame_file", "stack_frames"]

_FIX = "track the clip again with metrical-tracker"
_NUMBERS = ("?", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", "f8")


@dataclass(frozen=True)
class TrackerFrame:
    """One frame of metrical-tracker: a static head seen by a camera that moves."""

    file: Path
    """The file."""
    width: int
    """Pixels."""
    height: int
    """Pixels."""
    intrinsics: NDArray[np.float64]
    """fx, fy, cx, cy in pixels, [4]."""
    world_to_camera: NDArray[np.float64]
    """World to camera space (OpenCV axes), metres, [4, 4]."""
    shape: NDArray[np.float64]
    """[S]."""
    expression: NDArray[np.float64]
    """[N]."""
    jaw: NDArray[np.float64]
    """[3, 3]."""
    eyes: NDArray[np.float64]
    """[2, 3, 3], FLAME's joints 3 and 4."""
    eyelids: NDArray[np.float64]
    """[2]."""


def _allowed() -> list[Callable[..., Any] | tuple[Callable[..., Any], str]]:
    """What rebuilds an array of numbers, under the names of numpy 1 and of numpy 2."""
    reconstruct = np.empty(0).__reduce__()[0]
    scalar = np.float64(0).__reduce__()[0]
    assert callable(reconstruct)
    assert callable(scalar)
    named = [
        (function, f"numpy.{package}.multiarray.{name}")
        for package in ("core", "_core")
        for name, function in (("_reconstruct", reconstruct), ("scalar", scalar))
    ]
    # No object arrays: dtype("O") is left out.
    return [*named, np.ndarray, np.dtype, *(type(np.dtype(code)) for code in _NUMBERS)]


def read_frame_file(file: Path) -> TrackerFrame:
    """Read one ``.frame`` file.

    Raises:
        InputError: missing, not such a file, one that names code to run, or a field that is missing
            or of the wrong shape.
    """
    require_file(file, "give the folder of all .frame files with --checkpoints")
    try:
        data = io.BytesIO(file.read_bytes())
        with torch.serialization.safe_globals(_allowed()):
            content = torch.load(data, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise InputError(
            f"{file}: refused: it holds more than arrays of numbers, and reading it would run code "
            f"that came with it; get the file from its author, or {_FIX}"
        ) from error
    except (RuntimeError, EOFError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{file}: not a .frame file, or cut short; {_FIX}") from error
    values = Record(content, file, fix=_FIX)
    flame, opencv = values.record("flame"), values.record("opencv")
    height, width = values.array("img_size", 2)  # rows first
    matrix = opencv.array("K", 3, 3)
    pose = np.eye(4)
    pose[:3, :3] = opencv.array("R", 3, 3)
    pose[:3, 3] = opencv.array("t", 3)
    if not np.allclose(pose[:3, :3] @ pose[:3, :3].T, np.eye(3), atol=1e-2):
        raise opencv.wrong("R", "is not a rotation")
    return TrackerFrame(
        file=file,
        width=round(width),
        height=round(height),
        intrinsics=np.array([matrix[0, 0], matrix[1, 1], matrix[0, 2], matrix[1, 2]]),
        world_to_camera=pose,
        shape=flame.array("shape", -1),
        expression=flame.array("exp", -1),
        jaw=from_rotation_6d(flame.array("jaw", 6)),
        eyes=from_rotation_6d(flame.array("eyes", 12).reshape(2, 6)),
        eyelids=flame.array("eyelids", 2),
    )


def stack_frames(frames: list[TrackerFrame]) -> FlameTrack:
    """FLAME's parameters of a clip. Raises InputError when the frames do not belong together."""
    first = frames[0]
    for frame in frames:
        if frame.shape.shape != first.shape.shape or np.abs(frame.shape - first.shape).max() > 1e-3:
            raise InputError(
                f"{frame.file}: field 'flame.shape' differs from {first.file.name}'s: another "
                "person, or another run; give the .frame files of one run"
            )
        if len(frame.expression) != len(first.expression):
            raise InputError(
                f"{frame.file}: field 'flame.exp' has {len(frame.expression)} values, "
                f"{first.file.name} has {len(first.expression)}; give the .frame files of one run"
            )
    return FlameTrack.neutral(len(frames)).with_values(
        shape=first.shape,
        expression=np.stack([f.expression for f in frames]),
        jaw=np.stack([f.jaw for f in frames]),
        eyes=np.stack([f.eyes for f in frames]),
        eyelids=np.stack([f.eyelids for f in frames]),
    )
