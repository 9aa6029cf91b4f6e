"""At the robot's: the renderer, driven by codes from elsewhere, and the page for its face.

ros2 launch cag_avatar robot_launch.py avatar:=me.cag shape:=round
"""

from __future__ import annotations

from cag_avatar_node.launch_parts import declare, node, number, text, transport, when
from launch import LaunchDescription


def generate_launch_description() -> LaunchDescription:
    """Arguments and nodes."""
    return LaunchDescription(
        [
            *declare(
                "avatar",
                "size",
                "backend",
                "host",
                "port",
                "token",
                "shape",
                "start_display",
                respawn="true",
                params_file="robot.yaml",
            ),
            *transport(),
            node(
                "avatar_renderer",
                {"avatar": text("avatar"), "backend": text("backend"), "size": number("size")},
            ),
            node(
                "avatar_display",
                {
                    "host": text("host"),
                    "port": number("port"),
                    "token": text("token"),
                    "shape": text("shape"),
                },
                condition=when("start_display"),
            ),
        ]
    )
