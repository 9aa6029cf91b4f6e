"""Which of several faces is the operator's: the largest at first, then the one that goes on."""

from __future__ import annotations

import math
from collections.abc import Sequence

from cag_avatar.errors import InputError

__all__ = ["OperatorChoice"]

#: A face farther than this from the operator's last place, in widths of their face, is another's.
_REACH = 0.75
#: ... plus this much for each second since they were seen, up to the whole timeout.
_SPEED = 2.0
#: Another face's width may differ by this factor: who stands behind is not the operator.
_GROWTH = 2.0

Box = tuple[float, float, float, float]


class OperatorChoice:
    """Follows one face among several.

    The first operator is the largest face. From then on it is the face that has moved least since
    they were last seen, if it lies near enough and is about as large. When there is none, nobody is
    the operator, until they come back or ``timeout_s`` has passed: then the largest face is the
    next one. Time is passed in (seconds, any monotonic clock).

    Args:
        timeout_s: seconds without the operator after which another face may follow.

    Raises:
        InputError: a negative timeout.
    """

    def __init__(self, timeout_s: float) -> None:
        if not timeout_s >= 0:
            raise InputError(f"operator timeout of {timeout_s} s must not be negative")
        self._timeout = timeout_s
        self._last: Box | None = None
        self._seen = 0.0
        #: Counts the operators from 0; grows when another person takes over.
        self.number = 0

    def restart(self) -> None:
        """Forget the operator: the next choice is the largest face."""
        self._last = None

    def choose(self, boxes: Sequence[Box], now: float) -> int | None:
        """Index of the operator's box (left, top, right, bottom, in pixels), or None."""
        if self._last is not None and now - self._seen > self._timeout:
            self._last = None
            self.number += 1
        chosen = self._nearest(boxes, now) if self._last is not None else _largest(boxes)
        if chosen is not None:
            self._last, self._seen = boxes[chosen], now
        return chosen

    def _nearest(self, boxes: Sequence[Box], now: float) -> int | None:
        assert self._last is not None
        width = _width(self._last)
        best, least = None, _REACH + _SPEED * max(now - self._seen, 0.0)
        for index, box in enumerate(boxes):
            growth = max(_width(box), 1e-6) / max(width, 1e-6)
            moved = math.dist(_centre(box), _centre(self._last)) / max(width, 1e-6)
            if moved <= least and 1 / _GROWTH <= growth <= _GROWTH:
                best, least = index, moved
        return best


def _largest(boxes: Sequence[Box]) -> int | None:
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in boxes]
    return areas.index(max(areas)) if areas else None


def _width(box: Box) -> float:
    # The geometric mean of the sides: a face that turns away becomes narrow, not small.
    return math.sqrt(max(box[2] - box[0], 0.0) * max(box[3] - box[1], 0.0))


def _centre(box: Box) -> tuple[float, float]:
    return (box[0] + box[2]) / 2, (box[1] + box[3]) / 2
