"""``cag-avatar live-benchmark``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import tyro
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from cag_avatar.files import replacing
from cag_avatar_cli.options import Backend, PathArgument
from cag_avatar_node.live import LiveConfig
from cag_avatar_node.live_benchmark import LiveBenchmarkConfig, bench_live_path


def command(
    avatar: PathArgument,
    video: Path,
    seconds: float = 60.0,
    restarts: int = 1,
    idle: bool = True,
    size: int = 512,
    backend: Backend = "auto",
    json_path: Annotated[Path | None, tyro.conf.arg(name="json")] = None,
) -> None:
    """Run the four ROS 2 nodes of cag-avatar live and measure them on this machine.

    Rate and latency (camera stamp to arrival at the page) in a steady run, memory and CPU of each
    node; then each node is killed (kill -9) and started again: what the page shows meanwhile and
    how long until it is live again; then the CPU that the nodes take when nobody looks.

    Args:
        avatar: *.cag file.
        video: file that drives the avatar, in a loop; its frames should all show a face.
        seconds: length of the steady run.
        restarts: times that each node is killed.
        idle: whether to measure the nodes when nobody looks.
        size: width and height of the avatar's images.
        backend: rasteriser.
        json_path: file to write the figures to.
    """
    config = LiveBenchmarkConfig(
        LiveConfig(avatar=avatar, video=video, size=size, backend=backend, port=0),
        seconds=seconds, restarts=restarts, idle=idle,
    )  # fmt: skip
    console = Console()
    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task("starting", total=1.0)
        figures = bench_live_path(
            config, lambda what, share: bar.update(task, description=what, completed=share)
        )
    _print(console, figures)
    if json_path is not None:
        with replacing(json_path) as temporary:
            temporary.write_text(json.dumps(figures, indent=2) + "\n")
        print(f"figures: {json_path}")


def _print(console: Console, figures: dict[str, Any]) -> None:
    worst = figures["worst"]
    console.print(
        f"{figures['fps']:.1f} frames/s, latency {figures['latency_ms_p50']:.0f} ms median, "
        f"{figures['latency_ms_p95']:.0f} ms p95 (worst 10 s: {worst['fps']:.1f}, "
        f"{worst['latency_ms_p50']:.0f}, {worst['latency_ms_p95']:.0f}); live "
        f"{figures['start_s']:.1f} s after the start; {figures['seconds']:.0f} s, "
        f"{figures['size']} x {figures['size']}"
    )
    table = Table()
    table.add_column("node")
    for title in ("MiB at first", "at the end", "% of a core", "% when nobody looks"):
        table.add_column(title, justify="right")
    idle = figures.get("idle_cpu_percent", {})
    for name, (first, last) in figures["memory_mb"].items():
        quiet = f"{idle[name]:.1f}" if name in idle else ""
        busy = f"{figures['cpu_percent'][name]:.0f}"
        table.add_row(name, f"{first:.0f}", f"{last:.0f}", busy, quiet)
    console.print(table)
    if figures["restarts"]:
        table = Table(title="kill -9, then started again")
        for title in ("node", "page after 3 s", "others"):
            table.add_column(title)
        table.add_column("live again after s", justify="right")
        for event in figures["restarts"]:
            back = "never" if event["back_s"] is None else f"{event['back_s']:.1f}"
            others = "up" if event["others_up"] else "DEAD"
            table.add_row(event["node"], event["page"] or "no connection", others, back)
        console.print(table)
