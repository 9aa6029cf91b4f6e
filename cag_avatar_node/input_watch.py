"""Notice that a subscribed topic is silent, and say why it may be."""

from __future__ import annotations

from rclpy.node import Node
from rclpy.qos import QoSProfile

__all__ = ["InputWatch"]


class InputWatch:
    """Watches one subscription.

    Args:
        node: the subscribing node.
        topic: topic as subscribed (before remapping).
        qos: the subscription's QoS.
        timeout: seconds of silence before :meth:`silent` is true.
    """

    def __init__(self, node: Node, topic: str, qos: QoSProfile, timeout: float) -> None:
        self._node = node
        self._topic = node.resolve_topic_name(topic)
        self._qos = qos
        self._timeout = timeout
        self._last = node.get_clock().now()
        self._received = False
        self._warned = False

    def received(self) -> None:
        """Call with every message."""
        self._last = self._node.get_clock().now()
        self._received = True
        self._warned = False

    def silent(self) -> bool:
        """Whether nothing came for ``timeout`` seconds."""
        return (self._node.get_clock().now() - self._last).nanoseconds > self._timeout * 1e9

    def check(self) -> str | None:
        """Warn once a silence; returns the reason while it lasts, else None."""
        if not self.silent():
            return None
        publishers = self._node.get_publishers_info_by_topic(self._topic)
        ours = f"{self._qos.reliability.name.lower()}, depth {self._qos.depth}"
        if not publishers:
            why = "nobody publishes it: check the topic name and ROS_DOMAIN_ID"
        else:
            theirs = ", ".join(
                f"{info.node_name} ({info.qos_profile.reliability.name.lower()})"
                for info in publishers
            )
            why = (
                f"{len(publishers)} publisher(s): {theirs}; check that they publish and that "
                "their QoS offers what is asked for here"
            )
        since = "stopped" if self._received else "has not started"
        message = f"no message on {self._topic} for {self._timeout:g} s ({since}): {why} [{ours}]"
        if not self._warned:
            self._warned = True
            self._node.get_logger().warning(message)
        return message
