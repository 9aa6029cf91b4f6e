"""Face parsing by a BiSeNet (Yu et al. 2018) trained on CelebAMask-HQ, that the user brings.

The usual ONNX export takes one picture [1, 3, 512, 512] (RGB, ImageNet's mean and deviation) and
gives logits [1, 19, 512, 512], at times followed by those of two auxiliary heads. Labels, in the
order of face-parsing.PyTorch: 4 and 5 eyes, 11 mouth interior, 12 and 13 lips, 14 neck, 16 cloth,
17 hair. (CelebAMask-HQ's own scripts number them in another order; such models do not fit.)

Whether ``l_eye`` means the subject's or the picture's left is not documented (training swaps the
labels of flipped pictures, so it is one of them): an eye's side is taken from the landmarks.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
from cag_avatar_training.matting.onnx_model import FIRST, OnnxModel, Port, load_onnx
from cag_avatar_training.matting.parsing import (
    EYE_LEFT,
    EYE_RIGHT,
    TeethColours,
    checked_landmarks,
    cheek_green,
)
from cag_avatar_training.parts import PARSING_LABELS
from numpy.typing import NDArray

from cag_avatar.errors import InputError

__all__ = ["BiSeNetParser"]

_SIZE, _CLASSES = 512, 19
_MEAN = np.array([0.485, 0.456, 0.406], np.float32)
_DEVIATION = np.array([0.229, 0.224, 0.225], np.float32)
_EYES, _INTERIOR, _LIPS = (4, 5), 11, (12, 13)
_FIX = "bring a BiSeNet for face parsing (CelebAMask-HQ, 19 classes) exported to ONNX"


class BiSeNetParser:
    """Labels frames with a network; the same interface as FaceParser.

    Args:
        path: the ONNX file.
        teeth: the clip's colours of teeth, which the network does not tell from the mouth's inside;
            None: no teeth are labelled.
        threads: that one evaluation may use.

    Raises:
        InputError: the file is missing or its input or output is another.
        MissingDependencyError: onnxruntime is not installed.
    """

    def __init__(self, path: Path | str, teeth: TeethColours | None, threads: int = 1) -> None:
        self._model: OnnxModel = load_onnx(
            path,
            "matte.bisenet",
            {FIRST: Port((1, 3, _SIZE, _SIZE))},
            {FIRST: Port((1, _CLASSES, _SIZE, _SIZE))},
            _FIX,
            threads,
        )
        self._input = next(iter(self._model.inputs))
        self._output = next(iter(self._model.outputs))
        self._teeth = teeth

    def parse(
        self,
        image: NDArray[np.uint8],
        alpha: NDArray[np.uint8],
        landmarks: NDArray[Any],
        head: NDArray[Any] | None = None,
    ) -> NDArray[np.uint8]:
        """Label a frame: [H, W] uint8, values index PARSING_LABELS. Arguments as FaceParser's.

        Raises InputError on shapes that do not fit, or when the network fails.
        """
        if image.shape != (*alpha.shape, 3):
            raise InputError(f"parsing: image {image.shape} and alpha {alpha.shape} differ in size")
        points = checked_landmarks(landmarks)
        height, width = alpha.shape
        found: NDArray[Any] = self._classes(image)
        if found.shape != alpha.shape:
            found = cv2.resize(found, (width, height), interpolation=cv2.INTER_NEAREST_EXACT)
        plane = (alpha > 127).astype(np.uint8)
        plane[np.isin(found, _LIPS)] = PARSING_LABELS.index("lips")
        inside = found == _INTERIOR
        plane[inside] = PARSING_LABELS.index("mouth_interior")
        if self._teeth is not None and inside.any():
            teeth = self._teeth.find(image, inside, cheek_green(image, points))
            plane[teeth] = PARSING_LABELS.index("teeth")
        rows, columns = np.nonzero(np.isin(found, _EYES))
        at = np.stack([columns, rows], 1) + 0.5
        left, right = (
            np.linalg.norm(at - points[list(contour)].mean(0), axis=1)
            for contour in (EYE_LEFT, EYE_RIGHT)
        )
        plane[rows, columns] = np.where(
            left < right, PARSING_LABELS.index("eye_left"), PARSING_LABELS.index("eye_right")
        )
        return plane

    def _classes(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """The network's class at each pixel, [512, 512]."""
        picture: NDArray[Any] = image
        if picture.shape[:2] != (_SIZE, _SIZE):
            shrink = cv2.INTER_AREA if max(picture.shape) > _SIZE else cv2.INTER_LINEAR
            picture = cv2.resize(picture, (_SIZE, _SIZE), interpolation=shrink)
        scaled = (picture.astype(np.float32) / np.float32(255) - _MEAN) / _DEVIATION
        value = scaled.transpose(2, 0, 1)[None].astype(self._model.dtype(self._input))
        (logits,) = self._model.run([self._output], {self._input: np.ascontiguousarray(value)})
        if logits.shape != (1, _CLASSES, _SIZE, _SIZE):
            raise InputError(
                f"matte.bisenet: {self._model.path}: output '{self._output}' is "
                f"{list(logits.shape)}, expected [1, {_CLASSES}, {_SIZE}, {_SIZE}]; {_FIX}"
            )
        return logits[0].argmax(0).astype(np.uint8)
