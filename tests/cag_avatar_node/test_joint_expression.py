"""JointState messages of facial coefficients."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pytest

from cag_avatar.head_models.arkit import ARKIT_INDEX, ARKIT_NAMES
from cag_avatar_node.expression_validation import ExpressionError
from cag_avatar_node.head_limits import turn_on_neck
from cag_avatar_node.joint_expression import check_joints


@dataclass
class Joints:
    name: list[str] = field(default_factory=list)
    position: list[float] = field(default_factory=list)


def test_named_coefficients_are_taken_in_any_order() -> None:
    names = list(reversed(ARKIT_NAMES))
    values = np.linspace(0, 1, 52)
    checked = check_joints(Joints(names, values.tolist()))
    assert checked is not None
    np.testing.assert_allclose(checked.code, values[::-1], rtol=1e-6)
    assert checked.code.dtype == np.float32
    assert checked.head_motion is None
    assert checked.clamped == 0


def test_missing_ones_are_zero_others_are_left_alone_and_ranges_kept() -> None:
    checked = check_joints(Joints(["jawOpen", "elbow", "mouthPucker"], [1.5, 7.0, -0.5]))
    assert checked is not None
    assert checked.code[ARKIT_INDEX["jawOpen"]] == 1
    assert checked.code.sum() == 1
    assert checked.clamped == 2


def test_the_heads_joints_turn_it() -> None:
    joints = Joints(["head_pitch", "jawOpen", "head_yaw"], [0.2, 0.5, 0.3])
    checked = check_joints(joints)
    assert checked is not None
    assert checked.head_motion is not None
    np.testing.assert_allclose(checked.head_motion, turn_on_neck(0.3, 0.2, 0.0))
    without = check_joints(joints, with_head_pose=False)
    assert without is not None
    assert without.head_motion is None


def test_an_empty_message_is_no_face() -> None:
    assert check_joints(Joints()) is None


@pytest.mark.parametrize(
    ("joints", "fault", "words"),
    [
        (Joints(["jawOpen"], []), "joint_position", "1 names and 0 positions"),
        (Joints([], [0.5]), "joint_position", "0 names and 1 positions"),
        (Joints(["jawOpen"], [float("nan")]), "joint_position", "jawOpen is nan"),
        (Joints(["jawOpen", "jawOpen"], [0.1, 0.2]), "joint_name", "names jawOpen twice"),
        (Joints(["elbow", "head_yaw"], [0.1, 0.1]), "joint_name", "no ARKit name among its 2"),
        (Joints(["jawOpen"] * 2000, [0.0] * 2000), "joint_position", "2000 names"),
    ],
)
def test_bad_ones_are_refused_by_kind(joints: Joints, fault: str, words: str) -> None:
    with pytest.raises(ExpressionError, match=words) as caught:
        check_joints(joints)
    assert caught.value.fault == fault
