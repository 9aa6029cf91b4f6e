"""The live path: a camera or a video file drives an avatar, shown on a web page.

ros2 launch cag_avatar cag_avatar.launch.py avatar:=me.cag video:=drive.mp4
"""

from __future__ import annotations

from launch.actions import DeclareLaunchArgument, SetEnvironmentVariable
from launch.conditions import IfCondition
from launch.substitutions import LaunchConfiguration, PathJoinSubstitution
from launch_ros.actions import Node
from launch_ros.parameter_descriptions import ParameterValue
from launch_ros.substitutions import FindPackageShare

from cag_avatar_node.transport import image_transport_environment
from launch import LaunchDescription


def generate_launch_description() -> LaunchDescription:
    """Arguments and nodes. The nodes configure and activate themselves (parameter autostart)."""
    arguments = [
        DeclareLaunchArgument("avatar", description="Path of the avatar file (*.cag)."),
        DeclareLaunchArgument(
            "video",
            default_value="",
            description="Path of the video file that drives the avatar; this or camera.",
        ),
        DeclareLaunchArgument(
            "camera",
            default_value="",
            description="Index (0) or path (/dev/video0) of the camera that drives the avatar.",
        ),
        DeclareLaunchArgument(
            "size", default_value="512", description="Width and height of the images, pixels."
        ),
        DeclareLaunchArgument(
            "backend",
            default_value="auto",
            choices=["auto", "cpu", "cuda", "torch"],
            description="Rasteriser; auto: the fastest that this machine has.",
        ),
        DeclareLaunchArgument("port", default_value="8008", description="TCP port of the page."),
        DeclareLaunchArgument(
            "start_source",
            default_value="true",
            choices=["true", "false"],
            description="Start video_source; false: something else publishes camera/image_raw.",
        ),
        DeclareLaunchArgument(
            "start_display",
            default_value="true",
            choices=["true", "false"],
            description="Start the web page.",
        ),
        DeclareLaunchArgument(
            "namespace", default_value="", description="Namespace of the nodes and topics."
        ),
        DeclareLaunchArgument(
            "params_file",
            default_value=PathJoinSubstitution(
                [FindPackageShare("cag_avatar"), "config", "default.yaml"]
            ),
            description="Parameters of the nodes; the arguments above come first.",
        ),
    ]

    def text(name: str) -> ParameterValue:
        return ParameterValue(LaunchConfiguration(name), value_type=str)

    def number(name: str) -> ParameterValue:
        return ParameterValue(LaunchConfiguration(name), value_type=int)

    def node(executable: str, parameters: dict[str, ParameterValue], **options: object) -> Node:
        return Node(
            package="cag_avatar",
            executable=executable,
            name=executable,
            namespace=LaunchConfiguration("namespace"),
            parameters=[LaunchConfiguration("params_file"), parameters],
            output="screen",
            **options,
        )

    return LaunchDescription(
        [
            *arguments,
            *(
                SetEnvironmentVariable(name, value)
                for name, value in image_transport_environment().items()
            ),
            node(
                "avatar_renderer",
                {"avatar": text("avatar"), "backend": text("backend"), "size": number("size")},
            ),
            node("expression_estimator", {"avatar": text("avatar")}),
            node(
                "avatar_display",
                {"port": number("port")},
                condition=IfCondition(LaunchConfiguration("start_display")),
            ),
            node(
                "video_source",
                {"video": text("video"), "camera": text("camera")},
                condition=IfCondition(LaunchConfiguration("start_source")),
            ),
        ]
    )
