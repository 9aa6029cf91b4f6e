"""Every way through the lifecycle of the nodes that see the operator."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("rclpy", reason="rclpy is not installed: run make setup")
pytest.importorskip("cag_avatar_msgs.msg", reason="messages not built: make ros2-ws")

from rclpy.lifecycle import TransitionCallbackReturn
from rclpy.parameter import Parameter
from sensor_msgs.msg import Image

from cag_avatar_node.qos import IMAGE_QOS
from cag_avatar_node.video_source import VideoSource

DONE, FAILED = TransitionCallbackReturn.SUCCESS, TransitionCallbackReturn.FAILURE
OUTPUT = {"estimator": "/operator/face/expression", "source": "/camera/image_raw"}


@pytest.fixture(params=["estimator", "source"])
def kind(request: pytest.FixtureRequest) -> str:
    """Which node."""
    return str(request.param)


@pytest.fixture
def node(
    kind: str, world: Any, known_estimator_node: type[Any], numbered_video: Path, tmp_path: Path
) -> Any:
    """The node, unconfigured, with good parameters."""
    if kind == "source":
        return world.add(VideoSource, video=str(numbered_video))
    return world.add(known_estimator_node, calibration_dir=str(tmp_path), operator_name="ann")


def state(node: Any) -> str:
    return str(node._state_machine.current_state[1])


def worker_threads(kind: str) -> int:
    names = [thread.name for thread in threading.enumerate()]
    return sum("estimate" in name if kind == "estimator" else "_guard" in name for name in names)


def test_there_and_back_twice(
    kind: str, node: Any, world: Any, wait_until: Callable[..., None]
) -> None:
    topic = OUTPUT[kind]
    for _ in range(2):
        assert state(node) == "unconfigured"
        assert node.trigger_configure() == DONE
        assert state(node) == "inactive"
        for _ in range(2):
            assert node.count_publishers(topic) == 0
            assert worker_threads(kind) == 0
            assert node.trigger_activate() == DONE
            assert state(node) == "active"
            wait_until(lambda: node.count_publishers(topic) == 1, "the publisher")
            assert node.health().values["state"]
            assert worker_threads(kind) == 1
            assert node.trigger_deactivate() == DONE
            wait_until(lambda: node.count_publishers(topic) == 0, "the publisher's end")
        assert node.trigger_cleanup() == DONE
        assert node.count_subscribers("/camera/image_raw") == 0
        if kind == "estimator":
            assert node.tracker.closed


@pytest.mark.parametrize("before", [[], ["configure"], ["configure", "activate"]])
def test_shutdown_from_any_state_frees_everything(kind: str, node: Any, before: list[str]) -> None:
    for transition in before:
        assert getattr(node, f"trigger_{transition}")() == DONE
    assert node.trigger_shutdown() == DONE
    assert state(node) == "finalized"
    assert worker_threads(kind) == 0
    if kind == "estimator" and before:
        assert node.tracker.closed


def test_a_bad_parameter_fails_and_a_mended_one_is_taken(
    kind: str, node: Any, tmp_path: Path, numbered_video: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    name, bad, good, complaint = {
        "source": ("video", str(tmp_path / "none.mp4"), str(numbered_video), "does not exist"),
        "estimator": ("operator_name", "../ann", "ann", "operator_name '../ann'"),
    }[kind]
    assert node.set_parameters([Parameter(name, value=bad)])[0].successful
    assert node.trigger_configure() == FAILED
    assert state(node) == "unconfigured"
    said = capfd.readouterr().err
    assert complaint in said
    assert "Traceback" not in said
    assert node.set_parameters([Parameter(name, value=good)])[0].successful
    assert node.trigger_configure() == DONE
    refused = node.set_parameters([Parameter(name, value=bad)])[0]
    assert not refused.successful
    assert "clean up the node before changing it" in refused.reason


def test_images_while_inactive_are_not_taken(world: Any, known_estimator_node: type[Any]) -> None:
    node = world.add(known_estimator_node)
    assert node.trigger_configure() == DONE
    publisher = world.node.create_publisher(Image, "/camera/image_raw", IMAGE_QOS)
    time.sleep(0.2)
    assert publisher.get_subscription_count() == 0
