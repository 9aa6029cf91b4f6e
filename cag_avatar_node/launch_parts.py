"""What the launch files are made of. Importing this module needs no ``launch``; using it does."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from cag_avatar_node.transport import image_transport_environment

__all__ = [
    "ARGUMENTS",
    "LaunchArgument",
    "camera_nodes",
    "declare",
    "flag",
    "node",
    "number",
    "text",
    "transport",
    "when",
]

CAMERA_TOPIC = "camera/image_raw"


@dataclass(frozen=True)
class LaunchArgument:
    """One launch argument."""

    description: str
    """One sentence."""
    default: str | None = None
    """Default value; None: it must be given."""
    choices: tuple[str, ...] = ()
    """The only values allowed; empty: any."""


_BOOL = ("true", "false")

#: Every argument that a launch file may declare; a file may change the default.
ARGUMENTS: dict[str, LaunchArgument] = {
    "avatar": LaunchArgument("Path of the avatar file (*.cag)."),
    "video": LaunchArgument(
        "Path of the video file that drives the avatar; this or camera.", default=""
    ),
    "camera": LaunchArgument(
        "Index (0) or path (/dev/video0) of the camera that drives the avatar.", default=""
    ),
    "camera_driver": LaunchArgument(
        "What reads the camera: video_source of this package, a driver that is installed "
        "beside it, or nothing (somebody else publishes image_topic).",
        default="video_source",
        choices=("video_source", "usb_cam", "v4l2_camera", "none"),
    ),
    "image_topic": LaunchArgument("Topic of the camera's images.", default=CAMERA_TOPIC),
    "size": LaunchArgument("Width and height of the avatar's images, pixels.", default="512"),
    "backend": LaunchArgument(
        "Rasteriser; auto: the fastest that this machine has.",
        default="auto",
        choices=("auto", "cpu", "cuda", "torch"),
    ),
    "host": LaunchArgument(
        "Address of the page; other machines reach it on 0.0.0.0, with the token.",
        default="127.0.0.1",
    ),
    "port": LaunchArgument("TCP port of the page.", default="8008"),
    "token": LaunchArgument(
        "Token of the page; empty: none on 127.0.0.1, elsewhere one that the log shows.", default=""
    ),
    "shape": LaunchArgument("Shape of the display.", default="full", choices=("full", "round")),
    "start_source": LaunchArgument(
        "Start video_source; false: something else publishes camera/image_raw.",
        default="true",
        choices=_BOOL,
    ),
    "start_display": LaunchArgument("Start the web page.", default="true", choices=_BOOL),
    "driving_policy": LaunchArgument(
        "The avatar unless the vehicle is parked or the display is a passenger's.",
        default="hide",
        choices=("hide", "freeze", "ignore"),
    ),
    "namespace": LaunchArgument("Namespace of the nodes and topics.", default=""),
    "autostart": LaunchArgument(
        "Nodes configure and activate themselves; false: a lifecycle manager does.",
        default="true",
        choices=_BOOL,
    ),
    "respawn": LaunchArgument(
        "Start a node again, after a second, when it has died.", default="false", choices=_BOOL
    ),
    "use_sim_time": LaunchArgument(
        "Take the time from /clock, for bags and simulators.", default="false", choices=_BOOL
    ),
    "params_file": LaunchArgument("Parameters of the nodes; the arguments above come first."),
}


def declare(*names: str, **defaults: str) -> list[Any]:
    """Declarations of arguments by name, followed by those that every launch file has.

    Args:
        names: keys of ARGUMENTS.
        defaults: defaults other than those in ARGUMENTS; ``params_file`` is the name of a file of
            the package's config folder.
    """
    from launch.actions import DeclareLaunchArgument
    from launch.substitutions import PathJoinSubstitution
    from launch_ros.substitutions import FindPackageShare

    everywhere = ("namespace", "autostart", "respawn", "use_sim_time", "params_file")
    declared = []
    for name in (*names, *everywhere):
        argument = ARGUMENTS[name]
        options: dict[str, Any] = {}
        default: Any = defaults.get(name, argument.default)
        if name == "params_file":
            default = PathJoinSubstitution([FindPackageShare("cag_avatar"), "config", default])
        if default is not None:
            options["default_value"] = default
        if argument.choices:
            options["choices"] = list(argument.choices)
        declared.append(DeclareLaunchArgument(name, description=argument.description, **options))
    return declared


def text(name: str) -> Any:
    """An argument as a parameter of type string."""
    return _value(name, str)


def number(name: str) -> Any:
    """An argument as a parameter of type integer."""
    return _value(name, int)


def flag(name: str) -> Any:
    """An argument as a parameter of type bool."""
    return _value(name, bool)


def _value(name: str, kind: type) -> Any:
    from launch.substitutions import LaunchConfiguration
    from launch_ros.parameter_descriptions import ParameterValue

    return ParameterValue(LaunchConfiguration(name), value_type=kind)


def when(name: str, value: str = "true") -> Any:
    """The condition that an argument has a value."""
    from launch.conditions import IfCondition
    from launch.substitutions import EqualsSubstitution, LaunchConfiguration

    return IfCondition(EqualsSubstitution(LaunchConfiguration(name), value))


def transport(one_host: bool = False) -> list[Any]:
    """Environment variables that let whole images pass between processes of one machine.

    Args:
        one_host: whether all nodes are on this machine.
    """
    from launch.actions import SetEnvironmentVariable

    variables = image_transport_environment(one_host)
    return [SetEnvironmentVariable(name, value) for name, value in variables.items()]


def node(executable: str, parameters: dict[str, Any], **options: Any) -> Any:
    """A node of this package under its own name, with the parameter file and these parameters.

    The arguments ``namespace``, ``autostart``, ``respawn``, ``use_sim_time`` and ``params_file``
    apply to it; ``options`` go to ``launch_ros.actions.Node``.
    """
    from launch.substitutions import LaunchConfiguration
    from launch_ros.actions import Node

    common = {"autostart": flag("autostart"), "use_sim_time": flag("use_sim_time")}
    return Node(
        package="cag_avatar",
        executable=executable,
        name=executable,
        namespace=LaunchConfiguration("namespace"),
        parameters=[LaunchConfiguration("params_file"), {**common, **parameters}],
        respawn=LaunchConfiguration("respawn"),
        respawn_delay=1.0,
        output="screen",
        **options,
    )


def camera_nodes() -> list[Any]:
    """What reads the camera, by the arguments ``camera``, ``camera_driver`` and ``image_topic``."""
    from launch.substitutions import LaunchConfiguration
    from launch_ros.actions import Node

    frame_id = "camera_optical_frame"
    device = text("camera")
    drivers: dict[str, tuple[str, dict[str, Any]]] = {
        "usb_cam": ("usb_cam_node_exe", {"video_device": device, "frame_id": frame_id}),
        "v4l2_camera": (
            "v4l2_camera_node",
            {"video_device": device, "camera_frame_id": frame_id, "output_encoding": "rgb8"},
        ),
    }
    topic = LaunchConfiguration("image_topic")
    return [
        node(
            "video_source",
            {"camera": device},
            remappings=[(CAMERA_TOPIC, topic)],
            condition=when("camera_driver", "video_source"),
        ),
        *(
            Node(
                package=package,
                executable=executable,
                name=package,
                namespace=LaunchConfiguration("namespace"),
                parameters=[LaunchConfiguration("params_file"), parameters],
                remappings=[("image_raw", topic), ("camera_info", "camera/camera_info")],
                respawn=LaunchConfiguration("respawn"),
                respawn_delay=1.0,
                output="screen",
                condition=when("camera_driver", package),
            )
            for package, (executable, parameters) in drivers.items()
        ),
    ]
