"""All on one machine: a video or a camera drives an avatar, shown on a web page.

ros2 launch cag_avatar demo_launch.py avatar:=me.cag video:=drive.mp4
"""

from __future__ import annotations

from cag_avatar_node.core_share import renderer_environment
from cag_avatar_node.launch_parts import declare, node, number, text, transport, when
from launch import LaunchDescription


def generate_launch_description() -> LaunchDescription:
    """Arguments and nodes."""
    return LaunchDescription(
        [
            *declare(
                "avatar",
                "video",
                "camera",
                "size",
                "backend",
                "port",
                "start_source",
                "start_display",
                params_file="demo.yaml",
            ),
            *transport(one_host=True),
            node(
                "avatar_renderer",
                {"avatar": text("avatar"), "backend": text("backend"), "size": number("size")},
                additional_env=renderer_environment(),
            ),
            node("expression_estimator", {"avatar": text("avatar")}),
            node("avatar_display", {"port": number("port")}, condition=when("start_display")),
            node(
                "video_source",
                {"video": text("video"), "camera": text("camera")},
                condition=when("start_source"),
            ),
        ]
    )
