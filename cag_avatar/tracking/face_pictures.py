"""Pictures of an upright face, and the small network that reads them.

Landmarks leave out much of what a face does: how far the lips are pushed out, whether a crease is a
frown. The pictures have it, each compared with what is typical of the person. The network is the
first half of a landmark correction (:mod:`cag_avatar.tracking.landmark_correction`): it says in
some numbers what a picture shows, and the second half joins them with the landmarks.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from torch import Tensor

from cag_avatar.errors import InputError
from cag_avatar.tracking.landmark_correction import FaceFrame, correction_path

__all__ = [
    "FACE_SIDE",
    "MOUTH_SHAPE",
    "PLANES",
    "FacePlanes",
    "PictureReader",
    "face_planes",
    "load_picture_reader",
    "network_planes",
    "reader_arrays",
    "upright_picture",
]

#: Planes of a picture: logarithms of the grey level and of red over green.
PLANES = 2
#: Half the width of an upright picture, metres at the face, and its width in pixels.
_HALF, _SIDE = 0.105, 168
#: Width of the picture of the whole face, and height and width of the mouth's, pixels.
FACE_SIDE, MOUTH_SHAPE = 96, (48, 72)
#: Upper left corner of the mouth in the upright picture, row and column.
_MOUTH_AT = (98, 48)
_LUMA = np.array([0.299, 0.587, 0.114], np.float32)
#: Grey levels added before the logarithms: the dark is noise.
_DARK_GREY, _DARK_COLOUR = 16.0, 8.0
#: Least contrast that is brought to one.
_LEAST_CONTRAST = 0.05
_TOWERS = ("face", "mouth")


@dataclass(frozen=True)
class FacePlanes:
    """Planes of T pictures, float16."""

    face: NDArray[np.float16]
    """[T, PLANES, FACE_SIDE, FACE_SIDE]."""
    mouth: NDArray[np.float16]
    """[T, PLANES, *MOUTH_SHAPE]."""

    @classmethod
    def none(cls) -> FacePlanes:
        """No picture."""
        face, mouth = (0, PLANES, FACE_SIDE, FACE_SIDE), (0, PLANES, *MOUTH_SHAPE)
        return cls(np.zeros(face, np.float16), np.zeros(mouth, np.float16))

    @classmethod
    def stack(cls, planes: Sequence[FacePlanes]) -> FacePlanes:
        """The pictures of several as one."""
        return cls(
            np.concatenate([p.face for p in planes]), np.concatenate([p.mouth for p in planes])
        )

    def median(self) -> FacePlanes:
        """What is typical of them, one picture."""
        return FacePlanes(_median(self.face), _median(self.mouth))


def upright_picture(image: NDArray[np.uint8], frame: FaceFrame) -> NDArray[np.uint8]:
    """The face upright, 1.25 mm a pixel, round the middle of its landmarks, [168, 168, 3] uint8.

    Args:
        image: RGB, [H, W, 3] uint8.
        frame: of the one face, in pixels of that image.
    """
    step = 2 * _HALF / _SIDE * float(frame.scale[0])
    middle = frame.middle[0]
    # A finer picture is averaged down first, so that sampling it skips nothing.
    factor = int(step)
    if factor > 1:
        height, width = (side // factor * factor for side in image.shape[:2])
        if min(height, width) > 0:
            shrunk = cv2.resize(
                image[:height, :width], (width // factor, height // factor),
                interpolation=cv2.INTER_AREA,
            )  # fmt: skip
            image, step, middle = np.asarray(shrunk, np.uint8), step / factor, middle / factor
    axes = frame.turn[0].T * step
    first = middle + axes @ np.full(2, 0.5 - _SIDE / 2)
    # Pixel centres lie at halves here, at whole numbers in OpenCV.
    matrix = np.concatenate([axes, (first - 0.5)[:, None]], 1)
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    picture = cv2.warpAffine(
        image, matrix, (_SIDE, _SIDE), flags=flags, borderMode=cv2.BORDER_REPLICATE
    )
    return np.asarray(picture, np.uint8)


def face_planes(picture: NDArray[np.uint8]) -> FacePlanes:
    """Planes of one :func:`upright_picture`."""
    colour = picture.astype(np.float32)
    grey = np.log(colour @ _LUMA + _DARK_GREY)
    red = np.log((colour[..., 0] + _DARK_COLOUR) / (colour[..., 1] + _DARK_COLOUR))
    planes = np.stack([grey, red], -1)
    face = cv2.resize(planes, (FACE_SIDE, FACE_SIDE), interpolation=cv2.INTER_AREA)
    (top, left), (height, width) = _MOUTH_AT, MOUTH_SHAPE
    mouth = planes[top : top + height, left : left + width]
    return FacePlanes(*(p.transpose(2, 0, 1)[None].astype(np.float16) for p in (face, mouth)))


def network_planes(planes: Tensor, typical: Tensor) -> Tensor:
    """What the network sees, [T, 2 * PLANES, H, W] float32: change, then what is typical.

    Both in units of the contrast that is typical of the person, so that exposure and complexion
    count for little.

    Args:
        planes: [T, PLANES, H, W].
        typical: [T or 1, PLANES, H, W].
    """
    planes, typical = planes.float(), typical.float()
    mean = typical.mean((2, 3), keepdim=True)
    contrast = typical.std((2, 3), keepdim=True) + _LEAST_CONTRAST
    usual = (typical - mean) / contrast
    return torch.cat([(planes - mean) / contrast - usual, usual.expand(len(planes), -1, -1, -1)], 1)


class PictureReader:
    """The trained network: two towers of strided convolutions, a linear layer on each.

    Args:
        arrays: "face0.weight" [C, 2 * PLANES, 3, 3], "face0.bias" [C], "face1.weight" ...,
            "face.weight" [D, ...] and "face.bias" [D] of the linear layer; "mouth..." likewise.
    """

    def __init__(self, arrays: Mapping[str, NDArray]) -> None:
        self._a = {name: torch.from_numpy(np.float32(value)) for name, value in arrays.items()}

    @property
    def size(self) -> int:
        """Numbers that it says of a picture, D."""
        return sum(len(self._a[f"{tower}.bias"]) for tower in _TOWERS)

    def read(self, planes: FacePlanes, typical: FacePlanes) -> NDArray[np.float32]:
        """What T pictures show, [T, D]; ``typical``: of the person, one picture."""
        with torch.inference_mode():
            both = zip(
                _TOWERS, (planes.face, planes.mouth), (typical.face, typical.mouth), strict=True
            )
            parts = [
                self._tower(name, network_planes(torch.from_numpy(a), torch.from_numpy(b)))
                for name, a, b in both
            ]
            return torch.cat(parts, 1).numpy()

    def _tower(self, name: str, value: Tensor) -> Tensor:
        layer = 0
        while f"{name}{layer}.weight" in self._a:
            weight, bias = self._a[f"{name}{layer}.weight"], self._a[f"{name}{layer}.bias"]
            value = torch.nn.functional.conv2d(value, weight, bias, stride=2, padding=1)
            value = torch.nn.functional.silu(value)
            layer += 1
        return torch.nn.functional.linear(
            value.flatten(1), self._a[f"{name}.weight"], self._a[f"{name}.bias"]
        )

    @classmethod
    def load(cls, path: Path) -> PictureReader:
        """Read it from a landmark correction's file; raises InputError where it holds none."""
        try:
            with safe_open(path, "np") as handle:
                stored = {name: handle.get_tensor(name) for name in handle.keys()}  # noqa: SIM118
        except (OSError, SafetensorError) as error:
            raise InputError(f"{path}: not a landmark correction ({error})") from error
        arrays = reader_arrays(stored)
        missing = [f"{t}.{kind}" for t in _TOWERS for kind in ("weight", "bias")]
        missing = [name for name in missing if name not in arrays]
        if missing:
            raise InputError(
                f"{path}: lacks {', '.join(missing)}; train it with 'cag-avatar train-correction'"
            )
        return cls(arrays)


@lru_cache(maxsize=2)
def load_picture_reader(head_model: str) -> PictureReader | None:
    """The bundled network for a head model; None where there is none."""
    path = correction_path(head_model, pictures=True)
    return PictureReader.load(path) if path.is_file() else None


def reader_arrays(arrays: Mapping[str, NDArray]) -> dict[str, NDArray]:
    """The picture reader's among a correction's arrays."""
    return {name: value for name, value in arrays.items() if name.startswith(_TOWERS)}


def _median(planes: NDArray[np.float16]) -> NDArray[np.float16]:
    return np.median(planes.astype(np.float32), axis=0, keepdims=True).astype(np.float16)
