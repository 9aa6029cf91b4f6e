"""Stage: how far mouth and eyes are seen, or covered by a hand or a thing.

The landmarker guesses a mouth under a hand, so its landmarks do not tell. But they put every part
of the face at a known place: each frame's mouth, and each eye, is warped to the clip's own mean
layout of the landmarks and compared with the clip's median there. A part counts as covered where
two things come together: the skin around it deviates (fingers have edges and shadows of their own),
and the part has lost its contrast to that skin (no red lips, no dark eye). Either alone happens in
ordinary expressions. A part must have been seen in more than half of the clip.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np
from cag_avatar_training.matting.parsing import OUTER_LIP
from cag_avatar_training.preprocess.parallel import ordered_map
from cag_avatar_training.preprocess.workspace import StageStore
from cag_avatar_training.progress import Advance
from numpy.typing import NDArray
from scipy.ndimage import grey_closing, grey_dilation, median_filter
from scipy.sparse import csr_array
from scipy.spatial import Delaunay

from cag_avatar.tracking.face_landmarker import EYE_LIDS

__all__ = ["find_reliability"]

_LOG = logging.getLogger(__name__)

#: Frames whose median the others are compared with, at most.
_REFERENCE_FRAMES = 240
#: Patch of a part: columns, rows, and its width in widths of the part.
_WIDTH, _HEIGHT, _EXTENT = 72, 60, 1.7
#: The skin looked at reaches this far round the part, in widths of the part.
_SKIN = 0.35
#: A triangle is seen when its share of its usual area is above this (turned away: below).
_SEEN = 0.5
#: Least share of the skin and least pixels of a sector that must be seen.
_LEAST_SKIN, _LEAST_SECTOR = 0.6, 6
#: A pixel deviates beyond this many deviations, the deviation being at least so many levels.
_DEVIATING, _FLOOR = 3.5, 3.0
#: Sectors of a part: columns times upper and lower half.
_COLUMNS = 4
#: A sector lost its contrast below this share of its usual one; sectors whose usual contrast is
#: less than so many levels, or this share of the others', say nothing.
_LOST, _LEAST_CONTRAST, _LEAST_SHARE = 0.4, 1.5, 0.4
#: Frames of the median over time, of the gap that is closed, and of the maximum at last: a hand
#: that comes covers a little at first.
_MEDIAN, _GAP, _MARGIN = 7, 9, 9


@dataclass(frozen=True)
class _Part:
    """A part of the face."""

    corners: tuple[int, int]
    """Landmarks at its ends."""
    outline: tuple[int, ...]
    inner: tuple[int, ...]
    """What is inside this outline may change (teeth) and is not looked at."""
    channel: int
    """Of Lab, in which it differs from skin: 0 lightness, 1 red against green."""
    sign: float
    sectors: float
    """Share of sectors without contrast at which the part is half covered."""
    skin: float
    """Share of deviating skin at which the part is half covered."""


_MOUTH = _Part(
    (61, 291), OUTER_LIP,
    (78, 95, 88, 178, 87, 14, 317, 402, 318, 324, 308, 415, 310, 311, 312, 13, 82, 81, 80, 191),
    1, 1.0, 0.2, 0.08,
)  # fmt: skip
_LEFT_EYE = _Part(
    (362, 263),
    EYE_LIDS[1], (),
    0, -1.0, 0.35, 0.08,
)  # fmt: skip
_RIGHT_EYE = _Part(
    (33, 133),
    EYE_LIDS[0], (),
    0, -1.0, 0.35, 0.08,
)  # fmt: skip
_PARTS = (_MOUTH, _LEFT_EYE, _RIGHT_EYE)
#: Landmarks on the skin.
_SURFACE = 468


def find_reliability(
    images: Callable[[int], NDArray[np.uint8]],
    landmarks: NDArray[np.float32],
    stage: StageStore,
    advance: Advance,
) -> NDArray[np.float32]:
    """Reliability of mouth, left and right eye, in [0, 1], [T, 3]: below 0.5 they are covered.

    Args:
        images: frame t, [H, W, 3] RGB; may be called from several threads.
        landmarks: pixels of the images, [T, 478, 3].
        stage: where the result is kept.
        advance: told the frames done.
    """
    if not stage.whole:
        values = _measure(images, landmarks, advance)
        stage.save("reliability", {"reliability": values})
        stage.commit(len(values), whole=True)
    values = stage.load("reliability")[0]["reliability"]
    covered = (values < 0.5).sum(0)
    if covered.any():
        _LOG.info(
            "covered: mouth in %d, left eye in %d, right eye in %d of %d frames", *covered,
            len(values),
        )  # fmt: skip
    return values


def _measure(
    images: Callable[[int], NDArray[np.uint8]], landmarks: NDArray[np.float32], advance: Advance
) -> NDArray[np.float32]:
    count = len(landmarks)
    chosen = np.unique(np.linspace(0, count - 1, min(count, _REFERENCE_FRAMES)).astype(int))
    layout = _mean_layout(landmarks[chosen, :_SURFACE, :2].astype(np.float64))
    parts = [_PartMeasure(part, layout) for part in _PARTS]

    def look(t: int) -> list[_Look]:
        image, points = images(t), landmarks[t, :_SURFACE, :2].astype(np.float64)
        return [part.look(image, points) for part in parts]

    seen = list(ordered_map(look, (int(t) for t in chosen)))
    for part, looks in zip(parts, zip(*seen, strict=True), strict=True):
        part.learn(list(looks))
    del seen

    def score(t: int) -> list[float]:
        return [part.score(one) for part, one in zip(parts, look(t), strict=True)]

    scores = np.zeros((count, len(parts)))
    for t, row in enumerate(ordered_map(score, range(count))):
        scores[t] = row
        advance(t + 1)
    # An arm stays for a while; a single frame is noise.
    scores = median_filter(scores, (min(_MEDIAN, count), 1), mode="nearest")
    scores = grey_closing(scores, (min(_GAP, count), 1), mode="nearest")
    scores = grey_dilation(scores, (min(_MARGIN, count), 1), mode="nearest")
    return (1 / (1 + scores**3)).astype(np.float32)


def _mean_layout(points: NDArray[np.float64]) -> NDArray[np.float64]:
    """Median of the landmarks [T, N, 2] with the outer corners of the eyes at (-.5, 0), (.5, 0)."""
    left, right = points[:, 33], points[:, 263]
    along = right - left
    length = np.linalg.norm(along, axis=1)
    c, s = (along / length[:, None]).T
    turn = np.stack([np.stack([c, s], -1), np.stack([-s, c], -1)], 1)
    upright = np.einsum("tij,tnj->tni", turn, points - 0.5 * (left + right)[:, None])
    return np.asarray(np.median(upright / length[:, None, None], axis=0))


@dataclass(frozen=True)
class _Look:
    """A part in one frame."""

    lab: NDArray[np.uint8]  # [h, w, 3]
    seen: NDArray[np.bool_]  # [h, w]


class _PartMeasure:
    """Compares a part in a frame with the part in the clip."""

    def __init__(self, part: _Part, layout: NDArray[np.float64]) -> None:
        self._part = part
        size = np.array([_WIDTH, _HEIGHT])
        ends = layout[list(part.corners)]
        width = float(np.linalg.norm(ends[1] - ends[0]))
        pixels = (layout - ends.mean(0)) / (_EXTENT * width) * _WIDTH + size / 2
        net = Delaunay(pixels)
        self._triangles = net.simplices
        self._usual = _areas(layout, net.simplices)
        self._layout = layout
        rows, columns = np.mgrid[:_HEIGHT, :_WIDTH]
        at = np.stack([columns.ravel(), rows.ravel()], 1) + 0.5
        which = net.find_simplex(at)
        self._inside = (which >= 0).reshape(_HEIGHT, _WIDTH)
        self._which = np.maximum(which, 0)
        transform = net.transform[self._which]
        two = np.einsum("nij,nj->ni", transform[:, :2], at - transform[:, 2])
        weights = np.concatenate([two, 1 - two.sum(1, keepdims=True)], 1)
        self._to_pixels = csr_array(
            (
                weights.astype(np.float32).ravel(),
                self._triangles[self._which].ravel(),
                np.arange(0, weights.size + 1, 3),
            ),
            (len(weights), len(layout)),
        )
        whole = _polygon(pixels, part.outline)
        inner = cv2.dilate(_polygon(pixels, part.inner), np.ones((3, 3), np.uint8))
        band = (whole > 0) & (inner == 0)
        distance = cv2.distanceTransform(1 - whole, cv2.DIST_L2, 5)
        near = cv2.dilate(whole, np.ones((5, 5), np.uint8)) > 0
        self._skin = ~near & self._inside & (distance < _SKIN * _WIDTH / _EXTENT)
        y, x = np.nonzero(band)
        column = np.clip((columns - x.min()) * _COLUMNS // (np.ptp(x) + 1), 0, _COLUMNS - 1)
        half = (rows > y.mean()).astype(int)
        self._sector = np.where(band, column + _COLUMNS * half, -1)
        self._usual_contrast = np.full(2 * _COLUMNS, np.nan)
        self._median = np.zeros((_HEIGHT, _WIDTH, 3), np.float32)
        self._deviation = np.ones((_HEIGHT, _WIDTH, 3), np.float32)

    def look(self, image: NDArray[np.uint8], points: NDArray[np.float64]) -> _Look:
        """Warp the part of an image to the layout; points are landmarks [468, 2]."""
        there = self._to_pixels @ points.astype(np.float32) - np.float32(0.5)
        there = there.reshape(_HEIGHT, _WIDTH, 2)
        patch = cv2.remap(
            image, there[..., 0], there[..., 1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
        )
        lab = cv2.cvtColor(cv2.GaussianBlur(patch, (3, 3), 0), cv2.COLOR_RGB2LAB)
        # A turned head shortens one of the two lengths; the other one keeps the scale.
        lengths = [
            np.linalg.norm(points[a] - points[b])
            / np.linalg.norm(self._layout[a] - self._layout[b])
            for a, b in ((168, 2), (33, 263))
        ]
        share = _areas(points, self._triangles) / (self._usual * max(lengths) ** 2)
        seen = (share > _SEEN)[self._which].reshape(_HEIGHT, _WIDTH) & self._inside
        return _Look(lab.astype(np.uint8, copy=False), seen)

    def learn(self, looks: list[_Look]) -> None:
        """Take the clip's usual skin and contrast from some frames."""
        measured = [(one, base) for one in looks if (base := self._base(one)) is not None]
        if not measured:
            return
        contrasts = np.array([self._contrast(one, base) for one, base in measured])
        known = np.isfinite(contrasts).any(0)
        usual = np.full(contrasts.shape[1], np.nan)
        usual[known] = np.nanpercentile(contrasts[:, known], 60, axis=0)
        least = max(_LEAST_CONTRAST, _LEAST_SHARE * float(np.nanmedian(usual)))
        usual[~(usual > least)] = np.nan
        self._usual_contrast = usual
        difference = np.stack([one.lab.astype(np.float32) - base for one, base in measured])
        self._median = np.median(difference, 0)
        spread = np.median(np.abs(difference - self._median), 0)
        self._deviation = (1.48 * spread + _FLOOR).astype(np.float32)

    def score(self, one: _Look) -> float:
        """0: as usual, 1: half covered, more: covered. 0 where it cannot be told."""
        base = self._base(one)
        if base is None:
            return 0.0
        share = self._contrast(one, base) / self._usual_contrast
        known = np.isfinite(share)
        if not known.any():
            return 0.0
        lost = float((share[known] < _LOST).mean())
        apart = np.abs(one.lab - base - self._median) / self._deviation
        skin = self._skin & one.seen
        strange = float((apart.max(-1)[skin] > _DEVIATING).mean())
        return min(lost / self._part.sectors, strange / self._part.skin)

    def _base(self, one: _Look) -> NDArray[np.float32] | None:
        """Colour of the skin around: light changes it as a whole."""
        skin = self._skin & one.seen
        if skin.sum() < _LEAST_SKIN * max(1, self._skin.sum()):
            return None
        return np.median(one.lab[skin], axis=0).astype(np.float32)

    def _contrast(self, one: _Look, base: NDArray[np.float32]) -> NDArray[np.float64]:
        """Contrast of each sector to the skin, NaN where it is turned away."""
        values = np.full(2 * _COLUMNS, np.nan)
        plane = one.lab[..., self._part.channel].astype(np.float32) - base[self._part.channel]
        for k in range(len(values)):
            pixels = plane[(self._sector == k) & one.seen]
            if len(pixels) > _LEAST_SECTOR:
                values[k] = self._part.sign * pixels.mean()
        return values


def _polygon(points: NDArray[np.float64], corners: tuple[int, ...]) -> NDArray[np.uint8]:
    mask = np.zeros((_HEIGHT, _WIDTH), np.uint8)
    if corners:
        cv2.fillPoly(mask, [np.rint(points[list(corners)]).astype(np.int32)], 1)
    return mask


def _areas(points: NDArray[np.float64], triangles: NDArray[np.integer]) -> NDArray[np.float64]:
    """Twice the signed area of each triangle."""
    a, b, c = (points[triangles[:, k]] for k in range(3))
    u, v = b - a, c - a
    return np.asarray(u[:, 0] * v[:, 1] - u[:, 1] * v[:, 0])
