"""Real nodes on real topics, each test in a ROS domain of its own."""

from __future__ import annotations

import array
import contextlib
import itertools
import os
import random
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from cag_avatar_node.transport import image_transport_environment

# Before rclpy makes its first participant: the settings that the nodes themselves run with.
os.environ.update(image_transport_environment())
os.environ["ROS_AUTOMATIC_DISCOVERY_RANGE"] = "LOCALHOST"

# A random start keeps two test runs on one machine apart; 0 to 101 is the range that is always
# free of the ephemeral ports.
_domains = itertools.cycle(random.Random(os.getpid()).sample(range(1, 102), 101))


class RosWorld:
    """A ROS context in a domain of its own, spun by a thread, with a node for the test's topics."""

    def __init__(self, domain_id: int) -> None:
        import rclpy
        from rclpy.executors import SingleThreadedExecutor

        self.domain_id = domain_id
        self.context = rclpy.Context()
        rclpy.init(args=[], context=self.context, domain_id=domain_id)
        self.executor = SingleThreadedExecutor(context=self.context)
        self.node = rclpy.create_node("test", context=self.context)
        self.executor.add_node(self.node)
        self._nodes: list[Any] = []
        self._thread = threading.Thread(target=self._spin, daemon=True)
        self._thread.start()

    def _spin(self) -> None:
        from rclpy.executors import ExternalShutdownException

        with contextlib.suppress(ExternalShutdownException):
            self.executor.spin()

    def add(self, factory: Callable[..., Any], **parameters: Any) -> Any:
        """Make a node under test with these parameters and spin it."""
        from rclpy.parameter import Parameter

        overrides = [Parameter(name, value=value) for name, value in parameters.items()]
        node = factory(context=self.context, parameter_overrides=overrides)
        self._nodes.append(node)
        self.executor.add_node(node)
        return node

    def start(self, factory: Callable[..., Any], **parameters: Any) -> Any:
        """Make a lifecycle node, configure and activate it, and spin it."""
        from rclpy.lifecycle import TransitionCallbackReturn
        from rclpy.parameter import Parameter

        overrides = [Parameter(name, value=value) for name, value in parameters.items()]
        node = factory(context=self.context, parameter_overrides=overrides)
        self._nodes.append(node)
        assert node.trigger_configure() == TransitionCallbackReturn.SUCCESS
        assert node.trigger_activate() == TransitionCallbackReturn.SUCCESS
        self.executor.add_node(node)
        return node

    def listen(self, message_type: Any, topic: str, qos: Any) -> list[Any]:
        """Subscribe; the list grows with what is received."""
        received: list[Any] = []
        self.node.create_subscription(message_type, topic, received.append, qos)
        return received

    def publisher(self, message_type: Any, topic: str, qos: Any) -> Any:
        """A publisher that has found its subscriber."""
        publisher = self.node.create_publisher(message_type, topic, qos)
        wait_until(lambda: publisher.get_subscription_count() > 0, "a subscriber of " + topic)
        return publisher

    def health(self, received: list[Any], name: str) -> dict[str, str]:
        """Values of the newest diagnostics of a node."""
        for report in reversed(received):
            for status in report.status:
                if status.name == name:
                    return {value.key: value.value for value in status.values}
        return {}

    def close(self) -> None:
        """End everything."""
        for node in self._nodes:
            self.executor.remove_node(node)
            if hasattr(node, "close"):
                node.close()
            node.destroy_node()
        self.executor.shutdown(timeout_sec=5.0)
        # Not after the context: the thread may be about to make a wait set in it.
        self._thread.join(5.0)
        self.node.destroy_node()
        self.context.try_shutdown()


def wait_until(condition: Callable[[], object], what: str, timeout: float = 20.0) -> None:
    """Poll a condition; fail the test, saying what did not happen, after ``timeout`` seconds."""
    deadline = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > deadline:
            pytest.fail(f"waited {timeout:g} s for {what}")
        time.sleep(0.01)


@pytest.fixture
def domain_id() -> int:
    """A ROS domain that no other test uses."""
    return next(_domains)


@pytest.fixture
def world(domain_id: int) -> Iterator[RosWorld]:
    """A ROS context for nodes in this process."""
    pytest.importorskip("rclpy", reason="rclpy is not installed: run make setup")
    pytest.importorskip("cag_avatar_msgs.msg", reason="cag_avatar_msgs is not built: make ros2-ws")
    ros_world = RosWorld(domain_id)
    yield ros_world
    ros_world.close()


@pytest.fixture
def node_environment(domain_id: int) -> dict[str, str]:
    """Environment for a node in a process of its own, in the domain of ``world``."""
    return {**os.environ, "ROS_DOMAIN_ID": str(domain_id), "PYTHONUNBUFFERED": "1"}


def coded_frame(number: int, width: int = 64, height: int = 48) -> NDArray[np.uint8]:
    """A BGR picture from which :func:`frame_number` reads its number after compression."""
    frame = np.full((height, width, 3), 128, np.uint8)
    for bit in range(8):
        value = 255 if number >> bit & 1 else 0
        frame[:, bit * width // 8 : (bit + 1) * width // 8] = value
    frame[: height // 4, :, :] = (255, 0, 0)  # a blue band on top tells BGR from RGB
    return frame


def frame_number(frame: NDArray[np.uint8]) -> int:
    """The number that :func:`coded_frame` wrote."""
    height, width = frame.shape[:2]
    grey = frame[height // 2 :].mean((0, 2))
    return sum(
        (1 << bit) * bool(grey[bit * width // 8 : (bit + 1) * width // 8].mean() > 127)
        for bit in range(8)
    )


@pytest.fixture(name="frame_number")
def frame_number_fixture() -> Callable[[NDArray[np.uint8]], int]:
    """:func:`frame_number`."""
    return frame_number


@pytest.fixture(name="wait_until")
def wait_until_fixture() -> Callable[..., None]:
    """:func:`wait_until`."""
    return wait_until


@pytest.fixture(scope="session")
def face_video_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two seconds of a synthetic face, 256 x 256, 15 frames/s; its truth lies beside it."""
    from cag_avatar_training.synthetic.config import SynthesisConfig
    from cag_avatar_training.synthetic.synthesize import synthesize

    out = tmp_path_factory.mktemp("face") / "face.mp4"
    config = SynthesisConfig(
        out=out, seed=1, seconds=2, fps=15, size=256, supersample=1, texture_size=512, strands=500
    )
    return synthesize(config).video


@pytest.fixture
def numbered_video(tmp_path: Path) -> Path:
    """20 numbered frames of 64 x 48 at 20 frames/s."""
    path = tmp_path / "numbered.mp4"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), 20.0, (64, 48))
    assert writer.isOpened()
    for number in range(20):
        writer.write(coded_frame(number))
    writer.release()
    return path


HEAD_POSE = np.array(
    [[0.8, 0.0, -0.6, 0.05], [0.0, -1.0, 0.0, -0.02], [-0.6, 0.0, -0.8, 0.7], [0, 0, 0, 1.0]]
)


class KnownEstimator:
    """Stands where the face tracker does and finds a known face, so that the wire can be tested."""

    own_person = None

    def __init__(self) -> None:
        from cag_avatar.tracking.estimator import FaceEstimate
        from cag_avatar.tracking.face_landmarker import DetectedFace

        landmarks = np.random.default_rng(0).uniform(20, 100, (478, 3)).astype(np.float32)
        self.seen: list[tuple[NDArray[np.uint8], int]] = []
        self.restarts = 0
        self.closed = False
        self.found = FaceEstimate(
            code=np.linspace(0, 1, 52).astype(np.float32),
            head_pose=HEAD_POSE,
            confidence=0.75,
            is_valid=True,
            eyes_valid=True,
            face=DetectedFace(landmarks, np.zeros(52, np.float32)),
        )

    def estimate(self, image: NDArray[np.uint8], timestamp_ns: int) -> Any:
        assert image.dtype == np.uint8
        assert image.ndim == 3
        self.seen = [*self.seen[-9:], (image, timestamp_ns)]
        return self.found

    def restart(self) -> None:
        self.restarts += 1

    def close(self) -> None:
        self.closed = True


@pytest.fixture
def known_estimator_node() -> type[Any]:
    """The estimator's node class with a KnownEstimator as ``tracker``."""
    pytest.importorskip("rclpy", reason="rclpy is not installed: run make setup")
    from cag_avatar_node.expression_estimator import ExpressionEstimatorNode

    class NodeWithKnownEstimator(ExpressionEstimatorNode):
        tracker: KnownEstimator

        def _make_estimator(self, regressor: object) -> Any:
            self.tracker = KnownEstimator()
            return self.tracker

    return NodeWithKnownEstimator


def make_image_message(
    pixels: NDArray[np.uint8], encoding: str = "bgr8", stamp_ns: int | None = None
) -> Any:
    """A sensor_msgs/Image of pixels [H, W, C], stamped now unless told otherwise."""
    from sensor_msgs.msg import Image

    height, width, channels = pixels.shape
    message = Image(height=height, width=width, encoding=encoding, step=width * channels)
    stamp_ns = time.time_ns() if stamp_ns is None else stamp_ns
    message.header.stamp.sec, message.header.stamp.nanosec = divmod(stamp_ns, 10**9)
    message.header.frame_id = "some_camera"
    message.data = array.array("B", pixels.tobytes())
    return message


@pytest.fixture(name="make_image")
def make_image_fixture() -> Callable[..., Any]:
    """:func:`make_image_message`."""
    return make_image_message


@pytest.fixture
def dummy(tmp_path: Path) -> Path:
    """A file that exists."""
    path = tmp_path / "dummy"
    path.write_bytes(b"nothing")
    return path
