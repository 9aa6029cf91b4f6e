"""What is known about the person who drives an avatar: their face at rest, and how far it goes."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from cag_avatar.errors import InputError

if TYPE_CHECKING:
    from cag_avatar.head_models.base import HeadModel

__all__ = [
    "CodeLayout",
    "DriverProfile",
    "RunningDriver",
    "gaze_coefficients",
    "measure_driver",
    "resting_code",
]

#: Percentile of a coefficient in a clip that counts as the face at rest, and that of its reach.
_REST, _REACH = 5.0, 99.0
#: A face at rest is at most so far from neutral: who never closes the mouth has an open mouth.
_REST_LIMIT = 0.4
#: Share of the frames that are the quiet ones, for coefficients without a lower bound.
_QUIET = 0.1
_GAZE = re.compile(r"eyeLook|eye(Left|Right)\d")


@dataclass(frozen=True)
class CodeLayout:
    """The coefficients of a head model, as far as driving needs to know them."""

    names: tuple[str, ...]
    """Of the E coefficients."""
    neutral: NDArray[np.float64]
    """Code of the rest head, [E]."""
    low: NDArray[np.float64]
    """Smallest coefficients, [E]; -inf where there is no bound."""
    high: NDArray[np.float64]
    """Largest coefficients, [E]; inf where there is no bound."""

    @classmethod
    def of(cls, head: HeadModel) -> CodeLayout:
        """Those of a head model."""
        arrays = (head.neutral_code, head.code_low, head.code_high)
        return cls(head.expression_names, *(a.cpu().double().numpy() for a in arrays))

    # Asked for with every frame, and hundreds of regular expressions each.
    @cached_property
    def gaze(self) -> NDArray[np.bool_]:
        """Which coefficients turn the eyes, [E]."""
        return gaze_coefficients(self.names)

    @cached_property
    def one_sided(self) -> NDArray[np.bool_]:
        """Which coefficients grow from neutral in one direction only, as ARKit's do, [E]."""
        return np.asarray(self.low == self.neutral) & np.isfinite(self.high) & ~self.gaze

    @cached_property
    def pairs(self) -> list[tuple[int, ...]]:
        """Left and right coefficients together, the others alone; one-sided ones only."""
        groups: dict[str, list[int]] = {}
        for index, name in enumerate(self.names):
            if self.one_sided[index]:
                # jawLeft and mouthLeft are directions, not sides.
                sided = not name.startswith(("jaw", "mouthLeft", "mouthRight"))
                key = re.sub(r"(Left|Right|_L|_R)$", "", name) if sided else name
                groups.setdefault(key, []).append(index)
        return [tuple(group) for group in groups.values()]

    @cached_property
    def blinks(self) -> NDArray[np.bool_]:
        """Which of :attr:`pairs` close the eyes."""
        return np.array([self.names[pair[0]].startswith("eyeBlink") for pair in self.pairs], bool)

    @cached_property
    def pair_means(self) -> NDArray[np.float64]:
        """Matrix that takes a code's mean over each of :attr:`pairs`, [P, E]."""
        matrix = np.zeros((len(self.pairs), len(self.names)))
        for row, members in enumerate(self.pairs):
            matrix[row, list(members)] = 1 / len(members)
        return matrix


def gaze_coefficients(names: Sequence[str]) -> NDArray[np.bool_]:
    """Which coefficients turn the eyes, [E] bool: ARKit's eyeLook*, FLAME's eye rotations."""
    return np.array([_GAZE.match(name) is not None for name in names], dtype=bool)


@dataclass(frozen=True)
class DriverProfile:
    """A driver's rest and reach."""

    rest: NDArray[np.float64]
    """Code of their face at rest, [E]."""
    reach: NDArray[np.float64] | None = None
    """Largest coefficients (99th percentile), [E]; None: not known."""
    trust: float = 1.0
    """How far the reach is to be believed, 0 to 1."""

    def gain(
        self,
        layout: CodeLayout,
        rest: NDArray[np.float64],
        reach: NDArray[np.float64],
        limit: float,
        least: float = 0.2,
        blink_limit: float | None = None,
    ) -> NDArray[np.float64]:
        """Factors [E] that map this driver's reach to the avatar's, within [1 / limit, limit].

        1 where either moves less than ``least``, and for coefficients with two directions. Left and
        right share one factor: else a symmetric smile would turn lopsided.

        Args:
            layout: of the codes.
            rest: the avatar's code at rest, [E].
            reach: the largest coefficients that the avatar has seen, [E].
            limit: largest factor, at least 1.
            least: of the two spans.
            blink_limit: the same as ``limit`` for eyeBlink; by default that.
        """
        result = np.ones(len(rest))
        if self.reach is None or limit <= 1:
            return result
        ours, theirs = reach - rest, self.reach - self.rest
        own, other = layout.pair_means @ ours, layout.pair_means @ theirs
        known = np.minimum(own, other) > least
        ratio = np.where(known, own, 1.0) / np.where(known, other, 1.0)
        limits = np.where(layout.blinks, blink_limit or limit, limit)
        gains = np.clip(ratio, 1 / limits, limits) ** self.trust
        return np.asarray(result + (layout.pair_means > 0).T @ (gains - 1.0))


def resting_code(codes: NDArray[np.floating], layout: CodeLayout) -> NDArray[np.float64]:
    """The code [E] of a face at rest from codes [T, E] of a clip.

    A coefficient that grows from neutral in one direction rests at its 5th percentile (what never
    goes away is the person's face or the tracker's bias, not an expression), at most 0.4 from
    neutral. Those with two directions rest at their mean over the quietest tenth of the frames.
    Gaze rests straight ahead.

    Raises:
        InputError: no frame, or another number of coefficients.
    """
    values = np.asarray(codes, np.float64)
    if values.ndim != 2 or not len(values) or values.shape[1] != len(layout.names):
        raise InputError(
            f"driver: codes have shape {list(values.shape)}, expected [T, {len(layout.names)}] of "
            "at least one frame"
        )
    rest = layout.neutral.copy()
    low = np.percentile(values, _REST, axis=0)
    one_sided = layout.one_sided
    rest[one_sided] = np.clip(low, layout.neutral, layout.neutral + _REST_LIMIT)[one_sided]
    both = ~one_sided & ~layout.gaze
    if both.any():
        change = values[:, both] - layout.neutral[both]
        loud = (np.abs(change) / np.maximum(change.std(0), 1e-3)).mean(1)
        count = max(1, round(_QUIET * len(values)))
        quiet = np.argsort(loud, kind="stable")[:count]
        rest[both] = values[quiet][:, both].mean(0)
    return rest


def measure_driver(codes: NDArray[np.floating], layout: CodeLayout) -> DriverProfile:
    """Rest and reach of a driver from the codes [T, E] of a whole clip.

    Raises:
        InputError: as resting_code().
    """
    rest = resting_code(codes, layout)
    return DriverProfile(rest, np.percentile(np.asarray(codes, np.float64), _REACH, axis=0))


class RunningDriver:
    """A driver's profile while they are being watched.

    It begins as the avatar's own rest, so that the first frames are taken as they are, and moves to
    the driver's as frames come in.

    Args:
        layout: of the codes.
        start: the avatar's code at rest, [E].
        window: frames that are remembered.
        doubt: frames after which the driver's own rest counts for half.
    """

    def __init__(
        self,
        layout: CodeLayout,
        start: NDArray[np.floating],
        window: int = 1500,
        doubt: int = 50,
    ) -> None:
        if window < 1 or doubt < 1:
            raise InputError("driver: window and doubt must be at least 1")
        self._layout = layout
        self._start = np.asarray(start, np.float64)
        self._codes: deque[NDArray[np.float64]] = deque(maxlen=window)
        self._doubt = doubt
        self._measured: DriverProfile | None = None
        self._due = 0

    def restart(self) -> None:
        """Forget the driver."""
        self._codes.clear()
        self._measured, self._due = None, 0

    def take_over(self, other: RunningDriver) -> None:
        """Remember the frames that another one saw of the same driver, for another avatar."""
        self._codes.extend(other._codes)
        self._measured, self._due = None, 0

    def update(self, code: NDArray[np.floating]) -> DriverProfile:
        """Take a code [E] of a frame with a face; returns what is known by now."""
        self._codes.append(np.asarray(code, np.float64))
        count = len(self._codes)
        self._due -= 1
        # Percentiles of a minute cost milliseconds and hardly change from frame to frame.
        if self._measured is None or self._due <= 0:
            self._measured = measure_driver(np.stack(self._codes), self._layout)
            self._due = max(1, count // 20)
        share = count / (count + self._doubt)
        rest = share * self._measured.rest + (1 - share) * self._start
        return DriverProfile(rest, self._measured.reach, min(1.0, count / (20 * self._doubt)))
