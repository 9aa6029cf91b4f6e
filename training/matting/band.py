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
    attached = np.zeros(int(pieces.max()) + 1, bool)
    attached[pieces[near]] = True
    attached[0] = False
    unknown |= attached[pieces]

    prior, weight = np.zeros(person.shape, np.float32), np.zeros(person.shape, np.float32)
    rows, columns = np.nonzero(unknown)
    if len(rows) == 0:
        return Band(unknown, prior, weight)
    frame = image[rows, columns].astype(np.float32)
    own, variance, amount = _nearby_person(image, person & ~unknown, head_size, rows, columns)
    behind = evidence.background[rows, columns]
    span = own - behind
    length = _dot(span, span) + 1.0
    mixture = _dot(frame - behind, span) / length
    gap = frame - (np.clip(mixture, 0, 1)[:, None] * span + behind)
    # The person's colours vary as the background's do: what lies within is opaque, or clear.
    low = np.minimum(evidence.noise[rows, columns] / np.sqrt(length), 0.25)
    high = np.maximum(1 - np.sqrt(variance / length), 0.6)
    mixture = np.clip((mixture - low) / (high - low), 0, 1)
    known = np.isfinite(evidence.difference[rows, columns])
    trust = length / (length + variance + 40.0**2) * np.exp(-_dot(gap, gap) / 30.0**2)
    trust = np.where(known & (amount > 0.003), _TRUST_MIXTURE * trust, 0)
    clear = same[rows, columns]
    prior[rows, columns] = np.where(clear, 0, mixture)
    weight[rows, columns] = np.where(clear, _TRUST_BACKGROUND, trust)
    return Band(unknown, prior, weight)


def _nearby_person(
    image: NDArray[np.uint8],
    core: NDArray[np.bool_],
    head_size: float,
    rows: NDArray[Any],
    columns: NDArray[Any],
) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    """Mean colour [n, 3], its variance [n] and share [n] of the ``core`` near some pixels."""
    height, width = core.shape
    # Wide means are smooth: a quarter of the size does, and costs a sixteenth.
    size = (max(1, width // 4), max(1, height // 4))
    cover = core.astype(np.float32)
    frame = image.astype(np.float32)
    square = _dot(image, image, "ijk,ijk->ij", np.float32)
    sums = np.dstack([frame * cover[..., None], square * cover])
    sigma = 0.05 * head_size / 4
    # OpenCV shrinks by a fraction of at most four channels.
    small = np.dstack(
        [cv2.resize(part, size, interpolation=cv2.INTER_AREA) for part in (sums, cover)]
    )
    means = cv2.GaussianBlur(small, (0, 0), max(sigma, 0.3), borderType=cv2.BORDER_REFLECT)
    large = cv2.resize(means, (width, height), interpolation=cv2.INTER_LINEAR)[rows, columns]
    amount = large[:, 4]
    own = large[:, :3] / (amount[:, None] + 1e-4)
    variance = np.maximum(large[:, 3] / (amount + 1e-4) - _dot(own, own), 0)
    return own, variance, amount


def _dot(
    a: NDArray[Any], b: NDArray[Any], axes: str = "ij,ij->i", dtype: Any = None
) -> NDArray[Any]:
    return np.einsum(axes, a, b, dtype=dtype)


def _distance(mask: NDArray[np.bool_]) -> NDArray[Any]:
    """Distance to the nearest pixel that is not in the mask; the picture's edge does not count."""
    padded = cv2.copyMakeBorder(mask.astype(np.uint8), 32, 32, 32, 32, cv2.BORDER_REPLICATE)
    return cv2.distanceTransform(padded, cv2.DIST_L2, 3)[32:-32, 32:-32]
