"""What the face landmarker finds in pictures of one subject, and the truth."""

from __future__ import annotations

import zipfile
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cag_avatar.errors import InputError
from cag_avatar.files import replacing
from cag_avatar.head_models import ARKIT_NAMES
from cag_avatar.tracking.face_landmarker import FACE_LANDMARKS, NUM_LANDMARKS

__all__ = ["CorrectionData"]


@dataclass(frozen=True)
class CorrectionData:
    """T pictures of one subject in which its face was found; float32."""

    landmarks: NDArray[np.float32]
    """Detected, [T, 478, 3] pixels."""
    scores: NDArray[np.float32]
    """Blendshape scores, [T, 52]."""
    colors: NDArray[np.float32]
    """Of ``face_colors``, [T, 468, 3]."""
    codes: NDArray[np.float32]
    """True expression codes, [T, 52]."""
    true_px: NDArray[np.float32]
    """Where the head model's landmarks are, [T, 478, 2] pixels."""
    mirrored_px: NDArray[np.float32]
    """Where the mirror images of those surface points are, [T, 478, 2] pixels of the same picture:
    the surface points of the landmarks are not quite symmetric."""
    head_pose: NDArray[np.float32]
    """Canonical to camera space, [T, 4, 4]."""
    focal: NDArray[np.float32]
    """Of the camera, pixels, []; its axis meets the picture's middle."""
    width: NDArray[np.float32]
    """Of the picture, pixels, []."""

    def save(self, path: Path) -> None:
        """Write as npz; colours as float16."""
        arrays = {field.name: getattr(self, field.name) for field in fields(self)}
        arrays["colors"] = self.colors.astype(np.float16)
        with replacing(path) as temporary:
            np.savez(temporary, **arrays)

    @classmethod
    def load(cls, path: Path) -> CorrectionData:
        """Read a file that :meth:`save` wrote. Raises InputError naming it when it is not one."""
        names = [field.name for field in fields(cls)]
        try:
            with np.load(path, allow_pickle=False) as stored:
                arrays = {name: np.asarray(stored[name], np.float32) for name in names}
        except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
            raise InputError(f"{path}: not a subject's landmarks ({error}); delete it") from error
        count = len(arrays["codes"])
        shapes = {
            "landmarks": (count, NUM_LANDMARKS, 3), "scores": (count, len(ARKIT_NAMES)),
            "colors": (count, FACE_LANDMARKS, 3), "codes": (count, len(ARKIT_NAMES)),
            "true_px": (count, NUM_LANDMARKS, 2), "mirrored_px": (count, NUM_LANDMARKS, 2),
            "head_pose": (count, 4, 4), "focal": (), "width": (),
        }  # fmt: skip
        for name, shape in shapes.items():
            if arrays[name].shape != shape or not np.isfinite(arrays[name]).all():
                raise InputError(f"{path}: {name} is not finite of shape {shape}; delete it")
        return cls(**arrays)
