"""The renderer's thread: takes expressions in, draws the avatar, publishes."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from builtin_interfaces.msg import Time as TimeMessage
from numpy.typing import NDArray
from rclpy.node import Node

from cag_avatar_node.avatar_outputs import AvatarOutputs
from cag_avatar_node.avatar_shelf import AvatarShelf
from cag_avatar_node.backdrop import compose
from cag_avatar_node.director import Director
from cag_avatar_node.driven_avatar import DrivenAvatar, DrivingSettings, View
from cag_avatar_node.driving_gate import DRIVING_STATES
from cag_avatar_node.expression_validation import ExpressionError
from cag_avatar_node.fault_log import FaultLog
from cag_avatar_node.presence import PresenceState, Shown
from cag_avatar_node.renderer_inputs import Arrival, check_arrival, check_robot_expression
from cag_avatar_node.timing import TimingWindow

__all__ = ["AvatarStage", "Pictures"]

STAGES = ("receive", "wait", "prepare", "render", "publish", "latency")


@dataclass(frozen=True)
class Pictures:
    """What is shown besides the avatar."""

    placard: NDArray[np.uint8]
    """Instead of it while it is hidden: uint8 [H, W, 3] RGB, or [H, W, 4] RGBA."""
    backdrop: NDArray[np.uint8] | None = None
    """Behind it, uint8 [H, W, 3] RGB; None: the avatar's own background."""


class AvatarStage:
    """Everything that happens in the renderer's thread, from one configure to the next cleanup.

    :meth:`handle` and :meth:`tick` are that thread's; :meth:`tell` may be called from any.

    Args:
        node: for its clock and log.
        shelf: of avatars.
        avatar: that it shows now.
        director: of that avatar.
        pictures: besides the avatar.
        faults: counts bad messages.
    """

    def __init__(
        self,
        node: Node,
        shelf: AvatarShelf[DrivenAvatar],
        avatar: DrivenAvatar,
        director: Director,
        pictures: Pictures,
        faults: FaultLog,
    ) -> None:
        self._node = node
        self._shelf = shelf
        self._avatar = avatar
        self._director = director
        self._pictures = pictures
        self._faults = faults
        self._left: deque[Callable[[], None]] = deque()
        self._newest_stamp: TimeMessage | None = None
        self._drawn_stamp: TimeMessage | None = None
        #: Set by the node before the thread starts, replaced as a whole when parameters change.
        self.settings = DrivingSettings()
        self.view = View()
        self.jpeg_quality = 90
        self.outputs: AvatarOutputs | None = None
        self.timings = {name: TimingWindow() for name in STAGES}
        self.clamped = 0
        self.state = ""

    # Any thread.

    def tell(self, action: Callable[[Director, Any], None]) -> Callable[[Any], None]:
        """A callback that leaves its action to this stage's thread."""
        return lambda value: self._left.append(lambda: action(self._director, value))

    def recenter(self) -> None:
        """Find the operator's rest pose and face anew."""
        self._left.append(lambda: self._avatar.restart_operator())

    def driving_state(self, now: float) -> str | None:
        """What the vehicle does; None where that does not matter."""
        gate = self._director.gate
        return None if gate.policy == "ignore" else gate.state(now)

    def tell_driving(self, director: Director, name: str) -> None:
        """``vehicle/driving_state``."""
        if not director.gate.tell_state(name, time.monotonic()):
            self._faults.add(
                "driving_state",
                f"vehicle/driving_state {name[:40]!r} is unknown and counts as moving: send one of "
                + ", ".join(DRIVING_STATES),
            )

    def tell_robot(self, director: Director, message: Any) -> None:
        """``/robot_face/expression``."""
        try:
            director.express(check_robot_expression(message), time.monotonic())
        except ExpressionError as error:
            self._faults.add(error.fault, str(error))

    # The renderer's thread.

    def handle(self, arrival: Arrival) -> float | None:
        """Take a message of the operator's face; returns when to tick (``time.monotonic``)."""
        now = self._begin()
        try:
            expression = check_arrival(arrival, with_head_pose=self.settings.head_motion != "none")
        except ExpressionError as error:
            self._faults.add(error.fault, str(error))
            return None
        face = None
        if expression is not None:
            self.clamped += expression.clamped
            face = self._avatar.face(expression, self.settings, now)
        self._director.presence.see(face, now)
        stamp = self._newest_stamp = arrival.message.header.stamp
        shown = self._director.look(now)
        if self._director.wanted_by_message(shown):
            stages = {
                "receive": arrival.seconds - _seconds(stamp),
                "wait": now - arrival.monotonic,
                "prepare": time.monotonic() - now,
            }
            self._draw(shown, stamp, stages)
            self._director.drew(shown, now, by_message=True)
        self._tell_state(shown)
        return self._director.due(shown, now)

    def tick(self) -> float:
        """Draw what is due; returns when to tick next (``time.monotonic``)."""
        now = self._begin()
        shown = self._director.look(now)
        assert self.outputs is not None
        if self._director.wanted_by_clock(shown, now, self.outputs.audience):
            self._draw(shown, self._stamp(shown), {})
            self._director.drew(shown, now)
        self._tell_state(shown)
        return self._director.due(shown, now)

    def _begin(self) -> float:
        """Take in what other threads left; returns the time."""
        while self._left:
            self._left.popleft()()
        ready = self._shelf.take_ready()
        if ready is not None and ready is not self._avatar:
            ready.take_over(self._avatar)
            self._avatar = ready
            self._director.set_avatar(ready)
            self._node.get_logger().info(f"showing avatar {ready.name}")
        self._director.head_moves = self.settings.head_motion != "none"
        return time.monotonic()

    def _stamp(self, shown: Shown) -> TimeMessage:
        """Of a picture that no message asked for."""
        live = shown.state not in (PresenceState.IDLE, PresenceState.HIDDEN)
        if live and self._newest_stamp is not None:
            if self._drawn_stamp is not None and self._director.repeats(shown):
                return self._drawn_stamp
            return self._newest_stamp
        return self._node.get_clock().now().to_msg()

    def _draw(self, shown: Shown, stamp: TimeMessage, stages: dict[str, float]) -> None:
        outputs, face = self.outputs, shown.face
        assert outputs is not None
        self._drawn_stamp = stamp
        outputs.publish_camera(self._avatar.animator.camera, stamp)

        def draw() -> NDArray[np.uint8]:
            if face is None:
                return self._pictures.placard
            pixels, backdrop = self._avatar.picture(face, self.view), self._pictures.backdrop
            return pixels if backdrop is None else compose(pixels, backdrop)

        took = outputs.publish_images(draw, stamp, self.jpeg_quality)
        if took is None or face is None:
            return
        stages["render"], stages["publish"] = took
        now = float(self._node.get_clock().now().nanoseconds) * 1e-9
        for name, seconds in stages.items():
            self.timings[name].add(now, seconds)
        stages["total"] = now - _seconds(stamp)
        if "receive" in stages:
            self.timings["latency"].add(now, stages["total"])
        outputs.publish_latency(stages, stamp)

    def _tell_state(self, shown: Shown) -> None:
        assert self.outputs is not None
        self.state = shown.name
        self.outputs.publish_state(shown.name)


def _seconds(stamp: TimeMessage) -> float:
    return float(stamp.sec + stamp.nanosec * 1e-9)
