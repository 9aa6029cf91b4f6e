"""A bag of expression codes as a video: what the renderer would have shown, picture by picture.

Time is that of the bag, not of this machine, so the same bag gives the same pictures.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cag_avatar.errors import InputError
from cag_avatar.export.video_file import write_mp4
from cag_avatar.rendering.rasterizer import Backend
from cag_avatar_node.backdrop import plain
from cag_avatar_node.bag_files import expression_topic, read_messages
from cag_avatar_node.director import Director, RateConfig
from cag_avatar_node.driven_avatar import DrivenAvatar, DrivingSettings, View
from cag_avatar_node.driving_gate import DrivingGate
from cag_avatar_node.expression_validation import ExpressionError, check_expression, check_stamp
from cag_avatar_node.fault_log import FaultLog
from cag_avatar_node.idle_motion import IdleConfig
from cag_avatar_node.neutral_pose import NeutralPose
from cag_avatar_node.presence import PresenceConfig
from cag_avatar_node.robot_expression import RobotExpression

__all__ = ["BagRenderConfig", "RenderedBag", "render_bag", "rendered_frames"]

_log = logging.getLogger(__name__)

#: A longer pause is a clock that jumped; a picture for each thirtieth of a second would never end.
_LONGEST_PAUSE_S = 3600.0


@dataclass(frozen=True)
class BagRenderConfig:
    """How a bag is rendered; defaults are the renderer node's."""

    size: int = 512
    """Width and height of the pictures, pixels."""
    fps: float = 30.0
    """Pictures a second."""
    background: tuple[int, int, int] = (255, 255, 255)
    """Red, green, blue, 0 to 255."""
    placard: tuple[int, int, int] = (32, 32, 32)
    """Colour of the pictures in which the avatar is hidden."""
    backend: Backend = "auto"
    """Rasteriser."""
    driving: DrivingSettings = field(default_factory=DrivingSettings)
    """How expressions move the avatar."""
    presence: PresenceConfig = field(default_factory=PresenceConfig)
    """What bridges gaps."""
    neutral_s: float = 1.0
    """Seconds, from the first face on, that make the operator's rest pose."""

    def __post_init__(self) -> None:
        if not 1 <= self.fps <= 240:
            raise InputError(f"fps {self.fps} must lie in 1 .. 240")
        if not 64 <= self.size <= 2048:
            raise InputError(f"size {self.size} must lie in 64 .. 2048")


@dataclass(frozen=True)
class RenderedBag:
    """What came of a bag."""

    frames: int
    """Pictures written."""
    messages: int
    """Messages read."""
    dropped: dict[str, int]
    """Messages that could not be used, by the field at fault."""


def render_bag(
    bag: Path, avatar: Path, output: Path, config: BagRenderConfig | None = None, topic: str = ""
) -> RenderedBag:
    """Render the expressions of a bag to an MP4.

    Args:
        bag: folder of the bag.
        avatar: file (*.cag).
        output: the video.
        config: how.
        topic: of the expressions; empty: the only one in the bag.

    Raises:
        MissingDependencyError: rosbags or PyAV is not installed.
        InputError: a bad bag, avatar or setting, or a bag without a message.
    """
    settings = config or BagRenderConfig()
    name = expression_topic(bag, topic)
    shown = DrivenAvatar(
        avatar, settings.backend, settings.size, settings.background,
        NeutralPose(settings.neutral_s),
    )  # fmt: skip
    faults = FaultLog(_log.warning)
    messages = _Counted(read_messages(bag, name))
    frames = write_mp4(output, rendered_frames(messages, shown, settings, faults), settings.fps)
    return RenderedBag(frames, messages.count, faults.counts())


def rendered_frames(
    messages: Iterable[tuple[int, Any]],
    avatar: DrivenAvatar,
    config: BagRenderConfig,
    faults: FaultLog,
) -> Iterator[NDArray[np.uint8]]:
    """Pictures from the first message to the last, RGB uint8 [H, W, 3], at ``fps``.

    Args:
        messages: (time of arrival in ns, FaceExpression), ordered; time that goes back counts as
            standing still.
        avatar: to show.
        config: how.
        faults: counts what could not be used.

    Raises:
        InputError: messages an hour or more apart.
    """
    director = Director(
        avatar, config.presence, IdleConfig(), RateConfig(timer=True, rate_hz=config.fps),
        RobotExpression(), DrivingGate(),
    )  # fmt: skip
    director.head_moves = config.driving.head_motion != "none"
    placard = plain(config.placard, config.size)

    def picture(now: float) -> NDArray[np.uint8]:
        face = director.look(now).face
        return placard if face is None else avatar.picture(face, View())

    first: int | None = None
    now, number = 0.0, 0
    for time_ns, message in messages:
        first = time_ns if first is None else first
        before, now = now, max(now, (time_ns - first) * 1e-9)
        if now - before > _LONGEST_PAUSE_S:
            raise InputError(
                f"bag: its messages pause for {now - before:.0f} s, or its clock was set anew: cut "
                f"it there (at most {_LONGEST_PAUSE_S:.0f} s)"
            )
        while number / config.fps < now:
            yield picture(number / config.fps)
            number += 1
        try:
            check_stamp(message.header.stamp.sec, message.header.stamp.nanosec)
            expression = check_expression(
                message, with_head_pose=config.driving.head_motion != "none"
            )
        except ExpressionError as error:
            faults.add(error.fault, str(error))
            continue
        face = None if expression is None else avatar.face(expression, config.driving, now)
        director.presence.see(face, now)
    if first is not None:
        yield picture(max(now, number / config.fps))


class _Counted:
    """Counts what passes through."""

    def __init__(self, items: Iterable[tuple[int, Any]]) -> None:
        self._items = items
        self.count = 0

    def __iter__(self) -> Iterator[tuple[int, Any]]:
        for item in self._items:
            self.count += 1
            yield item
