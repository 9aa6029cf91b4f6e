"""The label plane of a frame: where the mesh shows eyes and lips, or where the format says so."""

from __future__ import annotations

from typing import Any

import numpy as np
from cag_avatar_training.parts import MOUTH_LABELS, PARSING_LABELS
from numpy.typing import NDArray

from cag_avatar.head_models import REGIONS

__all__ = ["label_plane"]

_PERSON, _EYE_LEFT, _EYE_RIGHT, _LIPS, _MOUTH, _TEETH = (
    PARSING_LABELS.index(name)
    for name in ("person", "eye_left", "eye_right", "lips", "mouth_interior", "teeth")
)
_OF_REGION = {
    "eye_left": _EYE_LEFT,
    "eye_right": _EYE_RIGHT,
    "lips": _LIPS,
    "tongue": _MOUTH,
    "mouth_cavity": _MOUTH,
    "teeth_upper": _TEETH,
    "teeth_lower": _TEETH,
}
#: CelebAMask-HQ's numbering: both eyes, mouth interior, upper and lower lip.
_HQ_EYES, _HQ_MOUTH, _HQ_LIPS = (4, 5), 11, (12, 13)


def label_plane(
    face_region: NDArray[Any],
    face_index: NDArray[np.int32],
    alpha: NDArray[np.uint8],
    eye_centres: NDArray[np.float64],
    mouth: NDArray[np.uint8] | None = None,
    semantics: NDArray[np.uint8] | None = None,
) -> NDArray[np.uint8]:
    """Part labels of one frame: indices into PARSING_LABELS.

    Args:
        face_region: index into REGIONS of each face of the mesh, [F].
        face_index: visible face of each pixel, -1 where there is none, [H, W].
        alpha: matte, [H, W].
        eye_centres: left and right eyeball in the picture, pixels (column, row), [2, 2].
        mouth: mask of lips and mouth interior; where it is given it decides what is mouth, and the
            mesh what of it are lips.
        semantics: CelebAMask-HQ's labels; where they are given they decide, and the mesh only
            which eye is the left one.

    Returns:
        [H, W] uint8.
    """
    table = np.full(len(REGIONS) + 1, _PERSON, np.uint8)
    for name, label in _OF_REGION.items():
        table[REGIONS.index(name)] = label
    # Index -1, no face, takes the last entry of the table.
    region = np.where(face_index >= 0, face_region[face_index], len(REGIONS))
    mesh = table[region]
    labels = mesh
    if mouth is not None:
        inside = mouth > 127
        of_mouth = np.isin(mesh, MOUTH_LABELS)
        part = np.where(of_mouth, mesh, _MOUTH)
        labels = np.where(inside, part, np.where(of_mouth, _PERSON, mesh))
    if semantics is not None:
        labels = np.full_like(mesh, _PERSON)
        labels[np.isin(semantics, _HQ_LIPS)] = _LIPS
        labels[semantics == _HQ_MOUTH] = _MOUTH
        eyes = np.isin(semantics, _HQ_EYES)
        labels[eyes] = np.where(_nearer_left(eyes, eye_centres), _EYE_LEFT, _EYE_RIGHT)
    return np.where(alpha > 0, labels, 0).astype(np.uint8)


def _nearer_left(pixels: NDArray[np.bool_], centres: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Which of the pixels, [H, W], are nearer to the left eye than to the right one, [N]."""
    rows, columns = np.nonzero(pixels)
    at = np.stack([columns, rows], -1) + 0.5
    left, right = (np.linalg.norm(at - centre, axis=1) for centre in centres)
    return np.asarray(left < right)
