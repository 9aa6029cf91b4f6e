from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from cag_avatar.head_models import ARKIT_INDEX, ARKIT_NAMES
from cag_avatar.tracking.conjugate_gaze import with_conjugate_gaze


def code(**values: float) -> NDArray[np.float64]:
    row = np.zeros((1, len(ARKIT_NAMES)))
    for name, value in values.items():
        row[0, ARKIT_INDEX[name]] = value
    return row


def test_opposed_coefficients_cancel_and_heights_are_shared() -> None:
    given = code(
        eyeLookUpLeft=0.5, eyeLookDownLeft=0.1, eyeLookUpRight=0.0, eyeLookDownRight=0.2,
        eyeLookInLeft=0.3, eyeLookOutLeft=0.5, eyeLookOutRight=0.25, jawOpen=0.7,
    )  # fmt: skip
    wanted = code(
        eyeLookUpLeft=0.1, eyeLookUpRight=0.1, eyeLookOutLeft=0.2, eyeLookOutRight=0.25,
        jawOpen=0.7,
    )  # fmt: skip
    np.testing.assert_allclose(with_conjugate_gaze(given, ARKIT_NAMES), wanted, atol=1e-12)
    assert given[0, ARKIT_INDEX["eyeLookDownLeft"]] == pytest.approx(0.1)


def test_codes_without_arkits_gaze_stay() -> None:
    given = np.zeros((3, 4))
    assert with_conjugate_gaze(given, ("jaw", "eyeLookUpLeft", "a", "b")) is given
