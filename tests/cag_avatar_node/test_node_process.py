"""Nodes in processes of their own: watched, quoted, ended."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from cag_avatar_node.node_process import (
    NodeDiedError,
    NodeProcess,
    one_host_environment,
    stop_all,
)


def test_a_dead_node_is_named_with_its_last_lines(
    numbered_video: Path, node_environment: dict[str, str], wait_until: Callable[..., None]
) -> None:
    pytest.importorskip("rclpy", reason="rclpy is not installed: run make setup")
    node = NodeProcess(
        "video_source",
        {"video": str(numbered_video), "loop": False, "wait_for_subscriber": False},
        node_environment,
    )
    try:
        wait_until(lambda: any("end of" in line for line in node.lines), "the node", timeout=60)
        node.check()
        node.process.kill()
        node.process.wait()
        with pytest.raises(NodeDiedError, match=r"(?s)video_source ended with signal 9.*end of"):
            node.check()
    finally:
        stop_all([node])


def test_nodes_that_ignore_signals_are_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cag_avatar_node.node_process.PATIENCE", 0.3)
    node = NodeProcess.__new__(NodeProcess)
    node.name = "stubborn"
    code = (
        "import signal, time; [signal.signal(n, signal.SIG_IGN) for n in (2, 15)]; "
        "print(1, flush=True); time.sleep(60)"
    )
    node.process = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    assert node.process.stdout is not None
    node.process.stdout.readline()
    start = time.monotonic()
    stop_all([node])
    assert node.process.poll() == -9
    assert time.monotonic() - start < 10


def test_nodes_of_one_host_stay_on_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ROS_DOMAIN_ID", "5")
    assert one_host_environment()["ROS_DOMAIN_ID"] == "5"
    environment = one_host_environment(7)
    assert environment["ROS_DOMAIN_ID"] == "7"
    assert environment["ROS_AUTOMATIC_DISCOVERY_RANGE"] == "LOCALHOST"
