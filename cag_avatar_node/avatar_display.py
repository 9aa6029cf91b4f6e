"""ROS node: a web page that shows the avatar full-screen, its state, rate and latency."""

from __future__ import annotations

import socket
import sys
from collections.abc import Sequence
from functools import partial
from typing import Any

from diagnostic_msgs.msg import DiagnosticStatus
from rclpy.qos_overriding_options import QoSOverridingOptions
from rclpy.subscription import Subscription
from sensor_msgs.msg import CompressedImage
from std_msgs.msg import String

from cag_avatar_node.display_access import PageAccess, is_loopback
from cag_avatar_node.display_server import SHAPES, PageSettings, make_application
from cag_avatar_node.display_state import DisplayKind, parse_state
from cag_avatar_node.display_thread import ServerThread
from cag_avatar_node.fault_log import FaultLog
from cag_avatar_node.frame_board import FrameBoard
from cag_avatar_node.input_watch import InputWatch
from cag_avatar_node.managed_node import ManagedNode, run_managed_node
from cag_avatar_node.node_health import Health
from cag_avatar_node.node_parameters import NodeParameter
from cag_avatar_node.qos import IMAGE_QOS, LATCHED_QOS
from cag_avatar_node.shown_picture import PictureError, check_picture

__all__ = ["PARAMETERS", "AvatarDisplay", "main"]

COMPRESSED_TOPIC = "avatar/image_raw/compressed"
STATE_TOPIC = "avatar_renderer/state"

PARAMETERS: tuple[NodeParameter, ...] = (
    NodeParameter(
        "host",
        "127.0.0.1",
        "Address that the page is served on; 0.0.0.0 opens it, with a token, to the network.",
    ),
    NodeParameter("port", 8008, "TCP port of the page; 0: any free one.", 0, 65535),
    NodeParameter(
        "token",
        "",
        "What the page's address must end with, as ?token=...; empty: nothing on a loopback "
        "address, elsewhere one that is made up and logged once.",
    ),
    NodeParameter(
        "shape", "full", "Shape of the display; ?shape= in the address comes first.", choices=SHAPES
    ),
    NodeParameter(
        "overlay",
        False,
        "Draw rate and latency over the picture; ?overlay= in the address comes first.",
        dynamic=True,
    ),
    NodeParameter(
        "stale_s",
        1.0,
        "Seconds without an image after which the page says that there is no connection.",
        0.1,
        60.0,
    ),
    NodeParameter(
        "require_state",
        False,
        "Show nothing unless avatar_renderer/state has been received: for vehicles.",
    ),
    NodeParameter(
        "lazy",
        True,
        "Subscribe to the images only while somebody looks at the page, so that nothing is "
        "rendered for nobody.",
    ),
    NodeParameter("input_timeout", 5.0, "Seconds without an image before a warning.", 0.5, 3600.0),
)


class AvatarDisplay(ManagedNode):
    """``avatar/image_raw/compressed`` and ``avatar_renderer/state`` in, a web page out.

    The page is served from ``configure`` to ``cleanup``; while the node is inactive it says so. The
    callbacks hand image and state to a board that the server's thread reads.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__("avatar_display", PARAMETERS, **options)
        self._server: ServerThread | None = None
        self._board: FrameBoard | None = None
        self._port = 0
        self._images: Subscription[CompressedImage] | None = None
        self._states: Subscription[String] | None = None
        self._watch: InputWatch | None = None
        self._faults = FaultLog(self.get_logger().warning)
        # Called by the server's thread; runs in the executor's.
        self._interest = self.create_guard_condition(self._on_interest)
        self._timer = self.create_timer(1.0, self._on_interest)

    @property
    def port(self) -> int:
        """TCP port of the page; 0 while it is not served."""
        return self._port

    def configure(self) -> None:
        """Serve the page."""
        host, given = str(self.value("host")), str(self.value("token"))
        access = PageAccess.for_host(host, given)
        self._server = ServerThread()
        board = FrameBoard(
            self._server.loop,
            stale_s=self.value("stale_s"),
            require_state=self.value("require_state"),
            on_interest=self._interest.trigger,
        )
        board.set_active(False)
        settings = PageSettings(
            access=access,
            shape=self.value("shape"),
            overlay=partial(self.value, "overlay"),
            clock_ns=lambda: int(self.get_clock().now().nanoseconds),
        )
        self._port = self._server.serve(
            partial(make_application, board, settings), host, self.value("port")
        )
        self._board = board
        self.get_logger().info(f"page on {self._address(host, access, given)}")

    def activate(self) -> None:
        """Subscribe."""
        assert self._board is not None
        self._board.set_active(True)
        self._active = True
        self._follow_interest()

    def deactivate(self) -> None:
        """Unsubscribe; the page says that the display is not active."""
        self._unsubscribe()
        if self._board is not None:
            self._board.set_active(False)
            self._board.tell(None)

    def cleanup(self) -> None:
        """End the page."""
        self._board, self._port = None, 0
        if self._server is not None:
            self._server.stop()
            self._server = None

    def health(self) -> Health:
        """State, rate, latency at the topic and on the glass, viewers and drops."""
        health = Health()
        board = self._board
        if board is not None:
            now, state = board.now(), board.state()
            health.values["state"] = ":".join(filter(None, (state.kind.value, state.reason)))
            health.values["rate_hz"] = f"{board.timing.rate(now):.2f}"
            health.add_timings("latency", board.timing, now)
            health.add_timings("page_latency", board.page_timing, now)
            health.values["viewers"] = str(board.readers)
        for kind, count in self._faults.counts().items():
            health.values[f"dropped_{kind}"] = str(count)
            health.worsen(DiagnosticStatus.WARN, f"messages dropped ({kind}): {count}")
        # A hidden avatar may send no images, and need not.
        hidden = board is not None and board.state().kind is DisplayKind.HIDDEN
        silence = self._watch.check() if self._watch is not None and not hidden else None
        if silence is not None:
            health.worsen(DiagnosticStatus.WARN, silence)
        return health

    def _address(self, host: str, access: PageAccess, given: str) -> str:
        """The page's address for the log; a token of the user's stays out of it."""
        shown = socket.gethostname() if host in ("", "0.0.0.0", "::") else host
        shown = f"[{shown}]" if ":" in shown else shown
        address = f"http://{shown}:{self._port}/"
        if not access.token:
            return address
        if given:
            return f"{address}?token=... (parameter token)"
        seen = "" if is_loopback(host) else " (anybody who has this address can see the avatar)"
        return f"{address}?token={access.token}{seen}"

    # Images, while somebody looks.

    def _on_interest(self) -> None:
        try:
            self._follow_interest()
        except Exception as error:  # ROS may shut down between the question and the subscription
            self.report_exception(error)

    def _follow_interest(self) -> None:
        board = self._board
        if not self._active or board is None:
            return
        wanted = not self.value("lazy") or board.watched()
        if wanted and self._images is None:
            self._states = self.create_subscription(
                String,
                STATE_TOPIC,
                self._on_state,
                LATCHED_QOS,
                qos_overriding_options=QoSOverridingOptions.with_default_policies(),
            )
            self._watch = InputWatch(self, COMPRESSED_TOPIC, IMAGE_QOS, self.value("input_timeout"))
            self._images = self.create_subscription(
                CompressedImage,
                COMPRESSED_TOPIC,
                self._on_image,
                IMAGE_QOS,
                qos_overriding_options=QoSOverridingOptions.with_default_policies(),
            )
        elif not wanted:
            self._unsubscribe()
        # A renderer that is gone says so no more: what it said last is no longer true.
        if self._states is not None and not self.count_publishers(self._states.topic_name):
            board.tell(None)

    def _unsubscribe(self) -> None:
        self._watch = None
        if self._states is not None:
            self.destroy_subscription(self._states)
            self._states = None
        if self._images is not None:
            self.destroy_subscription(self._images)
            self._images = None
            if self._board is not None:
                self._board.forget()

    def _on_image(self, message: CompressedImage) -> None:
        board, watch = self._board, self._watch
        if board is None or watch is None:
            return
        watch.received()
        data = message.data.tobytes() if hasattr(message.data, "tobytes") else bytes(message.data)
        try:
            check_picture(data, message.format)
        except PictureError as error:
            self._faults.add(error.fault, str(error))
            return
        stamp = message.header.stamp.sec * 1_000_000_000 + message.header.stamp.nanosec
        latency = (self.get_clock().now().nanoseconds - stamp) * 1e-9
        board.post(data, stamp, board.now(), latency)

    def _on_state(self, message: String) -> None:
        try:
            state = parse_state(message.data)
        except ValueError as error:
            self._faults.add("state", str(error))
            return
        if self._board is not None:
            self._board.tell(state)


def main(args: Sequence[str] | None = None) -> int:
    """Run the node; returns the exit code: 2 when a parameter is bad or the port is taken."""
    return run_managed_node(AvatarDisplay, args)


if __name__ == "__main__":
    sys.exit(main())
