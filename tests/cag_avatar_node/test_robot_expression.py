"""The robot's own expression comes, stays and goes."""

from __future__ import annotations

import numpy as np
import pytest

from cag_avatar_node.robot_expression import RobotExpression

SMILE = np.full(52, 0.8, np.float32)
FROWN = np.full(52, 0.2, np.float32)


def test_it_is_eased_in_stays_and_is_eased_out() -> None:
    robot = RobotExpression(ease_s=1.0, hold_s=5.0)
    assert not robot.active(0.0)
    assert not robot.at(0.0).any()
    robot.show(SMILE, 10.0)
    for now, value in {10.0: 0.0, 10.5: 0.4, 11.0: 0.8, 15.0: 0.8, 15.5: 0.4, 16.1: 0.0}.items():
        assert robot.at(now)[0] == pytest.approx(value, abs=1e-5), now
    assert [robot.changing(now) for now in (10.5, 12.0, 15.5, 17.0)] == [True, False, True, False]
    assert [robot.active(now) for now in (10.0, 15.9, 16.1)] == [True, True, False]


def test_the_next_one_begins_where_the_last_one_is() -> None:
    robot = RobotExpression(ease_s=1.0, hold_s=5.0)
    robot.show(SMILE, 0.0)
    robot.show(FROWN, 0.5)
    assert robot.at(0.5)[0] == pytest.approx(0.4)
    assert robot.at(1.5)[0] == pytest.approx(0.2)


def test_the_same_one_again_only_lasts_longer() -> None:
    robot = RobotExpression(ease_s=1.0, hold_s=5.0)
    robot.show(SMILE, 0.0)
    robot.show(SMILE, 4.0)
    assert robot.at(4.0)[0] == pytest.approx(0.8)
    assert robot.at(8.9)[0] == pytest.approx(0.8)


def test_until_the_next_one_or_dismissed() -> None:
    robot = RobotExpression(ease_s=1.0, hold_s=0.0)
    robot.show(SMILE, 0.0)
    assert robot.at(1e6)[0] == pytest.approx(0.8)
    robot.dismiss(1e6)
    assert robot.at(1e6 + 0.5)[0] == pytest.approx(0.4)
    assert not robot.active(1e6 + 1.1)


def test_cleared_it_is_gone_at_once() -> None:
    robot = RobotExpression(ease_s=1.0, hold_s=0.0)
    robot.show(SMILE, 0.0)
    robot.clear()
    assert not robot.active(2.0)
    assert not robot.at(2.0).any()


def test_without_easing() -> None:
    robot = RobotExpression(ease_s=0.0, hold_s=1.0)
    robot.show(SMILE, 0.0)
    assert robot.at(0.0)[0] == pytest.approx(0.8)
    assert not robot.active(1.0)
