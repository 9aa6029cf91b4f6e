"""The FaceExpression message: its size on the wire and its constants."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest

from cag_avatar.head_models.arkit import ARKIT_NAMES
from cag_avatar_node import expression_validation

pytest.importorskip("rclpy", reason="rclpy is not installed: run make setup")
messages = pytest.importorskip("cag_avatar_msgs.msg", reason="messages not built: make ros2-ws")


def filled(coefficients: int) -> object:
    message = messages.FaceExpression()
    message.header.stamp.sec = 1_700_000_000
    message.header.frame_id = "robot/head/front_camera_color_optical_frame"
    message.face_id = "operator-0123456789abcdef"
    message.layout = messages.FaceExpression.ARKIT_52
    message.coefficients = np.linspace(0, 1, coefficients).astype(np.float32).tolist()
    message.head_position = np.array([0.1, -0.2, 0.6], np.float32)
    message.head_orientation = np.array([0.5, -0.5, 0.5, 0.5], np.float32)
    message.confidence = 0.75
    message.is_valid = True
    message.eyes_valid = True
    message.sequence = 2**32 - 1
    return message


@pytest.mark.parametrize("coefficients", [52, 100])
def test_fits_one_packet_and_survives_it(coefficients: int) -> None:
    from rclpy.serialization import deserialize_message, serialize_message

    message = filled(coefficients)
    data = serialize_message(message)
    assert len(data) < 1200
    assert len(data) < 5 * coefficients + 200
    assert deserialize_message(data, messages.FaceExpression) == message


def test_constants_agree() -> None:
    assert messages.FaceExpression.LAYOUT_UNKNOWN == 0
    assert expression_validation.ARKIT_52 == messages.FaceExpression.ARKIT_52
    assert expression_validation.FLAME_100 == messages.FaceExpression.FLAME_100
    assert len(ARKIT_NAMES) == 52


def test_a_message_that_nobody_filled_in_is_refused() -> None:
    message = messages.FaceExpression(is_valid=True)
    with pytest.raises(expression_validation.ExpressionError, match="layout 0 is unknown"):
        expression_validation.check_expression(message)


def test_imports_without_sourcing_anything() -> None:
    hidden = ("ROS", "_ROS", "AMENT", "COLCON", "CMAKE", "LD_LIBRARY", "PYTHONPATH")
    bare = {name: value for name, value in os.environ.items() if not name.startswith(hidden)}
    code = (
        "from cag_avatar_msgs.msg import FaceExpression as F;"
        "from rclpy.serialization import serialize_message as s; print(len(s(F())))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], env=bare, capture_output=True, text=True, timeout=60
    )
    if "ros_wheels_bootstrapper" not in sys.modules and done.returncode:
        pytest.skip("this ROS is not made of wheels: it has to be sourced")
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 0
