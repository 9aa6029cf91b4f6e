"""What the fitted head alone says about a frame: surely the person, surely not, or open."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from cag_avatar_training.matting.config import MatteConfig
from numpy.typing import NDArray

from cag_avatar.head_models.base import REGIONS

__all__ = ["TORSO", "Seeds", "find_seeds"]

#: Least distance, in heads, of the drawn person from an edge where background may come in.
_EDGE_HEADS = 0.25
#: Regions of the head model that are not the head.
TORSO = tuple(REGIONS.index(name) for name in ("neck", "shoulders"))


@dataclass(frozen=True)
class Seeds:
    """Seeds of one frame at the working size, [h, w]."""

    foreground: NDArray[np.bool_]
    """Surely the person."""
    background: NDArray[np.bool_]
    """Surely not the person."""
    outside: NDArray[np.float32]
    """Distance to the drawn person in pixels, 0 inside."""
    inside: NDArray[np.float32]
    """Distance to its outline in pixels, 0 outside; the picture's edge is no outline."""
    edge: NDArray[np.bool_]
    """The picture's top, left and right edges above the shoulders and away from the person: where
    background may come in without being sure."""
    clothes: NDArray[np.bool_]
    """Beside and below the shoulders, where clothes may be: they may keep as still as a wall."""
    head_size: float
    """Square root of the drawn head's area, in pixels."""
    middle: tuple[float, float]
    """Mean x and y of the drawn head's pixels."""


def find_seeds(labels: NDArray[Any], config: MatteConfig) -> Seeds | None:
    """Seeds from a label image [h, w] (-1: nothing, else an index into REGIONS).

    Returns None when no head is drawn.
    """
    drawn = labels >= 0
    torso = np.isin(labels, TORSO)
    head = drawn & ~torso
    area = int(head.sum())
    if area == 0:
        return None
    size = float(np.sqrt(area))
    inside = _depth(drawn)
    outside: NDArray[Any] = cv2.distanceTransform((~drawn).astype(np.uint8), cv2.DIST_L2, 5)
    depth = np.where(torso, config.sure_torso_heads, config.sure_foreground_heads) * size
    # Below the chin the mesh stops at the shoulders but the clothes do not.
    rows = np.nonzero(labels == REGIONS.index("shoulders"))[0]
    top = int(rows.min()) if rows.size else labels.shape[0]
    far = np.full((labels.shape[0], 1), config.sure_background_heads * size, np.float32)
    ramp = np.clip((np.arange(len(far)) - top + 0.3 * size) / (0.3 * size), 0, 1)[:, None]
    far += ramp * (config.sure_background_torso_heads - config.sure_background_heads) * size
    edge = np.zeros(labels.shape, bool)
    edge[0], edge[:top, 0], edge[:top, -1] = True, True, True
    edge &= outside > _EDGE_HEADS * size
    clothes = (ramp > 0) & (outside <= far)
    y, x = (float(at.mean()) + 0.5 for at in np.nonzero(head))
    return Seeds(inside > depth, outside > far, outside, inside, edge, clothes, size, (x, y))


def _depth(mask: NDArray[np.bool_]) -> NDArray[Any]:
    """Distance to the nearest pixel outside the mask; what lies beyond the picture is inside."""
    padded = cv2.copyMakeBorder(mask.astype(np.uint8), 64, 64, 64, 64, cv2.BORDER_REPLICATE)
    return cv2.distanceTransform(padded, cv2.DIST_L2, 5)[64:-64, 64:-64]
