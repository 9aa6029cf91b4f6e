"""Measures the whole live path on this machine: rate, latency, memory, CPU, restarts.

Importing this module needs no ROS and no psutil; the nodes run in processes of their own.
"""

from __future__ import annotations

import math
import signal
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from cag_avatar.errors import InputError, MissingDependencyError
from cag_avatar_node.live import LiveConfig, LiveNodes
from cag_avatar_node.node_process import NodeDiedError, sigterm_as_interrupt

__all__ = ["LiveBenchmarkConfig", "bench_live_path"]

#: Seconds that the page's rate and latency look back, so seconds between two readings.
WINDOW = 10.0
#: Seconds from the first live picture until memory and CPU are read.
SETTLING = 20.0
#: Seconds after a node was killed in which the page must have found its state.
DEAD_FOR = 3.0
#: Seconds between a return and the next kill.
BREATH = 5.0
#: Seconds after which a node that has not come back counts as lost.
GIVE_UP = 30.0
#: Seconds of CPU measured while nobody looks.
IDLE_SPAN = 20.0

#: Told what is being done, and how much of it is done, from 0 to 1.
Progress = Callable[[str, float], object]


@dataclass(frozen=True)
class LiveBenchmarkConfig:
    """What to measure."""

    live: LiveConfig
    """What to run: a video, four processes; its duration and frame path are not used."""
    seconds: float = 60.0
    """Length of the steady run."""
    restarts: int = 1
    """Times that each node is killed and started again."""
    idle: bool = True
    """Whether to measure the CPU that the nodes take when nobody looks."""

    def __post_init__(self) -> None:
        if self.live.video is None:
            raise InputError("live-benchmark: give a video: a camera is not the same twice")
        if self.live.one_process:
            raise InputError("live-benchmark: nodes are killed and watched one by one; they need "
                             "processes of their own")  # fmt: skip
        if not (math.isfinite(self.seconds) and self.seconds >= SETTLING + 2 * WINDOW):
            raise InputError(
                f"live-benchmark: seconds {self.seconds} must be at least {SETTLING + 2 * WINDOW:g}"
            )
        if self.restarts < 0:
            raise InputError(f"live-benchmark: restarts {self.restarts} must not be negative")


def bench_live_path(
    config: LiveBenchmarkConfig, progress: Progress = lambda what, share: None
) -> dict[str, Any]:
    """Run the four nodes and measure them.

    Args:
        config: what to measure.
        progress: told what is being done.

    Returns:
        JSON-able: ``start_s`` (processes' start to the first live picture); ``fps``,
        ``latency_ms_p50``, ``latency_ms_p95`` (medians of the page's figures, camera stamp to
        arrival at the page, read every 10 s) and ``worst`` (the worst of these readings);
        ``memory_mb`` {node: [20 s after the first live picture, at the end]} and ``cpu_percent``
        {node: of one core, between the two}; ``restarts`` [{node, page (what it shows 3 s after
        kill -9; None: it does not answer), others_up, back_s (process start to live, None: not
        within 30 s)}]; ``idle_cpu_percent`` {node: of one core, over 20 s without a viewer}, absent
        if not asked for.

    Raises:
        InputError: bad input, in the words of the node that found it, or a package is missing.
        NodeDiedError: a node ended by itself, or the avatar never came alive.
    """
    try:
        import psutil
    except ImportError:
        raise MissingDependencyError("psutil", "live-benchmark", "node") from None
    with sigterm_as_interrupt():
        nodes = LiveNodes(config.live)
        try:
            figures = _steady(nodes, psutil.Process, config.seconds, progress)
            figures["restarts"] = _restarts(nodes, config.restarts, progress)
        finally:
            nodes.stop()
        if config.idle:
            lazy = LiveNodes(config.live, lazy_page=True)
            try:
                figures["idle_cpu_percent"] = _idle(lazy, psutil.Process, progress)
            finally:
                lazy.stop()
    return figures


def _steady(
    nodes: LiveNodes, look: Callable[[int], Any], seconds: float, progress: Progress
) -> dict[str, Any]:
    started = time.monotonic()
    progress("starting", 0.0)
    nodes.start()
    nodes.wait_for_picture()
    _wait_until_live(nodes)
    start_s = time.monotonic() - started

    begin = time.monotonic()
    readings: list[dict[str, float]] = []
    watched = {name: look(node.process.pid) for name, node in nodes.processes.items()}
    before: dict[str, float] = {}
    memory: dict[str, list[float]] = {name: [] for name in watched}
    since = begin
    while (now := time.monotonic()) < begin + seconds:
        nodes.check()
        if not before and now >= begin + SETTLING:
            since, before = now, _cpu_seconds(watched)
            _note_memory(memory, watched)
        # The first reading looks back on nothing but the live path.
        if now >= begin + WINDOW * (len(readings) + 1):
            status = nodes.page.status()
            if status is None or status["latency_ms_p50"] is None:
                raise NodeDiedError("the page does not tell its rate and latency")
            readings.append(
                {name: float(status[name]) for name in ("fps", "latency_ms_p50", "latency_ms_p95")}
            )
        progress("steady run", (now - begin) / seconds)
        time.sleep(0.1)
    spent = time.monotonic() - since
    after = _cpu_seconds(watched)
    _note_memory(memory, watched)
    columns = {name: [reading[name] for reading in readings] for name in readings[0]}
    return {
        "video": str(nodes.config.video),
        "avatar": str(nodes.config.avatar),
        "size": nodes.config.size,
        "seconds": seconds,
        "start_s": start_s,
        **{name: statistics.median(values) for name, values in columns.items()},
        "worst": {
            name: min(values) if name == "fps" else max(values) for name, values in columns.items()
        },
        "memory_mb": memory,
        "cpu_percent": {name: 100 * (after[name] - before[name]) / spent for name in watched},
    }


def _restarts(nodes: LiveNodes, rounds: int, progress: Progress) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for number in range(rounds):
        for place, name in enumerate(nodes.names):
            progress("restarts", (number + place / len(nodes.names)) / rounds)
            killed = _Restart(name, *_kill_and_watch(nodes, name))
            begin = time.monotonic()
            nodes.start_node(name)
            status = nodes.wait_for(lambda status: status["state"] == "live", GIVE_UP)
            back_s = None if status is None else time.monotonic() - begin
            found.append({**asdict(killed), "back_s": back_s})
            if back_s is None:
                return found
            time.sleep(BREATH)
            nodes.check()
    return found


@dataclass(frozen=True)
class _Restart:
    node: str
    page: str | None
    others_up: bool


def _kill_and_watch(nodes: LiveNodes, name: str) -> tuple[str | None, bool]:
    """Kill a node without warning; what the page shows after a while, and whether others live."""
    victim = nodes.processes.pop(name)
    victim.send(signal.SIGKILL)
    victim.process.wait()
    time.sleep(DEAD_FOR)
    status = nodes.page.status()
    others_up = all(node.process.poll() is None for node in nodes.processes.values())
    if status is None:
        return None, others_up
    return status["state"] + (f":{status['reason']}" if status["reason"] else ""), others_up


def _idle(nodes: LiveNodes, look: Callable[[int], Any], progress: Progress) -> dict[str, float]:
    progress("nobody looks", 0.0)
    nodes.start()
    # The page answers once it serves; the others take no longer, and then let go of their inputs.
    if nodes.wait_for(lambda status: True, GIVE_UP) is None:
        raise NodeDiedError(f"the page did not answer within {GIVE_UP:g} s")
    time.sleep(SETTLING)
    nodes.check()
    watched = {name: look(node.process.pid) for name, node in nodes.processes.items()}
    before, begin = _cpu_seconds(watched), time.monotonic()
    while (now := time.monotonic()) < begin + IDLE_SPAN:
        progress("nobody looks", (now - begin) / IDLE_SPAN)
        time.sleep(0.5)
    nodes.check()
    after, spent = _cpu_seconds(watched), time.monotonic() - begin
    return {name: 100 * (after[name] - before[name]) / spent for name in watched}


def _wait_until_live(nodes: LiveNodes) -> None:
    if nodes.wait_for(lambda status: status["state"] == "live", GIVE_UP) is None:
        raise NodeDiedError(
            f"nobody was seen in {nodes.config.video} within {GIVE_UP:g} s: give a video that "
            "begins with a face"
        )


def _cpu_seconds(watched: Mapping[str, Any]) -> dict[str, float]:
    """User and system time, that of children who have ended among it."""
    return {name: sum(process.cpu_times()[:4]) for name, process in watched.items()}


def _note_memory(memory: dict[str, list[float]], watched: Mapping[str, Any]) -> None:
    for name, process in watched.items():
        memory[name].append(process.memory_info().rss / 2**20)
