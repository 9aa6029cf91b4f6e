"""In a vehicle: the renderer and the page for a dashboard strip, hidden while driving.

Nothing is shown before the renderer has told its state. This is not a safety function.

ros2 launch cag_avatar vehicle_launch.py avatar:=me.cag
"""

from __future__ import annotations

from cag_avatar_node.launch_parts import declare, node, number, text, transport
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
                "driving_policy",
                size="720",
                respawn="true",
                params_file="vehicle.yaml",
            ),
            *transport(),
            node(
                "avatar_renderer",
                {
                    "avatar": text("avatar"),
                    "backend": text("backend"),
                    "size": number("size"),
                    "driving_policy": text("driving_policy"),
                },
            ),
            node(
                "avatar_display",
                {"host": text("host"), "port": number("port"), "token": text("token")},
            ),
        ]
    )
