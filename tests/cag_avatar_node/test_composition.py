"""Several nodes in one process; test_live runs the whole of it."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest

pytest.importorskip("rclpy", reason="rclpy is not installed: run make setup")
pytest.importorskip("cag_avatar_msgs.msg", reason="messages not built: make ros2-ws")

from cag_avatar_node import composition

FAILING = """
import sys
from cag_avatar_node.managed_node import ManagedNode, run_managed_nodes

class Node(ManagedNode):
    def __init__(self, name):
        super().__init__(name, ())
        self.timer = self.create_timer(0.2, self.work)

    def deactivate(self):
        print(self.get_name(), "ended", flush=True)

    def work(self):
        print(self.get_name(), "works", flush=True)
        self.timer.cancel()
        if self.get_name() == "second":
            raise ValueError("no more")

sys.exit(run_managed_nodes([lambda: Node("first"), lambda: Node("second")]))
"""


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "composition: name nodes: video_source, expression_estimator"),
        (["avatar"], "composition: 'avatar' is no node; choose from video_source"),
        (["video_source", "video_source"], "'video_source' stands twice"),
    ],
)
def test_bad_names_are_told(
    words: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert composition.main(words) == 2
    assert said in capsys.readouterr().err


def test_the_failure_of_one_ends_all(node_environment: dict[str, str]) -> None:
    done = subprocess.run(
        [sys.executable, "-c", FAILING], env=node_environment, capture_output=True, text=True,
        timeout=60,
    )  # fmt: skip
    assert done.returncode == 1
    assert "ValueError: no more" in done.stderr
    assert done.stdout.splitlines()[-2:] == ["second ended", "first ended"]


def test_an_interrupt_ends_all_of_them(node_environment: dict[str, str]) -> None:
    program = FAILING.replace('raise ValueError("no more")', "pass")
    process = subprocess.Popen(
        [sys.executable, "-c", program], env=node_environment, stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    try:
        assert process.stdout is not None
        working = {process.stdout.readline() for _ in range(2)}
        assert working == {"first works\n", "second works\n"}
        process.send_signal(signal.SIGINT)
        said, _ = process.communicate(timeout=20)
        assert process.returncode == 0, said
        assert said.splitlines() == ["second ended", "first ended"]
    finally:
        process.kill()
        process.wait(20)
