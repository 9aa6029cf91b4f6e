"""A node's state on /diagnostics, once a second."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from rclpy.node import Node

from cag_avatar_node.timing import TimingWindow

__all__ = ["Health", "HealthPublisher"]


@dataclass
class Health:
    """What a node reports."""

    level: bytes = DiagnosticStatus.OK
    """DiagnosticStatus.OK, WARN or ERROR."""
    message: str = ""
    """One line."""
    values: dict[str, str] = field(default_factory=dict)
    """Key and value pairs."""

    def worsen(self, level: bytes, message: str) -> None:
        """Raise the level to at least ``level``; the message of the worst level stays."""
        if level > self.level:
            self.level, self.message = level, message

    def add_timings(self, name: str, window: TimingWindow, now: float) -> None:
        """Add the median and the 95th percentile of a stage, in milliseconds."""
        found = window.percentiles(now, 50, 95)
        if found is not None:
            self.values[f"{name}_ms_p50"] = f"{found[0] * 1e3:.1f}"
            self.values[f"{name}_ms_p95"] = f"{found[1] * 1e3:.1f}"


class HealthPublisher:
    """Publishes what ``health`` returns, at 1 Hz of the node's clock; an exception is an ERROR."""

    def __init__(self, node: Node, health: Callable[[], Health]) -> None:
        self._node = node
        self._health = health
        self._publisher = node.create_publisher(DiagnosticArray, "/diagnostics", 10)
        self._timer = node.create_timer(1.0, self._publish)

    def _publish(self) -> None:
        try:
            health = self._health()
        except Exception as error:
            health = Health(DiagnosticStatus.ERROR, repr(error))
        status = DiagnosticStatus(
            name=self._node.get_fully_qualified_name().lstrip("/"),
            level=health.level,
            message=health.message or "running",
            values=[KeyValue(key=key, value=value) for key, value in health.values.items()],
        )
        array = DiagnosticArray(status=[status])
        array.header.stamp = self._node.get_clock().now().to_msg()
        self._publisher.publish(array)
