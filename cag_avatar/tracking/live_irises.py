"""The irises of one operator, frame after frame, as irises.py finds them in a clip."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cag_avatar.tracking.irises import (
    EyeLook,
    IrisTemplate,
    eye_axes,
    eye_proportion,
    iris_places,
    joint_motion,
    look_at,
)

__all__ = ["EyeLooks", "LiveIrises", "OperatorIrises", "learn_irises", "look_at_eyes"]

#: What a frame shows of the right and of the left eye.
EyeLooks = tuple[EyeLook | None, EyeLook | None]

#: Frames over which the irises' usual place is followed: a minute or so.
_USUAL = 1500


@dataclass(frozen=True, eq=False)
class OperatorIrises:
    """How an operator's irises look, from some frames."""

    rings: NDArray[np.float32]
    """Of IrisTemplate, right and left eye; NaN for an eye that was hardly seen, [2, 26, 3]."""
    centres: NDArray[np.float64]
    """Of the irises relative to their landmarks, iris radii, [T, 2, 2]; NaN where not seen."""
    proportion: float
    """Of eye_proportion()."""


def look_at_eyes(
    image: NDArray[np.uint8], landmarks: NDArray[np.floating], proportion: float | None = None
) -> EyeLooks:
    """What an RGB image [H, W, 3] shows of both eyes; landmarks [478, 2 or 3], pixels."""
    axes = eye_axes(landmarks[None], proportion)[0]
    return look_at(image, landmarks, axes, 0), look_at(image, landmarks, axes, 1)


def learn_irises(
    looks: Sequence[EyeLooks], landmarks: NDArray[np.floating]
) -> OperatorIrises | None:
    """Learn them from some frames; None if neither eye is seen often enough.

    Args:
        looks: of T frames.
        landmarks: theirs, pixels, [T, 478, 2 or 3].
    """
    templates = [
        IrisTemplate.learn([look for pair in looks if (look := pair[eye]) is not None])
        for eye in range(2)
    ]
    known = [template for template in templates if template is not None]
    if not known:
        return None
    nothing = np.full_like(known[0].rings, np.nan)
    return OperatorIrises(
        np.stack([nothing if template is None else template.rings for template in templates]),
        np.stack([_centres(pair, templates) for pair in looks]),
        eye_proportion(landmarks),
    )


class LiveIrises:
    """Finds them in new frames; not for several threads at once.

    As in a clip only motion counts: what the irises are off by usually, over the last minute, is
    taken as the landmarks' height (see irises.py).

    Args:
        operator: how they look.
    """

    def __init__(self, operator: OperatorIrises) -> None:
        self._proportion = operator.proportion
        self._templates = [
            IrisTemplate(rings) if np.isfinite(rings).all() else None for rings in operator.rings
        ]
        # Of the last frames, in a ring; NaN where there are none yet.
        self._usual = np.full((_USUAL, 2, 2), np.nan)
        known = operator.centres[-_USUAL:]
        self._usual[: len(known)] = known
        self._next = len(known) % _USUAL
        self._place: NDArray[np.float64] | None = None

    def shifts(
        self, image: NDArray[np.uint8], landmarks: NDArray[np.floating]
    ) -> NDArray[np.float32]:
        """What to add to the irises' landmarks, pixels, [2, 2] (right eye first).

        Closed or hidden eyes keep the place in the face that they had when they were seen last.

        Args:
            image: RGB, [H, W, 3].
            landmarks: pixels, [478, 2 or 3].
        """
        axes = eye_axes(landmarks[None], self._proportion)
        centres = _centres(look_at_eyes(image, landmarks, self._proportion), self._templates)
        place = iris_places(landmarks[None], axes)[0]
        if np.isfinite(centres).any():
            self._usual[self._next] = centres
            self._next = (self._next + 1) % _USUAL
            shift = joint_motion((centres - self._middle())[None])[0]
            self._place = place + shift
        else:
            shift = np.zeros((2, 2)) if self._place is None else self._place - place
        return np.asarray(shift @ axes[0].T, np.float32)

    def _middle(self) -> NDArray[np.float64]:
        """Median of the centres that were seen, [2, 2]; 0 for an eye that never was."""
        middle = np.zeros((2, 2))
        for eye in range(2):
            seen = self._usual[np.isfinite(self._usual[:, eye, 0]), eye]
            if len(seen):
                middle[eye] = np.median(seen, axis=0)
        return middle


def _centres(looks: EyeLooks, templates: Sequence[IrisTemplate | None]) -> NDArray[np.float64]:
    """Relative to the landmarks, iris radii, [2, 2]; NaN where not seen."""
    centres = np.full((2, 2), np.nan)
    for eye, (look, template) in enumerate(zip(looks, templates, strict=True)):
        if look is not None and template is not None:
            centres[eye] = template.centre(look)
    return centres
