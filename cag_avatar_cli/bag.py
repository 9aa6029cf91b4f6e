"""``cag-avatar bag record`` and ``cag-avatar bag render``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

import tyro

from cag_avatar_cli.options import Backend, OutputPath, PathArgument

__all__ = ["command"]


@dataclass(frozen=True)
class Record:
    """Record expression codes and camera_info from live topics (needs ROS)."""

    output: PathArgument
    """Folder of the new bag."""
    expression_topic: str = "operator/face/expression"
    """Of type cag_avatar_msgs/FaceExpression."""
    camera_info_topic: str = "avatar/camera_info"
    """Of type sensor_msgs/CameraInfo; empty: none."""
    storage: Literal["mcap", "sqlite3"] = "mcap"
    """File format."""
    seconds: float | None = None
    """Stop after so long; by default at Ctrl-C."""

    def run(self) -> None:
        """Record; prints the counts."""
        from cag_avatar_node.bag_recorder import RecordConfig, record_bag

        counts = record_bag(
            RecordConfig(
                self.output, self.expression_topic, self.camera_info_topic, self.storage,
                self.seconds,
            )
        )  # fmt: skip
        said = ", ".join(f"{count} on {topic}" for topic, count in counts.items())
        print(f"bag: {self.output} ({said})")


@dataclass(frozen=True)
class Render:
    """Render a bag of expression codes to an MP4; the same bag gives the same file (no ROS)."""

    bag: PathArgument
    """Folder of the bag."""
    avatar: PathArgument
    """*.cag file."""
    output: OutputPath
    """MP4 to write."""
    topic: str = ""
    """Of the expressions; by default the only one in the bag."""
    size: int = 512
    """Width and height of the pictures."""
    fps: float = 30.0
    """Pictures a second."""
    background: tuple[int, int, int] = (255, 255, 255)
    """Red, green, blue."""
    expression: Literal["relative", "absolute"] = "relative"
    """Relative to the operator's face at rest, or codes as they are."""
    head_motion: Literal["relative", "absolute", "none"] = "relative"
    """How the head follows the operator's."""
    gaze: Literal["follow", "none"] = "follow"
    """Follow the operator's, or none."""
    backend: Backend = "auto"
    """Rasteriser."""

    def run(self) -> None:
        """Render; prints the counts."""
        from cag_avatar_node.backdrop import check_color
        from cag_avatar_node.bag_rendering import BagRenderConfig, render_bag
        from cag_avatar_node.driven_avatar import DrivingSettings

        config = BagRenderConfig(
            size=self.size,
            fps=self.fps,
            background=check_color(self.background, "background"),
            backend=self.backend,
            driving=DrivingSettings(self.head_motion, self.expression, self.gaze),
        )
        result = render_bag(self.bag, self.avatar, self.output, config, self.topic)
        dropped = sum(result.dropped.values())
        print(
            f"video: {self.output} ({result.frames} frames from {result.messages} messages, "
            f"{dropped} dropped)"
        )


def command(
    action: Annotated[
        Annotated[Record, tyro.conf.subcommand("record")]
        | Annotated[Render, tyro.conf.subcommand("render")],
        tyro.conf.arg(name=""),
    ],
) -> None:
    """Record expression codes to a rosbag2 bag, or render a bag of them to a video."""
    action.run()
