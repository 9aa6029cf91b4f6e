"""What may move an avatar, and what is refused and why."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pytest

from cag_avatar_node.expression_validation import (
    ARKIT_52,
    FLAME_100,
    ExpressionError,
    check_expression,
    check_stamp,
)
from cag_avatar_node.head_pose_conversion import face_pose_to_head_pose


@dataclass
class FakeExpression:
    """The fields of FaceExpression that are read; the defaults are good."""

    layout: int = ARKIT_52
    coefficients: list[float] = field(default_factory=lambda: [0.25] * 52)
    head_position: list[float] = field(default_factory=lambda: [0.0, 0.0, 0.5])
    head_orientation: list[float] = field(default_factory=lambda: [0.5, -0.5, 0.5, 0.5])
    is_valid: bool = True


def test_good_expression() -> None:
    message = FakeExpression()
    checked = check_expression(message)
    assert checked is not None
    assert checked.code.dtype == np.float32
    np.testing.assert_array_equal(checked.code, np.full(52, 0.25, np.float32))
    assert checked.clamped == 0
    expected = face_pose_to_head_pose(message.head_position, message.head_orientation)
    np.testing.assert_array_equal(checked.head_pose, expected)


def test_no_face_needs_nothing_else() -> None:
    nothing = FakeExpression(layout=0, coefficients=[], head_orientation=[0.0] * 4, is_valid=False)
    assert check_expression(nothing) is None


def test_out_of_range_is_clamped_and_counted() -> None:
    coefficients = [0.5] * 52
    coefficients[3], coefficients[7] = -0.2, 1.7
    checked = check_expression(FakeExpression(coefficients=coefficients))
    assert checked is not None
    assert checked.clamped == 2
    assert checked.code[3] == 0
    assert checked.code[7] == 1
    assert checked.code[0] == 0.5


def with_nan() -> list[float]:
    values = [0.0] * 52
    values[17] = float("nan")
    return values


@pytest.mark.parametrize(
    ("message", "fault", "words"),
    [
        (FakeExpression(layout=0), "layout", "layout 0 is unknown: send ARKIT_52"),
        (FakeExpression(layout=77), "layout", "layout 77 is unknown"),
        (FakeExpression(layout=FLAME_100, coefficients=[0.0] * 100), "layout", "FLAME_100, which"),
        (FakeExpression(coefficients=[0.0] * 51), "coefficients", "has 51 values"),
        (FakeExpression(coefficients=[]), "coefficients", "has 0 values"),
        (FakeExpression(coefficients=with_nan()), "coefficients", r"\[17\] \(jawOpen\) is nan"),
        (FakeExpression(coefficients=[np.inf] * 52), "coefficients", "is inf"),
        (FakeExpression(head_position=[0.0, np.nan, 1.0]), "head_position", "finite metres"),
        (FakeExpression(head_position=[0.0, 0.0, -1.0]), "head_position", "0 < z"),
        (FakeExpression(head_position=[0.0, 1e30, 1.0]), "head_position", "z <= 100"),
        (FakeExpression(head_orientation=[0.0] * 4), "head_orientation", "length 0, not 1"),
        (FakeExpression(head_orientation=[1.0] * 4), "head_orientation", "length 2, not 1"),
        (FakeExpression(head_orientation=[np.inf, 0, 0, 1]), "head_orientation", "be finite"),
    ],
)
def test_refused(message: FakeExpression, fault: str, words: str) -> None:
    with pytest.raises(ExpressionError, match=words) as caught:
        check_expression(message)
    assert caught.value.fault == fault
    assert "\n" not in str(caught.value)


def test_head_pose_is_not_looked_at_when_not_wanted() -> None:
    message = FakeExpression(head_orientation=[0.0] * 4, head_position=[0.0] * 3)
    checked = check_expression(message, with_head_pose=False)
    assert checked is not None
    assert checked.head_pose is None


def test_stamps_that_are_no_time_are_refused() -> None:
    check_stamp(0, 0)
    check_stamp(2**31 - 1, 999_999_999)
    for bad in ((-1, 0), (0, 10**9), (0, -1)):
        with pytest.raises(ExpressionError, match="is not a time") as caught:
            check_stamp(*bad)
        assert caught.value.fault == "stamp"
