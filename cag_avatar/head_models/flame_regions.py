"""Named regions of FLAME's faces, from its skinning and shape or from FLAME_masks.pkl."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from cag_avatar.head_models.base import REGIONS
from cag_avatar.head_models.hairline import behind_hairline

__all__ = ["flame_regions"]

Array = NDArray[np.float64]
Index = NDArray[np.int64]

#: Masks of FLAME_masks.pkl by region; later ones win.
_MASKS = (
    ("scalp", ("scalp",)),
    ("neck", ("neck",)),
    ("ears", ("left_ear", "right_ear")),
    ("lips", ("lips",)),
)
#: Half the width and height of the lips of a mean head, and how far they lie behind its front.
_LIPS = (0.028, 0.012, 0.03)


def flame_regions(
    vertices: Array,
    faces: Index,
    weights: Array,
    eyes: tuple[Index, Index],
    neck: Array,
    masks: Mapping[str, Index] | None = None,
) -> Index:
    """Region of each face, [F].

    Without masks, what skinning does not tell (lips, ears, scalp) is guessed from the proportions
    of a mean head, to a few millimetres. There are no teeth, tongue or mouth cavity.

    Args:
        vertices: mean head in canonical space, [V, 3].
        faces: [F, 3].
        weights: over FLAME's joints (root, neck, jaw, eyes), [V, 5].
        eyes: vertex indices of the left and the right eyeball.
        neck: the neck joint, [3].
        masks: vertex indices by the names of FLAME_masks.pkl.
    """
    centre = vertices[faces].mean(1)
    share = weights[faces].mean(1)
    region = np.full(len(faces), REGIONS.index("face_skin"), dtype=np.int64)

    def put(name: str, chosen: NDArray[np.bool_]) -> None:
        region[chosen] = REGIONS.index(name)

    def of(*lists: Index) -> NDArray[np.bool_]:
        inside = np.zeros(len(vertices), bool)
        for one in lists:
            inside[one] = True
        return np.asarray(inside[faces].all(1))

    trunk = share[:, 0]
    low = (trunk > 0.3) | (centre[:, 1] < neck[1])
    if masks is None:
        put("scalp", behind_hairline(centre))
        sideways = np.abs(centre[:, 0]) > 0.069
        put("ears", sideways & (np.abs(centre[:, 1] + 0.012) < 0.04) & (centre[:, 2] > -0.13))
        put("neck", low)
        put("lips", _lips(vertices, faces, weights, centre))
    else:
        for name, keys in _MASKS:
            put(name, of(*(masks[key] for key in keys if key in masks)))
    # FLAME ends at the collar bones: what the root carries and stands off the neck is shoulder.
    off = np.hypot(centre[:, 0] - neck[0], centre[:, 2] - neck[2]) > 0.075
    put("shoulders", low & (trunk > 0.3) & off & (region != REGIONS.index("lips")))
    put("eye_left", of(eyes[0]))
    put("eye_right", of(eyes[1]))
    return region


def _lips(vertices: Array, faces: Index, weights: Array, centre: Array) -> NDArray[np.bool_]:
    """Faces about the line where the jaw's weight begins, in the middle of the front."""
    x, y, z = vertices.T
    jaw = weights[:, 2]
    middle = (np.abs(x) < 0.012) & (z > 0) & (weights[:, 3:].max(1) < 0.5) & (y < -0.02)
    upper, lower = middle & (jaw < 0.5), middle & (jaw >= 0.5)
    if not upper.any() or not lower.any():
        return np.zeros(len(faces), bool)
    # Of the vertices in front, the lowest that the jaw leaves and the highest that it takes.
    front = z[middle].max() - _LIPS[2]
    above, below = y[upper & (z > front)], y[lower & (z > front)]
    if not len(above) or not len(below):
        return np.zeros(len(faces), bool)
    line = 0.5 * (above.min() + below.max())
    across: Array = (centre[:, 0] / _LIPS[0]) ** 2 + ((centre[:, 1] - line) / _LIPS[1]) ** 2
    inside: NDArray[np.bool_] = (across < 1) & (centre[:, 2] > front)
    return inside
