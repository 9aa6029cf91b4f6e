"""The estimator's images: uncompressed or compressed, whichever somebody publishes."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

from rclpy.clock import Clock, ClockType
from rclpy.node import Node
from rclpy.qos_overriding_options import QoSOverridingOptions
from rclpy.subscription import Subscription
from sensor_msgs.msg import CompressedImage, Image

from cag_avatar_node.demand import OnDemand
from cag_avatar_node.input_watch import InputWatch
from cag_avatar_node.local_images import LocalImage, LocalTopic
from cag_avatar_node.qos import IMAGE_QOS

__all__ = ["COMPRESSED_TOPIC", "RAW_TOPIC", "AnyImage", "ImageInput", "choose_input"]

RAW_TOPIC = "camera/image_raw"
COMPRESSED_TOPIC = "camera/image_raw/compressed"
#: Seconds between looks at who publishes.
_LOOK_INTERVAL = 0.5

AnyImage: TypeAlias = "Image | CompressedImage | LocalImage"


def choose_input(wanted: str, raw_publishers: int, compressed_publishers: int) -> str:
    """``raw`` or ``compressed``: what is wanted; with ``auto`` raw, unless only compressed images
    are published."""
    if wanted != "auto":
        return wanted
    return "compressed" if compressed_publishers and not raw_publishers else "raw"


class ImageInput:
    """One subscription, to the topic that has a publisher, best effort, newest only; none while
    nobody wants anything of the images.

    Args:
        node: the subscribing node.
        wanted: ``raw``, ``compressed``, or ``auto``: looks twice a second who publishes.
        timeout: seconds of silence before :meth:`silence` speaks.
        deliver: called with each message, on the executor's thread.
        demand: whether anybody wants anything.
        local: uncompressed images inside this process; they come first, while they have a source.
    """

    def __init__(
        self,
        node: Node,
        wanted: str,
        timeout: float,
        deliver: Callable[[AnyImage], None],
        demand: Callable[[], bool],
        local: LocalTopic | None = None,
    ) -> None:
        self._node = node
        self._wanted = wanted
        self._timeout = timeout
        self._deliver = deliver
        self._local = local
        #: ``local``, ``raw`` or ``compressed``: what is subscribed to.
        self.current = ""
        self._subscription: Subscription[Image] | Subscription[CompressedImage] | None = None
        self._watch: InputWatch | None = None
        self._demand = OnDemand(node, demand, self._look, self._unsubscribe)
        self._demand.look()
        # Not the node's clock: a simulation that stands still has publishers too.
        self._timer = (
            node.create_timer(
                _LOOK_INTERVAL, self._look, clock=Clock(clock_type=ClockType.STEADY_TIME)
            )
            if wanted == "auto" or local is not None
            else None
        )

    def silence(self) -> str | None:
        """Why no image comes, if none came for long; see InputWatch.check()."""
        return None if self._watch is None else self._watch.check()

    def destroy(self) -> None:
        """End the subscription."""
        if self._timer is not None:
            self._node.destroy_timer(self._timer)
            self._timer = None
        self._demand.destroy()

    def _unsubscribe(self) -> None:
        if self._local is not None:
            self._local.leave(self._on_image)
        if self._subscription is not None:
            self._node.destroy_subscription(self._subscription)
            self._subscription = None
        self._watch = None

    def _look(self) -> None:
        if not self._demand.running:
            return
        raw, compressed = (
            self._node.count_publishers(topic) if self._wanted == "auto" else 0
            for topic in (RAW_TOPIC, COMPRESSED_TOPIC)
        )
        choice = choose_input(self._wanted, raw, compressed)
        if self._local is not None and self._local.has_source and choice == "raw":
            choice = "local"
        if choice == self.current and self._watch is not None:
            return
        if self.current and choice != self.current:
            self._node.get_logger().info(f"images: {choice} from now on")
        self._unsubscribe()
        kind, topic = (
            (CompressedImage, COMPRESSED_TOPIC) if choice == "compressed" else (Image, RAW_TOPIC)
        )
        self.current = choice
        self._watch = InputWatch(self._node, topic, IMAGE_QOS, self._timeout)
        if choice == "local" and self._local is not None:
            self._local.listen(self._on_image)
            return
        self._subscription = self._node.create_subscription(
            kind,
            topic,
            self._on_image,
            IMAGE_QOS,
            qos_overriding_options=QoSOverridingOptions.with_default_policies(),
        )

    def _on_image(self, image: AnyImage) -> None:
        if self._watch is not None:
            self._watch.received()
        self._deliver(image)
