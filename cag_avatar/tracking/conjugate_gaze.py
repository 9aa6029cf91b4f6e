"""What two eyes cannot do: look up and down at once, or one up and the other one down."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["with_conjugate_gaze"]

_SIDES = ("Left", "Right")


def with_conjugate_gaze(codes: NDArray[Any], names: Sequence[str]) -> NDArray[Any]:
    """Codes [T, E] in which both eyes are as high, and of two opposed coefficients one is 0.

    A fit sees the eyeball, which only the difference of two opposed coefficients turns, and the
    lids, which both of them move, so it leaves some of each. Codes without ARKit's eight
    coefficients of the gaze come back as they are.

    Args:
        codes: expression codes.
        names: of their coefficients, E.
    """
    place = {name: index for index, name in enumerate(names)}
    wanted = [f"eyeLook{way}{side}" for way in ("Up", "Down", "In", "Out") for side in _SIDES]
    if any(name not in place for name in wanted):
        return codes
    codes = codes.copy()

    def turned(one: str, other: str, side: str) -> NDArray[Any]:
        return np.asarray(
            codes[:, place[f"eyeLook{one}{side}"]] - codes[:, place[f"eyeLook{other}{side}"]]
        )

    up = (turned("Up", "Down", "Left") + turned("Up", "Down", "Right")) / 2
    for side in _SIDES:
        for one, other, turn in (("Up", "Down", up), ("In", "Out", turned("In", "Out", side))):
            codes[:, place[f"eyeLook{one}{side}"]] = np.maximum(turn, 0)
            codes[:, place[f"eyeLook{other}{side}"]] = np.maximum(-turn, 0)
    return codes
