"""A loaded avatar driven without ROS."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from cag_avatar.head_models.arkit import ARKIT_INDEX
from cag_avatar_node.backdrop import compose, plain
from cag_avatar_node.driven_avatar import DrivenAvatar, DrivingSettings, View
from cag_avatar_node.expression_validation import CheckedExpression
from cag_avatar_node.head_limits import HeadLimits, turn_on_neck
from cag_avatar_node.neutral_pose import NeutralPose

SIZE = 96


@pytest.fixture
def avatar(tiny_avatar_path: Path) -> DrivenAvatar:
    return DrivenAvatar(tiny_avatar_path, "cpu", SIZE, (255, 255, 255), NeutralPose(0.0))


def checked(yaw: float = 0.0, **coefficients: float) -> CheckedExpression:
    code = np.zeros(52, np.float32)
    for name, value in coefficients.items():
        code[ARKIT_INDEX[name]] = value
    pose = np.diag([1.0, -1.0, -1.0, 1.0])
    pose[:3, :3] = cv2.Rodrigues(np.array([0.0, yaw, 0.0]))[0] @ pose[:3, :3]
    pose[2, 3] = 0.6
    return CheckedExpression(code, pose, 0)


def yaw_of(motion: np.ndarray) -> float:
    return float(np.arctan2(motion[0, 2], motion[2, 2]))


def test_head_motion_relative_absolute_and_none(avatar: DrivenAvatar) -> None:
    relative = DrivingSettings("relative")
    first = avatar.face(checked(0.1), relative, 0.0)
    np.testing.assert_allclose(first.motion, np.eye(4), atol=1e-6)
    assert yaw_of(avatar.face(checked(0.2), relative, 1.0).motion) == pytest.approx(0.1, abs=0.02)
    assert yaw_of(avatar.face(checked(0.2), DrivingSettings("absolute"), 1.0).motion) == (
        pytest.approx(0.2, abs=1e-6)
    )
    still = avatar.face(checked(0.2), DrivingSettings("none"), 1.0)
    np.testing.assert_array_equal(still.motion, np.eye(4))


def test_limits_hold_the_head(avatar: DrivenAvatar) -> None:
    limited = DrivingSettings("absolute", limits=HeadLimits(yaw_deg=3.0))
    motion = avatar.face(checked(0.5), limited, 0.0).motion
    assert np.degrees(yaw_of(motion)) == pytest.approx(3.0)


def test_a_motion_of_joints_is_taken_as_it_is(avatar: DrivenAvatar) -> None:
    motion = turn_on_neck(0.3, 0.0, 0.0)
    expression = CheckedExpression(np.zeros(52, np.float32), None, 0, motion)
    np.testing.assert_array_equal(avatar.face(expression, DrivingSettings(), 0.0).motion, motion)


def test_an_expression_is_added_to_the_rest(avatar: DrivenAvatar) -> None:
    change = np.zeros(52, np.float32)
    assert avatar.express(change) is avatar.rest
    change[ARKIT_INDEX["jawOpen"]] = 0.5
    code = avatar.express(change).code
    assert code[ARKIT_INDEX["jawOpen"]] == pytest.approx(0.5, abs=0.02)


def test_closed_eyes_stay_near_what_training_saw(avatar: DrivenAvatar) -> None:
    assert (avatar.shut > 0.8).all()  # the tiny avatar's largest coefficients are 0.8
    assert (avatar.shut <= 0.8 + 0.15 + 1e-6).all()


def test_orbit_turns_the_picture_and_back(avatar: DrivenAvatar) -> None:
    front = avatar.picture(avatar.rest, View()).astype(int)
    np.testing.assert_array_equal(front, avatar.animator.render(avatar.rest.code))
    right = avatar.picture(avatar.rest, View(orbit_yaw_deg=30.0)).astype(int)
    assert np.abs(right - front).mean() > 1
    # The torso goes with the head.
    record, turn = avatar.animator.record, np.eye(4)
    turn[:3, :3] = cv2.Rodrigues(np.array([0.0, np.radians(30.0), 0.0]))[0]
    centre = record.neutral_head_pose[:3, 3]
    turn[:3, 3] = centre - turn[:3, :3] @ centre
    poses = turn @ record.neutral_head_pose, turn @ record.neutral_torso_pose
    assert np.abs(right - avatar.animator.render(avatar.rest.code, *poses)).max() <= 1
    whole = avatar.picture(avatar.rest, View(orbit_yaw_deg=360.0)).astype(int)
    assert np.abs(whole - front).max() <= 2
    above = avatar.picture(avatar.rest, View(orbit_pitch_deg=30.0)).astype(int)
    assert np.abs(above - front).mean() > 1
    assert np.abs(above - right).mean() > 1


def test_alpha_before_the_background_is_the_picture(avatar: DrivenAvatar) -> None:
    opaque = avatar.picture(avatar.rest, View()).astype(int)
    rgba = avatar.picture(avatar.rest, View(alpha=True))
    assert rgba.shape == (SIZE, SIZE, 4)
    assert rgba[0, 0, 3] == 0
    assert rgba[..., 3].max() > 250
    white = compose(rgba, plain((255, 255, 255), SIZE)).astype(int)
    assert np.abs(white - opaque).max() <= 3
    # A green backdrop shows where the avatar does not cover it, and only there.
    green = compose(rgba, plain((0, 255, 0), SIZE))
    assert (green[0, 0] == (0, 255, 0)).all()


def test_another_avatar_takes_over_what_is_known_of_the_operator(
    avatar: DrivenAvatar, tiny_avatar_path: Path
) -> None:
    settings = DrivingSettings()
    for step in range(200):
        avatar.face(checked(browInnerUp=0.3), settings, step * 0.04)
    index = ARKIT_INDEX["browInnerUp"]
    known = avatar.face(checked(browInnerUp=0.3), settings, 9.0).code[index]
    other = DrivenAvatar(tiny_avatar_path, "cpu", SIZE, (0, 0, 0), NeutralPose(0.0))
    fresh = other.face(checked(browInnerUp=0.3), settings, 9.0).code[index]
    other.take_over(avatar)
    taken = other.face(checked(browInnerUp=0.3), settings, 9.0).code[index]
    assert fresh > known + 0.1
    assert taken == pytest.approx(known, abs=0.01)


def test_the_nodes_are_imported_without_what_takes_long() -> None:
    pytest.importorskip("rclpy", reason="rclpy is not installed: run make setup")
    nodes = [
        "avatar_display",
        "avatar_renderer",
        "avatar_stage",
        "expression_estimator",
        "video_source",
    ]
    program = (
        "import importlib, sys;"
        f"[importlib.import_module('cag_avatar_node.' + name) for name in {nodes}];"
        "import cag_avatar.avatar.regressor_file, cag_avatar.tracking.estimator;"
        "print({'torch', 'scipy', 'mediapipe', 'numba', 'matplotlib'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout == "set()\n", done.stderr
