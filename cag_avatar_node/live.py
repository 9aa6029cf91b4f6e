"""Run the whole live path on this machine: camera or file, estimator, renderer, page.

Importing this module needs no ROS; the nodes run in processes of their own, or in one.
"""

from __future__ import annotations

import importlib.util
import math
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cag_avatar.errors import InputError, MissingDependencyError
from cag_avatar_node.core_share import renderer_environment
from cag_avatar_node.display_access import PageAccess
from cag_avatar_node.node_process import (
    NodeDiedError,
    NodeProcess,
    Parameters,
    one_host_environment,
    sigterm_as_interrupt,
    stop_all,
)
from cag_avatar_node.page_client import PageClient

__all__ = ["LiveConfig", "LiveNodes", "LiveResult", "run_live"]

#: Seconds from the first picture, a placard, until an operator should be seen.
OPERATOR_PATIENCE = 20.0


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


class LiveNodes:
    """The processes of a live path and the page they serve.

    Args:
        config: what to run.
        lazy_page: whether the page takes pictures only while somebody looks at it; if not, its
            statistics go on without.

    Raises:
        InputError: ROS or the messages are not installed.
    """

    def __init__(self, config: LiveConfig, lazy_page: bool = False) -> None:
        for module in ("rclpy", "cag_avatar_msgs"):
            if importlib.util.find_spec(module) is None:
                raise MissingDependencyError(module, "the live path", "ros")
        self.config = config
        port = config.port or _free_port(config.host)
        token = PageAccess.for_host(config.host, "").token
        shown_host = f"[{config.host}]" if ":" in config.host else config.host
        own_host = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(config.host, shown_host)
        self.page = PageClient(f"http://{own_host}:{port}/", token)
        self.address = self.page.url + (f"?token={token}" if token else "")
        self._parameters = _node_parameters(config, port, token, lazy_page)
        self._environment = one_host_environment(config.domain_id)
        self.processes: dict[str, NodeProcess] = {}

    @property
    def names(self) -> list[str]:
        """Of the nodes; those that load longest first."""
        return list(self._parameters)

    def start(self) -> None:
        """Start the processes; those that could be are in ``processes`` when one cannot."""
        if not self.config.one_process:
            for name in self.names:
                self.start_node(name)
            return
        every: Parameters = {
            f"{node}:{key}": value
            for node, given in self._parameters.items()
            for key, value in given.items()
        }
        self.processes["composition"] = NodeProcess(
            "composition", every, self._environment, self.names
        )

    def start_node(self, name: str) -> None:
        """Start one node in a process of its own, in place of the one of that name before."""
        own = renderer_environment() if name == "avatar_renderer" else {}
        environment = {**self._environment, **own}
        self.processes[name] = NodeProcess(name, self._parameters[name], environment)

    def check(self) -> None:
        """Raise if a process has ended: InputError for bad input, else NodeDiedError."""
        for node in self.processes.values():
            node.check()

    def wait_for(
        self, reached: Callable[[dict[str, Any]], object], timeout: float
    ) -> dict[str, Any] | None:
        """Wait until the page's status is as wanted; None after ``timeout`` seconds.

        Raises:
            InputError, NodeDiedError: as ``check``.
        """
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            self.check()
            status = self.page.status()
            if status is not None and reached(status):
                return status
            time.sleep(0.05)
        return None

    def wait_for_picture(self) -> dict[str, Any]:
        """Wait until the page has had a picture of the avatar; its status then.

        Raises:
            InputError: bad input, in the words of the node that found it.
            NodeDiedError: a node ended, or no picture came in time.
        """
        timeout = self.config.startup_timeout_s
        status = self.wait_for(lambda status: status["frames"], timeout)
        if status is not None:
            return status
        nodes = self.processes.values()
        lines = [f"  {node.name}: {line}" for node in nodes for line in list(node.lines)[-5:]]
        said = "\n".join(lines) or "  (nothing)"
        raise NodeDiedError(f"no image of the avatar within {timeout:g} s; the nodes said:\n{said}")

    def stop(self) -> None:
        """End every process."""
        stop_all(list(self.processes.values()))


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
    nodes = LiveNodes(config)
    with sigterm_as_interrupt():
        try:
            nodes.start()
            first = nodes.wait_for_picture()
            announce(f"live on {nodes.address}")
            shown = nodes.wait_for(
                lambda status: status["state"] in ("live", "hold", "decay"), OPERATOR_PATIENCE
            )
            if shown is None:
                announce("nobody is seen: the avatar stays hidden until somebody is")
            started = time.monotonic()
            try:
                while config.duration_s is None or time.monotonic() < started + config.duration_s:
                    nodes.check()
                    time.sleep(0.1)
            except KeyboardInterrupt:
                if config.duration_s is not None:
                    raise
                announce("stopping")
            status = nodes.page.status() or first
            seconds = time.monotonic() - started
            if config.frame_path is not None:
                nodes.page.save_frame(config.frame_path)
        finally:
            nodes.stop()
    return LiveResult(
        url=nodes.page.url,
        frames=int(status["frames"]),
        seconds=seconds,
        live_fps=float(status["fps"]),
        latency_ms_p50=status["latency_ms_p50"],
        latency_ms_p95=status["latency_ms_p95"],
        frame_path=config.frame_path,
    )


def _node_parameters(
    config: LiveConfig, port: int, token: str, lazy_page: bool
) -> dict[str, Parameters]:
    """Parameters of the nodes by name; those that load longest first."""
    avatar = str(config.avatar.resolve())
    source: Parameters
    if config.video is not None:
        source = {"video": str(config.video.resolve())}
    else:
        source = {"camera": str(config.camera)}
    return {
        "avatar_renderer": {
            "avatar": avatar,
            "backend": config.backend,
            "size": config.size,
            "head_motion": config.head_motion,
            "expression": config.expression,
            "gaze": config.gaze,
        },
        "expression_estimator": {"avatar": avatar, "regressor": config.regressor},
        "avatar_display": {"host": config.host, "port": port, "token": token, "lazy": lazy_page},
        "video_source": source,
    }


def _free_port(host: str) -> int:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.bind((host, 0))
        return int(probe.getsockname()[1])
