from __future__ import annotations

import pytest

from cag_avatar.errors import InputError
from cag_avatar.tracking.operator_choice import OperatorChoice


def box(x: float, y: float = 100.0, side: float = 80.0) -> tuple[float, float, float, float]:
    return x - side / 2, y - side / 2, x + side / 2, y + side / 2


def test_the_largest_is_first_and_keeps_the_place_when_another_grows() -> None:
    choice = OperatorChoice(1.0)
    assert choice.choose([], 0.0) is None
    assert choice.choose([box(100, side=60), box(300)], 0.1) == 1
    assert choice.choose([box(310), box(100, side=120)], 0.2) == 0, "the order does not matter"
    assert choice.choose([box(100, side=120), box(315)], 0.3) == 1
    assert choice.number == 0


def test_faces_that_pass_are_told_apart_by_where_they_were() -> None:
    choice = OperatorChoice(1.0)
    choice.choose([box(100), box(400, side=70)], 0.0)
    for step in range(1, 26):
        operator, other = box(100 + 2 * step), box(400 - 12 * step, y=130, side=70)
        faces = [other, operator] if step % 2 else [operator, other]
        assert choice.choose(faces, 0.04 * step) == step % 2


def test_nobody_replaces_the_operator_before_the_timeout() -> None:
    choice = OperatorChoice(1.0)
    choice.choose([box(100), box(400, side=70)], 0.0)
    assert choice.choose([box(400, side=70)], 0.04) is None
    assert choice.choose([box(400, side=70)], 0.9) is None
    assert choice.number == 0
    assert choice.choose([box(400, side=70)], 1.05) == 0
    assert choice.number == 1, "the change is not told"
    assert choice.choose([box(100), box(400, side=70)], 1.1) == 1, "the new one has the place"


def test_the_operator_comes_back_within_the_timeout_and_a_little_elsewhere() -> None:
    choice = OperatorChoice(2.0)
    choice.choose([box(100), box(400, side=70)], 0.0)
    assert choice.choose([box(400, side=70)], 0.5) is None
    assert choice.choose([box(400, side=70), box(180)], 1.0) == 1
    assert choice.number == 0


def test_a_face_far_behind_is_not_the_operator() -> None:
    choice = OperatorChoice(1.0)
    choice.choose([box(100)], 0.0)
    assert choice.choose([box(110, side=30)], 0.04) is None
    assert choice.choose([box(110, side=60)], 0.08) == 0


def test_restart_takes_the_largest_again() -> None:
    choice = OperatorChoice(5.0)
    choice.choose([box(100)], 0.0)
    choice.restart()
    assert choice.choose([box(100), box(400, side=90)], 0.04) == 1


def test_a_negative_timeout_is_refused() -> None:
    with pytest.raises(InputError, match="must not be negative"):
        OperatorChoice(-1.0)
