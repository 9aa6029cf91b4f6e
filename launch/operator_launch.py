"""At the operator's: a camera, and the estimator that makes expression codes of its images.

Images stay on this machine; the codes (operator/face/expression) go to the robot.

ros2 launch cag_avatar operator_launch.py camera:=/dev/video0 camera_driver:=usb_cam
"""

from __future__ import annotations

from launch.substitutions import LaunchConfiguration

from cag_avatar_node.launch_parts import (
    CAMERA_TOPIC,
    camera_nodes,
    declare,
    node,
    text,
    transport,
)
from launch import LaunchDescription


def generate_launch_description() -> LaunchDescription:
    """Arguments and nodes."""
    topic = LaunchConfiguration("image_topic")
    return LaunchDescription(
        [
            *declare(
                "avatar",
                "camera",
                "camera_driver",
                "image_topic",
                avatar="",
                camera="/dev/video0",
                params_file="operator.yaml",
            ),
            *transport(),
            *camera_nodes(),
            node(
                "expression_estimator",
                {"avatar": text("avatar")},
                remappings=[
                    (CAMERA_TOPIC, topic),
                    (f"{CAMERA_TOPIC}/compressed", [topic, "/compressed"]),
                ],
            ),
        ]
    )
