"""Where alpha is unknown, and what the background plate says about it there."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from cag_avatar_training.matting.background import PlateEvidence
from cag_avatar_training.matting.config import MatteConfig
from numpy.typing import NDArray

__all__ = ["Band", "find_band"]

#: A pixel of the fringe differs from the plate by this many standard deviations.
_FRINGE = 4.0
#: Weights of the priors in the matting equation, whose Laplacian has rows of order 1.
_TRUST_BACKGROUND, _TRUST_MIXTURE = 1.0, 0.2


@dataclass(frozen=True)
class Band:
    """The matting problem of one frame, all [h, w]."""

    unknown: NDArray[np.bool_]
    """Where alpha is solved for."""
    prior: NDArray[np.float32]
    """Alpha as the colours of background and nearby person suggest."""
    weight: NDArray[np.float32]
    """How far to trust that, 0 where the background is not known."""


def find_band(
    image: NDArray[np.uint8],
    person: NDArray[np.bool_],
    evidence: PlateEvidence,
    head_size: float,
    config: MatteConfig,
) -> Band:
    """The band around the outline of the cut ``person`` [h, w] of a frame [h, w, 3]."""
    inside = _distance(person)
    outside = _distance(~person)
    outer = config.band_outside_heads * head_size
    unknown = (inside < max(2.0, config.band_inside_heads * head_size)) & person
    with np.errstate(invalid="ignore"):
        differs = evidence.chroma > _FRINGE
        same = evidence.difference < 2.0
    # Flyaway hair reaches farther out than the band, but hangs together with it.
    fringe = (outside < 3 * outer) & ~person
    near = (outside < max(2.0, outer)) & ~person
    loose = cv2.dilate((differs & fringe).astype(np.uint8), np.ones((3, 3), np.uint8)) > 0
    _, pieces = cv2.connectedComponents(((loose & fringe) | near).astype(np.uint8))
    reached = np.isin(pieces, np.unique(pieces[near])) & (pieces > 0)
    unknown |= reached

    core = (person & ~unknown).astype(np.float32)
    frame = image.astype(np.float32)
    sigma = 0.05 * head_size
    amount = cv2.GaussianBlur(core, (0, 0), sigma)[..., None]
    own = cv2.GaussianBlur(frame * core[..., None], (0, 0), sigma) / (amount + 1e-4)
    square = cv2.GaussianBlur((frame * frame).sum(-1) * core, (0, 0), sigma)
    variance = np.maximum(square / (amount[..., 0] + 1e-4) - (own * own).sum(-1), 0)
    span = own - evidence.background
    length = (span * span).sum(-1) + 1.0
    mixture = ((frame - evidence.background) * span).sum(-1) / length
    gap = frame - (np.clip(mixture, 0, 1)[..., None] * span + evidence.background)
    # The person's colours vary as the background's do: what lies within is opaque, or clear.
    low = np.minimum(evidence.noise / np.sqrt(length), 0.25)
    high = np.maximum(1 - np.sqrt(variance / length), 0.6)
    mixture = np.clip((mixture - low) / (high - low), 0, 1)
    known = np.isfinite(evidence.difference)
    trust = length / (length + variance + 40.0**2) * np.exp(-(gap * gap).sum(-1) / 30.0**2)
    trust = _TRUST_MIXTURE * trust
    weight = np.where(known & (amount[..., 0] > 0.003), trust, 0).astype(np.float32)
    weight[same] = _TRUST_BACKGROUND
    prior = np.where(same, 0, mixture).astype(np.float32)
    return Band(unknown, prior, weight)


def _distance(mask: NDArray[np.bool_]) -> NDArray[Any]:
    """Distance to the nearest pixel that is not in the mask; the picture's edge does not count."""
    padded = cv2.copyMakeBorder(mask.astype(np.uint8), 32, 32, 32, 32, cv2.BORDER_REPLICATE)
    return cv2.distanceTransform(padded, cv2.DIST_L2, 3)[32:-32, 32:-32]
