"""``cag-avatar live``."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from cag_avatar_cli.options import Backend, PathArgument
from cag_avatar_node.live import LiveConfig, run_live


def command(
    avatar: PathArgument,
    video: Path | None = None,
    camera: str | None = None,
    size: int = 512,
    backend: Backend = "auto",
    head_motion: Literal["relative", "absolute", "none"] = "relative",
    expression: Literal["relative", "absolute"] = "relative",
    gaze: Literal["follow", "none"] = "follow",
    regressor: Literal["auto", "on", "off"] = "auto",
    host: str = "127.0.0.1",
    port: int = 8008,
    seconds: float | None = None,
    frame: Path | None = None,
    one_process: bool = False,
) -> None:
    """Run the four ROS 2 nodes: source, estimator, renderer and the page that shows the avatar.

    Args:
        avatar: *.cag file.
        video: file that drives the avatar, in a loop; this or camera.
        camera: camera that drives it: index or device path.
        size: width and height of the avatar's images.
        backend: rasteriser.
        head_motion: how the avatar's head follows the operator's: relative to the operator's rest
            pose, absolute, or none.
        expression: relative to the operator's face at rest, which is followed, or absolute: codes
            as they are.
        gaze: follow the operator's, or none.
        regressor: codes by the network that knows the avatar's person alone: on says that they
            drive, auto looks whether they do.
        host: address of the page.
        port: port of the page.
        seconds: stop after so long; by default at Ctrl-C.
        frame: save the last frame that arrived as PNG.
        one_process: run all four in one process: half of the memory, but they take turns, and if
            one fails all end.
    """
    result = run_live(
        LiveConfig(
            avatar=avatar, video=video, camera=camera, size=size, backend=backend,
            head_motion=head_motion, expression=expression, gaze=gaze, regressor=regressor,
            host=host, port=port, duration_s=seconds, frame_path=frame,
            one_process=one_process,
        )
    )  # fmt: skip
    print(
        f"{result.live_fps:.1f} frames/s, latency {result.latency_ms_p50} ms median, "
        f"{result.latency_ms_p95} ms p95, {result.frames} frames in {result.seconds:.0f} s"
    )
