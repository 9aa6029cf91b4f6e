"""Run the whole live path on this machine: camera or file, estimator, renderer, page.

Importing this module needs no ROS; the nodes run in processes of their own, or in one.
"""

from __future__ import annotations

import importlib.util
import json
import logging
import math
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any, TypeAlias

from cag_avatar.errors import InputError, MissingDependencyError
from cag_avatar_node.core_share import renderer_environment
from cag_avatar_node.display_access import PageAccess
from cag_avatar_node.transport import image_transport_environment

__all__ = ["LiveConfig", "LiveResult", "NodeDiedError", "run_live"]

logger = logging.getLogger(__name__)

#: Lines of each node's output that are kept for error messages.
KEPT_LINES = 30
#: Seconds from the first picture, a placard, until an operator should be seen.
OPERATOR_PATIENCE = 20.0
#: Seconds between SIGINT, SIGTERM and SIGKILL for nodes that do not end.
PATIENCE = 5.0


#: Of a node, by name.
Parameters: TypeAlias = dict[str, str | int | float | bool]


class NodeDiedError(RuntimeError):
    """A node ended although nobody asked it to; the message holds its last lines."""


@dataclass(frozen=True)
class LiveConfig:
    """What to run."""

    avatar: Path
    """Avatar file (*.cag)."""
    video: Path | None = None
    """Video file that drives the avatar; played in a loop at its own rate. This or ``camera``."""
    camera: str | None = None
    """Camera index ("0") or device path ("/dev/video0") that drives the avatar."""
    size: int = 512
    """Width and height of the avatar's images, pixels."""
    backend: str = "auto"
    """Rasteriser: auto, cpu, cuda or torch."""
    head_motion: str = "relative"
    """How the head follows the operator: relative to rest, absolute, or none."""
    expression: str = "relative"
    """How the face follows: relative to the operator's face at rest, or absolute."""
    gaze: str = "follow"
    """Whether the eyes follow the operator's: follow or none."""
    regressor: str = "auto"
    """Codes by the avatar's own regressor: on (its own person drives), off, or auto."""
    host: str = "127.0.0.1"
    """Address of the page; one other than this machine's own needs the token that is announced."""
    port: int = 8008
    """TCP port of the page; 0: any free one."""
    duration_s: float | None = None
    """Seconds to run after the avatar is shown (or nobody was seen for a while); None: until
    interrupted."""
    frame_path: Path | None = None
    """Where to save the last frame as PNG; None: nowhere."""
    domain_id: int | None = None
    """ROS_DOMAIN_ID of the nodes; None: the environment's."""
    startup_timeout_s: float = 90.0
    """Seconds in which the first frame must arrive."""
    one_process: bool = False
    """All nodes in one process: half of the memory, images go to the estimator without copies; but
    Python's nodes then take turns, and if one fails all end."""

    def __post_init__(self) -> None:
        if (self.video is None) == (self.camera is None):
            raise InputError("live: give exactly one of video and camera")
        if not self.avatar.is_file():
            raise InputError(f"avatar {self.avatar} does not exist: give the path of a *.cag file")
        if self.video is not None and not self.video.is_file():
            raise InputError(f"video {self.video} does not exist: give the path of a video file")
        if self.head_motion not in ("relative", "absolute", "none"):
            raise InputError(
                f"live: head_motion {self.head_motion} must be relative, absolute or none"
            )
        for name, choices in (
            ("expression", ("relative", "absolute")),
            ("gaze", ("follow", "none")),
            ("regressor", ("auto", "on", "off")),
        ):
            if getattr(self, name) not in choices:
                raise InputError(
                    f"live: {name} {getattr(self, name)} must be one of {', '.join(choices)}"
                )
        if self.duration_s is not None and not (
            math.isfinite(self.duration_s) and self.duration_s > 0
        ):
            raise InputError(f"live: duration_s {self.duration_s} must be positive")
        if not 0 <= self.port <= 65535:
            raise InputError(f"live: port {self.port} must be from 0 to 65535")
        if self.domain_id is not None and not 0 <= self.domain_id <= 232:
            raise InputError(f"live: domain_id {self.domain_id} must be from 0 to 232")


@dataclass(frozen=True)
class LiveResult:
    """What came out of a run; rates and latencies are those of its last 10 seconds at most."""

    url: str
    """Address of the page."""
    frames: int
    """Images of the avatar that reached the page."""
    seconds: float
    """Time from the avatar's first picture to the end."""
    live_fps: float
    """Images a second."""
    latency_ms_p50: float | None
    """Camera stamp to arrival at the page, milliseconds, median."""
    latency_ms_p95: float | None
    """The same, 95th percentile."""
    frame_path: Path | None
    """The last frame as PNG, if asked for."""


class _NodeProcess:
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


def run_live(config: LiveConfig, announce: Callable[[str], object] = print) -> LiveResult:
    """Run the four nodes until interrupted or for ``config.duration_s``.

    Args:
        config: what to run.
        announce: called with lines for the user, among them the address of the page.

    Returns:
        Rate and latency at the page, and where the last frame was saved.

    Raises:
        InputError: bad input, in the words of the node that found it, or ROS is not installed.
        NodeDiedError: a node ended, or no frame came in time.
    """
    for module in ("rclpy", "cag_avatar_msgs"):
        if importlib.util.find_spec(module) is None:
            raise MissingDependencyError(module, "the live path", "ros")
    port = config.port or _free_port(config.host)
    shown_host = f"[{config.host}]" if ":" in config.host else config.host
    own_host = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(config.host, shown_host)
    url = f"http://{own_host}:{port}/"
    token = PageAccess.for_host(config.host, "").token
    ask = partial(_get, token=token)

    nodes: list[_NodeProcess] = []
    with _sigterm_as_interrupt():
        try:
            _start(nodes, config, port, token)
            first = _wait_for_first_frame(url, nodes, config.startup_timeout_s, ask)
            announce(f"live on {url}" + (f"?token={token}" if token else ""))
            if not _wait_for_operator(url, nodes, OPERATOR_PATIENCE, ask):
                announce("nobody is seen: the avatar stays hidden until somebody is")
            started = time.monotonic()
            try:
                while config.duration_s is None or time.monotonic() < started + config.duration_s:
                    for node in nodes:
                        node.check()
                    time.sleep(0.1)
            except KeyboardInterrupt:
                if config.duration_s is not None:
                    raise
                announce("stopping")
            status = _get_status(url, ask) or first
            seconds = time.monotonic() - started
            if config.frame_path is not None:
                _save_frame(url, config.frame_path, ask)
        finally:
            _stop_all(nodes)
    return LiveResult(
        url=url,
        frames=int(status["frames"]),
        seconds=seconds,
        live_fps=float(status["fps"]),
        latency_ms_p50=status["latency_ms_p50"],
        latency_ms_p95=status["latency_ms_p95"],
        frame_path=config.frame_path,
    )


def _node_parameters(config: LiveConfig, port: int, token: str) -> list[tuple[str, Parameters]]:
    """Names and parameters of the nodes; those that load longest first."""
    avatar = str(config.avatar.resolve())
    source: Parameters
    if config.video is not None:
        source = {"video": str(config.video.resolve())}
    else:
        source = {"camera": str(config.camera)}
    return [
        (
            "avatar_renderer",
            {
                "avatar": avatar,
                "backend": config.backend,
                "size": config.size,
                "head_motion": config.head_motion,
                "expression": config.expression,
                "gaze": config.gaze,
            },
        ),
        ("expression_estimator", {"avatar": avatar, "regressor": config.regressor}),
        # Not lazy: what comes out at the end is the statistics of the page.
        ("avatar_display", {"host": config.host, "port": port, "token": token, "lazy": False}),
        ("video_source", source),
    ]


def _start(nodes: list[_NodeProcess], config: LiveConfig, port: int, token: str) -> None:
    """Start the processes; those that could be are in ``nodes`` when one cannot."""
    wanted = _node_parameters(config, port, token)
    env = _node_environment(config)
    if config.one_process:
        names = [name for name, _ in wanted]
        every = {f"{node}:{key}": value for node, given in wanted for key, value in given.items()}
        nodes.append(_NodeProcess("composition", every, env, names))
        return
    for name, parameters in wanted:
        own = renderer_environment() if name == "avatar_renderer" else {}
        nodes.append(_NodeProcess(name, parameters, {**env, **own}))


def _node_environment(config: LiveConfig) -> dict[str, str]:
    env = {**os.environ, **image_transport_environment(), "PYTHONUNBUFFERED": "1"}
    # Camera images stay on this machine.
    env["ROS_AUTOMATIC_DISCOVERY_RANGE"] = "LOCALHOST"
    if config.domain_id is not None:
        env["ROS_DOMAIN_ID"] = str(config.domain_id)
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


def _wait_for_first_frame(
    url: str, nodes: Sequence[_NodeProcess], timeout: float, ask: Callable[[str], bytes]
) -> dict[str, Any]:
    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline:
        for node in nodes:
            node.check()
        status = _get_status(url, ask)
        if status is not None and status["frames"]:
            return status
        time.sleep(0.2)
    lines = [f"  {node.name}: {line}" for node in nodes for line in list(node.lines)[-5:]]
    said = "\n".join(lines) or "  (nothing)"
    raise NodeDiedError(f"no image of the avatar within {timeout:g} s; the nodes said:\n{said}")


def _wait_for_operator(
    url: str, nodes: Sequence[_NodeProcess], timeout: float, ask: Callable[[str], bytes]
) -> bool:
    """Wait until the avatar is shown and not its placard; whether it is, after ``timeout`` s."""
    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline:
        for node in nodes:
            node.check()
        status = _get_status(url, ask)
        if status is not None and status["state"] in ("live", "hold", "decay"):
            return True
        time.sleep(0.2)
    return False


def _get(url: str, token: str = "") -> bytes:
    # A proxy from the environment must not stand between two processes of one machine.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    request = urllib.request.Request(url)
    if token:
        request.add_header("Authorization", f"Bearer {token}")
    with opener.open(request, timeout=5.0) as response:
        return bytes(response.read())


def _get_status(url: str, ask: Callable[[str], bytes]) -> dict[str, Any] | None:
    try:
        status: dict[str, Any] = json.loads(ask(url + "status.json"))
    except (urllib.error.URLError, OSError, ValueError):
        return None
    return status


def _save_frame(url: str, path: Path, ask: Callable[[str], bytes]) -> None:
    """Save the newest frame of the page as PNG."""
    import cv2
    import numpy as np

    pixels = cv2.imdecode(np.frombuffer(ask(url + "frame.jpg"), np.uint8), cv2.IMREAD_COLOR)
    if pixels is None:
        raise NodeDiedError("the page's frame is not an image")
    encoded, data = cv2.imencode(".png", pixels)
    if not encoded:
        raise NodeDiedError("OpenCV could not encode the last frame as PNG")
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_bytes(data.tobytes())
    os.replace(temporary, path)


def _free_port(host: str) -> int:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.bind((host, 0))
        return int(probe.getsockname()[1])


def _stop_all(nodes: Sequence[_NodeProcess]) -> None:
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
def _sigterm_as_interrupt() -> Iterator[None]:
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
