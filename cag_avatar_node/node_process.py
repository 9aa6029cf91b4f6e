"""Nodes as processes of their own on this machine: started, watched, ended.

Importing this module needs no ROS.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from types import FrameType
from typing import TypeAlias

from cag_avatar.errors import InputError
from cag_avatar_node.transport import image_transport_environment

__all__ = [
    "NodeDiedError",
    "NodeProcess",
    "Parameters",
    "one_host_environment",
    "sigterm_as_interrupt",
    "stop_all",
]

logger = logging.getLogger(__name__)

#: Lines of each node's output that are kept for error messages.
KEPT_LINES = 30
#: Seconds between SIGINT, SIGTERM and SIGKILL for nodes that do not end.
PATIENCE = 5.0

#: Of a node, by name.
Parameters: TypeAlias = dict[str, str | int | float | bool]


class NodeDiedError(RuntimeError):
    """A node ended although nobody asked it to; the message holds its last lines."""


class NodeProcess:
    """A node, or the composition of several, in a process group of its own; its output is
    collected.

    Args:
        name: module in this package.
        parameters: by name, or by "node:name" for a composition.
        env: environment.
        arguments: of the program, before those of ROS.
    """

    def __init__(
        self, name: str, parameters: Parameters, env: dict[str, str], arguments: Sequence[str] = ()
    ) -> None:
        self.name = name
        command = [sys.executable, "-m", f"cag_avatar_node.{name}", *arguments, "--ros-args"]
        for key, value in parameters.items():
            command += ["-p", f"{key}:={_yaml_scalar(value)}"]
        self.process = subprocess.Popen(
            command,
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            start_new_session=True,
        )
        self.lines: deque[str] = deque(maxlen=KEPT_LINES)
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.append(line.rstrip())
            logger.debug("%s: %s", self.name, line.rstrip())

    def check(self) -> None:
        """Raise if the process has ended: InputError for bad input, else NodeDiedError."""
        code = self.process.poll()
        if code is None:
            return
        self._reader.join(1.0)
        if code == 2:
            errors = [line for line in self.lines if "error" in line.lower()]
            if errors:
                who, what = _said(errors[-1])
                raise InputError(f"{who or self.name}: {what}")
        tail = "\n".join(f"  {line}" for line in self.lines)
        how = f"signal {-code}" if code < 0 else f"exit code {code}"
        raise NodeDiedError(f"node {self.name} ended with {how}; its last lines:\n{tail}")

    def send(self, number: signal.Signals) -> None:
        """Signal the whole process group."""
        if self.process.poll() is None:
            with suppress(ProcessLookupError):
                os.killpg(self.process.pid, number)


def one_host_environment(domain_id: int | None = None) -> dict[str, str]:
    """Environment of nodes that talk to each other on this machine alone.

    Args:
        domain_id: ROS_DOMAIN_ID; None: the environment's.
    """
    env = {**os.environ, **image_transport_environment(one_host=True), "PYTHONUNBUFFERED": "1"}
    # Camera images stay on this machine.
    env["ROS_AUTOMATIC_DISCOVERY_RANGE"] = "LOCALHOST"
    if domain_id is not None:
        env["ROS_DOMAIN_ID"] = str(domain_id)
    return env


def _yaml_scalar(value: str | int | float | bool) -> str:
    """A parameter value for the command line; JSON is YAML, and keeps "0" a string."""
    return json.dumps(value)


def _said(line: str) -> tuple[str, str]:
    """``[ERROR] [stamp] [node]: text`` -> (node, text); no node where the line is not a log's."""
    if line.startswith("[") and "]: " in line:
        prefix, text = line.split("]: ", 1)
        return prefix.rpartition("[")[2], text
    return "", line.removeprefix("error: ")


def stop_all(nodes: Sequence[NodeProcess]) -> None:
    """End every node: SIGINT, then SIGTERM, then SIGKILL."""
    try:
        for number in (signal.SIGINT, signal.SIGTERM):
            for node in nodes:
                node.send(number)
            deadline = time.monotonic() + PATIENCE
            while time.monotonic() < deadline:
                if all(node.process.poll() is not None for node in nodes):
                    return
                time.sleep(0.05)
            names = [node.name for node in nodes if node.process.poll() is None]
            logger.warning("still running %g s after %s: %s", PATIENCE, number.name, names)
    finally:
        for node in nodes:
            node.send(signal.SIGKILL)
            node.process.wait()


@contextmanager
def sigterm_as_interrupt() -> Iterator[None]:
    """Let SIGTERM end the run as Ctrl-C does, so that the nodes are ended too."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    previous = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)
