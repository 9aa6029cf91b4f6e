"""What is true about a synthetic recording, beside the video.

``NAME.mp4`` comes with the folder ``NAME.truth/``:

- ``truth.safetensors``: ``codes`` [T, 52] in the order of ARKIT_NAMES, ``head_pose`` and
  ``torso_pose`` [T, 4, 4] (canonical to camera space, metres, camera axes of OpenCV; the camera is
  the world), ``identity`` [I] coefficients, ``offsets`` [V, 3] rest offsets in metres that are not
  in the identity basis; all float32. The rest head is
  ``model.rest_vertices(identity, offsets)`` and frame t shows
  ``model.posed_vertices(rest, codes[t:t+1], head_pose[t:t+1], torso_pose[t:t+1])``; hair comes on
  top of it.
- ``truth.json``: format version, head model, camera, frames per second, number of frames, seed,
  names of coefficients and regions.
- ``alpha/00000.png`` ...: coverage by the person (hair included), 8-bit grey.
- ``regions/00000.png`` ...: index into REGIONS, 255 for the background, 8-bit grey; hair counts as
  scalp.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from cag_avatar.camera import PinholeCamera
from cag_avatar.errors import InputError
from cag_avatar.head_models import ARKIT_NAMES, REGIONS

__all__ = ["Truth", "load_truth", "truth_folder", "write_masks", "write_truth"]

FORMAT_VERSION = 1
_TENSORS = ("codes", "head_pose", "torso_pose", "identity", "offsets")


@dataclass(frozen=True)
class Truth:
    """Truth of a recording of T frames; see the module's text."""

    folder: Path
    head_model: str
    camera: PinholeCamera
    fps: float
    seed: int
    codes: Tensor
    head_pose: Tensor
    torso_pose: Tensor
    identity: Tensor
    offsets: Tensor

    def alpha(self, frame: int) -> NDArray[np.uint8]:
        """Coverage of a frame, [H, W] uint8. Raises InputError if its file cannot be read."""
        return _read_grey(self.folder / "alpha" / f"{frame:05d}.png")

    def regions(self, frame: int) -> NDArray[np.uint8]:
        """Region labels of a frame, [H, W] uint8. Raises InputError if its file cannot be read."""
        return _read_grey(self.folder / "regions" / f"{frame:05d}.png")


def truth_folder(video: Path) -> Path:
    """Folder that holds the truth of a synthetic video."""
    return video.with_suffix(".truth")


def write_masks(
    folder: Path, frame: int, alpha: NDArray[np.float32], regions: NDArray[np.uint8]
) -> None:
    """Write the two pictures of one frame; ``alpha`` in [0, 1]. Raises InputError on failure."""
    pictures = {"alpha": (alpha * 255 + 0.5).astype(np.uint8), "regions": regions}
    for name, picture in pictures.items():
        path = folder / name / f"{frame:05d}.png"
        path.parent.mkdir(exist_ok=True)
        if not cv2.imwrite(str(path), picture, [cv2.IMWRITE_PNG_COMPRESSION, 1]):
            raise InputError(f"{path}: cannot be written; check the disk")


def write_truth(truth: Truth) -> None:
    """Write ``truth.safetensors`` and ``truth.json`` into ``truth.folder``."""
    tensors = {name: getattr(truth, name).contiguous() for name in _TENSORS}
    save_file(tensors, str(truth.folder / "truth.safetensors"))
    description = {
        "format": "cag_avatar-synthetic-truth",
        "version": FORMAT_VERSION,
        "head_model": truth.head_model,
        "camera": truth.camera.to_dict(),
        "fps": truth.fps,
        "frames": len(truth.codes),
        "seed": truth.seed,
        "code_names": list(ARKIT_NAMES),
        "regions": list(REGIONS),
    }
    (truth.folder / "truth.json").write_text(json.dumps(description, indent=1) + "\n")


def load_truth(folder: Path) -> Truth:
    """Read a truth folder. Raises InputError, naming the file, if it is missing or damaged."""
    description_path = folder / "truth.json"
    try:
        description = json.loads(description_path.read_text())
        if description["version"] != FORMAT_VERSION:
            raise InputError(
                f"{description_path}: version {description['version']} is not {FORMAT_VERSION}; "
                "synthesize the video again"
            )
        camera = PinholeCamera.from_dict(description["camera"], str(description_path))
        tensors_path = folder / "truth.safetensors"
        tensors = load_file(str(tensors_path))
        frames = int(description["frames"])
        for name, tail in (("codes", (len(ARKIT_NAMES),)), ("head_pose", (4, 4)),
                           ("torso_pose", (4, 4))):  # fmt: skip
            if tensors[name].shape != (frames, *tail) or not torch.isfinite(tensors[name]).all():
                raise InputError(f"{tensors_path}: '{name}' is damaged; synthesize the video again")
        return Truth(
            folder, str(description["head_model"]), camera, float(description["fps"]),
            int(description["seed"]), *(tensors[name] for name in _TENSORS),
        )  # fmt: skip
    except (OSError, KeyError, TypeError, json.JSONDecodeError, SafetensorError) as error:
        raise InputError(
            f"{folder}: not a whole truth folder ({error}); synthesize the video again"
        ) from error


def _read_grey(path: Path) -> NDArray[np.uint8]:
    picture = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)
    if picture is None:
        raise InputError(f"{path}: cannot be read; synthesize the video again")
    return np.asarray(picture, np.uint8)
