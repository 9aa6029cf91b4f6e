"""Where the irises are, from the pictures of a clip.

The face landmarker's irises hardly follow a look up or down: rendered eyes that move by 1.5 pixels
(root mean square) are seen to move by 0.3 of that. An iris is round, though, so within one clip the
colour in the opening between the lids depends on the distance from its centre alone: pupil, iris,
limbus, white. From the landmarks' centres a template, colour by distance, is learned over many
frames; the centres that agree with it best give a sharper one, and so on (expectation maximisation
with hard assignments). Then every frame is compared with it.

What lids hide all the time (the lower rim, often) leaves the mean height of the centres open, so
only their motion relative to the landmarks is used: the median shift over the clip is zero.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from cag_avatar.tracking.face_landmarker import (
    EYE_LIDS,
    EYE_OUTER_CORNERS,
    IRIS_LANDMARKS,
)
from cag_avatar.tracking.iris_kernels import gather_rings, template_costs

__all__ = [
    "EyeLook",
    "IrisTemplate",
    "combined_shifts",
    "eye_axes",
    "eye_proportion",
    "iris_places",
    "joint_motion",
    "look_at",
    "with_irises",
]

#: Bridge and base of the nose: what a turned head does not shorten.
_NOSE = (168, 2)
#: Landmarks on bridge of the nose and temples, which closing lids do not move.
_STILL = [6, 168, 197, 234, 454]
#: Radius of an iris (5.9 mm) in distances between the outer corners of the eyes (about 89 mm).
_RADIUS = 0.066
#: An eye is looked at with an iris of so many pixels' radius, in a picture of this size.
_SCALE, _WIDTH, _HEIGHT = 14.0, 96, 64
#: Share of an iris's disc that must be seen of the opening.
_LEAST_OPENING = 0.3
#: The template's rings, and the radius at which it ends, in iris radii.
_RINGS, _REACH = 24, 1.8
_DENSITY = _RINGS / _REACH
#: A template is learned from so many frames at least.
_LEAST_LOOKS = 8
#: Rounds of learning; in the last of them centres are refined.
_ROUNDS, _FINE_ROUNDS = 5, 2
#: Farthest that a centre is looked for, and steps, in iris radii.
_ACROSS, _DOWN, _COARSE, _FINE = 0.5, 0.8, 0.1, 0.03
#: Log colour differences, summed over the channels, at which a pixel counts as something else (a
#: glint, a lash), and at which it counts half when the template is learned.
_OTHER, _HALF = 1.0, 0.5
#: Cost of a shift by one radius.
_PULL = 0.1
#: Added before the logarithm, levels of 0..255.
_DARK = 12.0

Array = NDArray[Any]


class EyeLook(NamedTuple):
    """The opening of one eye in one frame, in iris radii round the landmark of its iris."""

    colors: NDArray[np.float32]
    """Logarithms of P pixels' colours, mean removed, [P, 3]."""
    at: NDArray[np.float32]
    """Where those pixels are: x along the line of the eyes, y down, [P, 2]."""


def eye_proportion(landmarks: NDArray[np.floating]) -> float:
    """Distance of the eyes' outer corners over the length of the nose, median of T faces.

    Args:
        landmarks: pixels, [T, 478, 2 or 3].
    """
    across, nose = _lengths(np.asarray(landmarks[..., :2], np.float64))
    return float(np.median(across / np.maximum(nose, 1.0)))


def eye_axes(
    landmarks: NDArray[np.floating], proportion: float | None = None
) -> NDArray[np.float64]:
    """One iris radius along the line of the eyes and one down, pixels, as columns, [T, 2, 2].

    Args:
        landmarks: pixels, [T, 478, 2 or 3]. A turned head shortens the eyes' distance or the nose;
            the other one keeps the scale.
        proportion: of :func:`eye_proportion`; by default that of these faces.
    """
    points = np.asarray(landmarks[..., :2], np.float64)
    if proportion is None:
        proportion = eye_proportion(points)
    along = points[:, EYE_OUTER_CORNERS[1]] - points[:, EYE_OUTER_CORNERS[0]]
    across, nose = _lengths(points)
    length = np.maximum(across, nose * proportion)
    whole = np.linalg.norm(along, axis=1) > 0.5  # else there is no line of the eyes
    unit = np.where(whole[:, None], along / across[:, None], [1.0, 0.0])
    x, y = (unit * (_RADIUS * length)[:, None]).T
    return np.asarray(np.stack([np.stack([x, -y], -1), np.stack([y, x], -1)], 1), np.float64)


def _lengths(points: NDArray[np.float64]) -> tuple[Array, Array]:
    """Distance of the eyes' outer corners and length of the nose, pixels, [T] each."""
    along = points[:, EYE_OUTER_CORNERS[1]] - points[:, EYE_OUTER_CORNERS[0]]
    nose = np.linalg.norm(points[:, _NOSE[0]] - points[:, _NOSE[1]], axis=1)
    return np.maximum(np.linalg.norm(along, axis=1), 1.0), nose


def look_at(
    image: NDArray[np.uint8], landmarks: NDArray[np.floating], axes: NDArray[np.floating], eye: int
) -> EyeLook | None:
    """What a picture shows of an eye; None if it is all but closed.

    Args:
        image: RGB, [H, W, 3].
        landmarks: pixels, [478, 2 or 3].
        axes: of :func:`eye_axes`, [2, 2].
        eye: 0 for the subject's right eye, 1 for the left.
    """
    points = np.asarray(landmarks[:, :2], np.float64)
    turn = _SCALE * np.linalg.inv(axes)
    lids = points[list(EYE_LIDS[eye])]
    shift = np.array([_WIDTH, _HEIGHT]) / 2 - turn @ lids[[0, 8]].mean(0)
    # Pixel centres lie at half integers here and at integers in OpenCV.
    moved = np.hstack([turn, (shift + turn @ [0.5, 0.5] - 0.5)[:, None]])
    patch = cv2.warpAffine(image, moved, (_WIDTH, _HEIGHT), flags=cv2.INTER_CUBIC)
    opening = np.zeros((_HEIGHT, _WIDTH), np.uint8)
    rim = np.rint((lids @ turn.T + shift - 0.5) * 16).astype(np.int32)
    cv2.fillPoly(opening, [rim], 1, shift=4)
    opening = np.asarray(cv2.erode(opening, np.ones((3, 3), np.uint8)), np.uint8)
    rows, columns = np.nonzero(opening)
    if len(rows) < _LEAST_OPENING * math.pi * _SCALE**2:
        return None
    colors = np.log(patch[rows, columns].astype(np.float32) + np.float32(_DARK))
    iris = points[IRIS_LANDMARKS[eye][0]] @ turn.T + shift
    at = (np.stack([columns, rows], 1) + 0.5 - iris) / _SCALE
    return EyeLook(colors - colors.mean(0), at.astype(np.float32))


@dataclass(frozen=True)
class IrisTemplate:
    """Log colour by distance from the centre of one iris."""

    rings: NDArray[np.float32]
    """At distances 0, 1.8 / 24, ... iris radii, and one ring for all beyond 1.8, [26, 3]."""

    @classmethod
    def learn(cls, looks: Sequence[EyeLook]) -> IrisTemplate | None:
        """Learn it from some frames of one eye; None from fewer than 8."""
        if len(looks) < _LEAST_LOOKS:
            return None
        centres = np.zeros((len(looks), 2))
        template = cls._mean(looks, centres, None)
        for number in range(_ROUNDS):
            fine = number >= _ROUNDS - _FINE_ROUNDS
            centres = np.array([template.centre(look, fine) for look in looks])
            template = cls._mean(looks, centres, template)
        return template

    @classmethod
    def _mean(
        cls, looks: Sequence[EyeLook], centres: Array, template: IrisTemplate | None
    ) -> IrisTemplate:
        """Mean of the rings; pixels unlike ``template`` count less."""
        total = np.zeros((_RINGS + 2, 3))
        weight = np.full(_RINGS + 2, 1e-3)
        known = np.zeros_like(total, dtype=np.float32) if template is None else template.rings
        for look, centre in zip(looks, centres, strict=True):
            half = 0.0 if template is None else _HALF
            gather_rings(look.colors, look.at, known, _DENSITY, centre, half, total, weight)
        return cls((total / weight[:, None]).astype(np.float32))

    def centre(self, look: EyeLook, fine: bool = True) -> NDArray[np.float64]:
        """The iris's centre relative to its landmark, iris radii, [2].

        ``fine`` looks for it to a hundredth, else to a tenth.
        """
        x, y = _grid(_ACROSS, _COARSE), _grid(_DOWN, _COARSE)
        found = self._best(look, x, y)
        if fine:
            near = _grid(3 * _FINE, _FINE)
            found = self._best(look, found[0] + near, found[1] + near)
        return found

    def _best(self, look: EyeLook, x: Array, y: Array) -> NDArray[np.float64]:
        costs = template_costs(look.colors, look.at, self.rings, _DENSITY, x, y, _OTHER)
        costs += _PULL * (np.square(x)[:, None] + np.square(y))
        i, j = np.unravel_index(int(costs.argmin()), costs.shape)
        found = [_vertex(x, costs[:, j], int(i)), _vertex(y, costs[i], int(j))]
        return np.array(found, np.float64)


def combined_shifts(
    centres: NDArray[np.floating], landmarks: NDArray[np.floating], axes: NDArray[np.floating]
) -> NDArray[np.float32]:
    """What to add to the irises' landmarks, pixels, [T, 2, 2] (right eye first).

    Eyes look up and down together, so both get the mean of their heights' changes; an eye that is
    closed or hidden in a frame moves with the other one. Where both are, the irises keep the place
    in the face that they have in the frames around: the landmarker puts them into the slit between
    the lids. Nothing where no frame shows an eye.

    Args:
        centres: relative to the landmarks, iris radii, [T, 2, 2]; NaN where not seen.
        landmarks: pixels, [T, 478, 2 or 3].
        axes: of :func:`eye_axes`, [T, 2, 2].
    """
    shift = np.array(centres, np.float64)
    seen = np.isfinite(shift[..., 0])
    either = seen.any(1)
    if not either.any():
        return np.zeros(shift.shape, np.float32)
    for eye in np.flatnonzero(seen.any(0)).tolist():
        shift[:, eye] -= np.median(shift[seen[:, eye], eye], 0)
    shift = joint_motion(shift)
    place = iris_places(landmarks, axes)
    frames = np.arange(len(shift))
    for eye in range(2):
        for axis in range(2):
            known = (place + shift)[either, eye, axis]
            wanted = np.interp(frames, frames[either], known) - place[:, eye, axis]
            shift[~either, eye, axis] = wanted[~either]
    return np.einsum("tij,tej->tei", axes, shift).astype(np.float32)


def joint_motion(shift: NDArray[np.float64]) -> NDArray[np.float64]:
    """Shifts [T, 2, 2] of two eyes that are as high, and of which a hidden one (NaN) moves with the
    other; where both are hidden, 0."""
    seen = np.isfinite(shift[..., 0])
    both = np.where(seen[..., None], shift, 0).sum(1) / np.maximum(seen.sum(1), 1)[:, None]
    shift = np.where(seen[..., None], shift, both[:, None])
    shift[..., 1] = both[:, None, 1]
    return shift


def iris_places(landmarks: NDArray[np.floating], axes: NDArray[np.floating]) -> NDArray[np.float64]:
    """Where the irises' landmarks lie in the face, iris radii, [T, 2, 2]; arguments as for
    :func:`combined_shifts`."""
    points = np.asarray(landmarks[..., :2], np.float64)
    irises = points[:, [indices[0] for indices in IRIS_LANDMARKS]]
    face = points[:, _STILL].mean(1, keepdims=True)
    return np.einsum("tij,tej->tei", np.linalg.inv(axes), irises - face)


def with_irises(
    landmarks: NDArray[np.floating], shifts: NDArray[np.floating]
) -> NDArray[np.float32]:
    """Landmarks [..., 478, D] (pixels) whose irises are moved by ``shifts`` [..., 2, 2] (right eye
    first), those of each iris together."""
    moved = np.array(landmarks, np.float32)
    for eye, indices in enumerate(IRIS_LANDMARKS):
        moved[..., list(indices), :2] += shifts[..., eye, None, :]
    return moved


def _grid(reach: float, step: float) -> NDArray[np.float64]:
    count = round(reach / step)
    return step * np.arange(-count, count + 1, dtype=np.float64)


def _vertex(at: Array, costs: Array, index: int) -> float:
    """Where the parabola through a minimum and its two neighbours is least."""
    if 0 < index < len(at) - 1:
        left, middle, right = costs[index - 1 : index + 2]
        bend = left - 2 * middle + right
        if bend > 1e-12:
            return float(at[index] + 0.5 * (left - right) / bend * (at[1] - at[0]))
    return float(at[index])
