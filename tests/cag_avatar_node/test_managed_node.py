"""The lifecycle as another program sees it: through services, and signals."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("rclpy", reason="rclpy is not installed: run make setup")
pytest.importorskip("cag_avatar_msgs.msg", reason="messages not built: make ros2-ws")

from diagnostic_msgs.msg import DiagnosticArray
from lifecycle_msgs.msg import State, Transition
from lifecycle_msgs.srv import ChangeState, GetState
from rcl_interfaces.srv import SetParameters
from rclpy.parameter import Parameter
from sensor_msgs.msg import Image

from cag_avatar_node.qos import IMAGE_QOS

SPINNING = """
import sys, time
from cag_avatar_node.managed_node import ManagedNode, run_managed_node

class Node(ManagedNode):
    def __init__(self):
        super().__init__("spinning", ())
        self.create_timer(0.01, self.work)

    def work(self):
        print("working", flush=True)
        try:
            for _ in range(50):
                time.sleep(0.01)
        except BaseException as error:
            print("interrupted by", repr(error), flush=True)

sys.exit(run_managed_node(Node))
"""


def test_an_interrupt_does_not_strike_in_the_middle_of_a_callback(
    node_environment: dict[str, str],
) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", SPINNING],
        env=node_environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "working\n"
        process.send_signal(signal.SIGINT)
        said, _ = process.communicate(timeout=20)
        assert process.returncode == 0, said
        assert "interrupted" not in said
        assert "Traceback" not in said
    finally:
        process.kill()
        process.wait(20)


def call(world: Any, wait_until: Callable[..., None], kind: Any, name: str, request: Any) -> Any:
    """Call a service and wait for its answer."""
    client = world.node.create_client(kind, name)
    assert client.wait_for_service(30.0), f"no service {name}"
    future = client.call_async(request)
    wait_until(future.done, name)
    return future.result()


def test_a_lifecycle_manager_can_run_a_node(
    world: Any,
    node_environment: dict[str, str],
    numbered_video: Path,
    wait_until: Callable[..., None],
) -> None:
    images = world.listen(Image, "/camera/image_raw", IMAGE_QOS)
    reports = world.listen(DiagnosticArray, "/diagnostics", 10)
    command = [sys.executable, "-m", "cag_avatar_node.video_source"]
    process = subprocess.Popen(
        [*command, "--ros-args", "-p", "autostart:=false"],
        env=node_environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )

    def change(transition: int) -> bool:
        request = ChangeState.Request(transition=Transition(id=transition))
        service = "/video_source/change_state"
        return bool(call(world, wait_until, ChangeState, service, request).success)

    def state() -> int:
        service = "/video_source/get_state"
        answer = call(world, wait_until, GetState, service, GetState.Request())
        return int(answer.current_state.id)

    try:
        assert state() == State.PRIMARY_STATE_UNCONFIGURED
        assert not change(Transition.TRANSITION_CONFIGURE), "configured without a video"
        assert state() == State.PRIMARY_STATE_UNCONFIGURED
        wait_until(lambda: reports, "diagnostics")
        assert reports[0].status[0].message == "not configured"
        video = Parameter("video", value=str(numbered_video)).to_parameter_msg()
        request = SetParameters.Request(parameters=[video])
        service = "/video_source/set_parameters"
        answer = call(world, wait_until, SetParameters, service, request)
        assert answer.results[0].successful
        assert change(Transition.TRANSITION_CONFIGURE)
        assert state() == State.PRIMARY_STATE_INACTIVE
        assert images == []
        assert change(Transition.TRANSITION_ACTIVATE)
        wait_until(lambda: len(images) > 2, "images")
        process.send_signal(signal.SIGINT)
        said, _ = process.communicate(timeout=20)
        assert process.returncode == 0, said
        assert "Traceback" not in said
        assert "parameters video, camera: set exactly one of them" in said
    finally:
        process.terminate()
        process.wait(20)
