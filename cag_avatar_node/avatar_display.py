"""ROS node: a web page that shows the newest image of the avatar, its rate and latency."""

from __future__ import annotations

import asyncio
import signal
import sys
import threading
import time
from collections.abc import Sequence
from typing import Any

import rclpy
from aiohttp import web
from diagnostic_msgs.msg import DiagnosticStatus
from rclpy.exceptions import InvalidParameterTypeException, InvalidParameterValueException
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.node import Node
from rclpy.qos_overriding_options import QoSOverridingOptions
from rclpy.signals import SignalHandlerOptions
from sensor_msgs.msg import CompressedImage

from cag_avatar_node.display_server import make_application
from cag_avatar_node.frame_board import FrameBoard
from cag_avatar_node.input_watch import InputWatch
from cag_avatar_node.node_health import Health, HealthPublisher
from cag_avatar_node.node_parameters import NodeParameter, declare_parameters
from cag_avatar_node.qos import IMAGE_QOS

__all__ = ["PARAMETERS", "AvatarDisplay", "main"]

COMPRESSED_TOPIC = "avatar/image_raw/compressed"

PARAMETERS: tuple[NodeParameter, ...] = (
    NodeParameter(
        "host", "127.0.0.1", "Address that the page is served on; 0.0.0.0 opens it to the network."
    ),
    NodeParameter("port", 8008, "TCP port of the page; 0: any free one.", 0, 65535),
    NodeParameter("input_timeout", 5.0, "Seconds without an image before a warning.", 0.5, 3600.0),
)


class AvatarDisplay(Node):
    """Hands ``avatar/image_raw/compressed`` to a board that the web server reads."""

    def __init__(self, **options: Any) -> None:
        super().__init__("avatar_display", **options)
        declare_parameters(self, PARAMETERS, None)
        self._board: FrameBoard | None = None
        self._watch: InputWatch | None = None
        self._not_jpeg = 0
        self._health_publisher = HealthPublisher(self, self.health)

    @property
    def address(self) -> tuple[str, int]:
        """Host and port from the parameters."""
        return str(self.get_parameter("host").value), int(self.get_parameter("port").value or 0)

    def show_on(self, board: FrameBoard) -> None:
        """Subscribe, and post every image on ``board``."""
        self._board = board
        timeout = float(self.get_parameter("input_timeout").value or 0.0)
        self._watch = InputWatch(self, COMPRESSED_TOPIC, IMAGE_QOS, timeout)
        self.create_subscription(
            CompressedImage,
            COMPRESSED_TOPIC,
            self._on_image,
            IMAGE_QOS,
            qos_overriding_options=QoSOverridingOptions.with_default_policies(),
        )

    def _on_image(self, message: CompressedImage) -> None:
        assert self._board is not None
        assert self._watch is not None
        self._watch.received()
        data = message.data.tobytes() if hasattr(message.data, "tobytes") else bytes(message.data)
        if not data.startswith(b"\xff\xd8"):
            self._not_jpeg += 1
            if self._not_jpeg == 1:
                self.get_logger().warning(
                    f"CompressedImage.format '{message.format}' is not JPEG: publish JPEG "
                    "(dropped; later ones are only counted, see /diagnostics)"
                )
            return
        stamp = message.header.stamp.sec * 1_000_000_000 + message.header.stamp.nanosec
        latency = (self.get_clock().now().nanoseconds - stamp) * 1e-9
        self._board.post(data, stamp, time.monotonic(), latency)

    def health(self) -> Health:
        """Rate, latency and drops for /diagnostics."""
        health = Health()
        if self._board is not None:
            now = time.monotonic()
            health.values["rate_hz"] = f"{self._board.timing.rate(now):.2f}"
            health.add_timings("latency", self._board.timing, now)
        if self._not_jpeg:
            health.values["dropped_format"] = str(self._not_jpeg)
            health.worsen(DiagnosticStatus.WARN, f"images dropped (format): {self._not_jpeg}")
        silence = self._watch.check() if self._watch is not None else None
        if silence is not None:
            health.worsen(DiagnosticStatus.WARN, silence)
        return health


async def _serve(node: AvatarDisplay) -> int:
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    board = FrameBoard(loop)
    runner = web.AppRunner(make_application(board), access_log=None, shutdown_timeout=1.0)
    await runner.setup()
    host, port = node.address
    try:
        await web.TCPSite(runner, host, port).start()
    except OSError as error:
        node.get_logger().error(
            f"cannot serve on {host} port {port}: {error.strerror}; set the parameter port to a "
            "free one (0: any)"
        )
        await runner.cleanup()
        return 2
    shown_host = f"[{host}]" if ":" in host else host
    node.get_logger().info(f"page on http://{shown_host}:{runner.addresses[0][1]}/")
    node.show_on(board)

    executor = SingleThreadedExecutor()
    executor.add_node(node)

    def spin() -> None:
        try:
            executor.spin()
        except ExternalShutdownException:
            pass
        finally:
            loop.call_soon_threadsafe(stop.set)

    thread = threading.Thread(target=spin, name="ros", daemon=True)
    thread.start()
    try:
        await stop.wait()
    finally:
        executor.shutdown(timeout_sec=2.0)
        await asyncio.to_thread(thread.join, 2.0)
        await runner.cleanup()
    return 0


def main(args: Sequence[str] | None = None) -> int:
    """Run the node; returns the exit code: 2 when a parameter is bad or the port is taken."""
    # SIGINT and SIGTERM end the web server first, which then ends ROS.
    rclpy.init(
        args=None if args is None else list(args), signal_handler_options=SignalHandlerOptions.NO
    )
    try:
        try:
            node = AvatarDisplay()
        except (InvalidParameterTypeException, InvalidParameterValueException) as error:
            print(f"error: {error}", file=sys.stderr)
            return 2
        try:
            return asyncio.run(_serve(node))
        finally:
            node.destroy_node()
    finally:
        rclpy.try_shutdown()


if __name__ == "__main__":
    sys.exit(main())
