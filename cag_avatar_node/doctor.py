"""Looks for what would keep this machine from running the nodes, each problem with its fix.

Every check is a function of its own whose sources can be replaced; none needs ROS, a network or a
GPU, and none changes anything.
"""

from __future__ import annotations

import ctypes.util
import importlib
import importlib.util
import os
import re
import shutil
import socket
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

from cag_avatar.errors import InputError
from cag_avatar_node.bag_files import face_expression_definition
from cag_avatar_node.camera_devices import CameraDevice, list_cameras
from cag_avatar_node.operator_calibration import default_calibration_folder
from cag_avatar_node.transport import SHARED_MEMORY_NEEDED

__all__ = ["Finding", "Level", "diagnose", "exit_code"]

Level = Literal["ok", "warning", "problem"]

#: Distributions that the nodes are made for, and those that mostly work.
_SUPPORTED, _OLDER = ("jazzy", "kilted", "lyrical", "rolling"), ("humble", "iron")
#: Receive buffer that lets an uncompressed image of 1080p through in one burst, bytes.
_RECEIVE_BUFFER = 8 * 2**20
#: Seconds for which a lost fragment may block reassembly, as ROS 2's DDS tuning guide advises.
_FRAGMENT_SECONDS = 3
#: What an older build of cag_avatar_msgs lacks.
_LATER_TYPES = ("msg/StageLatency", "srv/SelectAvatar")
#: Space for compiled kernels, the landmarker model and calibrations, bytes.
_DISK_NEEDED = 2**30
_SOURCE_ROS = (
    "source /opt/ros/<distribution>/setup.bash, or pip install 'cag_avatar[ros-wheels]' in a "
    "Python without ROS"
)

FindModule = Callable[[str], object]


@dataclass(frozen=True)
class Finding:
    """What one check found."""

    check: str
    """Name of the check."""
    level: Level
    """``ok``; ``warning``: something is slower or left out; ``problem``: something cannot run."""
    detail: str
    """What was found."""
    fix: str = ""
    """What to do about it; empty when there is nothing to do."""

    def as_dict(self) -> dict[str, str]:
        """For JSON."""
        return asdict(self)


def diagnose(port: int = 8008) -> list[Finding]:
    """All findings, in the order of the checks; a check that itself fails is a problem.

    Args:
        port: that the display page is to have.
    """
    checks: dict[str, Callable[[], Finding]] = {
        "ROS": check_ros,
        "RMW": check_rmw,
        "messages": check_messages,
        "MediaPipe": check_mediapipe,
        "EGL, GLES": check_system_libraries,
        "GPU": check_gpu,
        "cameras": check_cameras,
        "network": check_network_buffers,
        "shared memory": check_shared_memory,
        "port": partial(check_port, port),
        "disk": check_disk,
        "optional": check_optional,
    }
    findings = []
    for name, check in checks.items():
        try:
            findings.append(check())
        except Exception as error:  # the doctor's own mistake must not hide the other findings
            findings.append(Finding(name, "problem", f"the check failed: {error!r}", "report it"))
    return findings


def exit_code(findings: Sequence[Finding]) -> int:
    """1 when there is a problem, else 0: warnings alone do not keep anything from running."""
    return int(any(finding.level == "problem" for finding in findings))


def check_ros(
    environ: Mapping[str, str] = os.environ, find: FindModule = importlib.util.find_spec
) -> Finding:
    """rclpy is installed, and of a distribution that is known."""
    distribution = environ.get("ROS_DISTRO", "")
    if find("rclpy") is None:
        missing = f"{distribution} is sourced, but Python" if distribution else "this Python"
        return Finding("ROS", "problem", f"{missing} finds no rclpy", _SOURCE_ROS)
    if not distribution:
        return Finding("ROS", "ok", "rclpy from Python wheels (no ROS_DISTRO is set)")
    if distribution in _SUPPORTED:
        return Finding("ROS", "ok", distribution)
    how = "older than what is tested" if distribution in _OLDER else "unknown"
    return Finding("ROS", "warning", f"{distribution} is {how}", f"use {' or '.join(_SUPPORTED)}")


def check_rmw(
    environ: Mapping[str, str] = os.environ, identify: Callable[[], str] | None = None
) -> Finding:
    """The middleware loads, and is the one that was asked for."""

    def ask() -> str:
        return str(importlib.import_module("rclpy").get_rmw_implementation_identifier())

    wanted = environ.get("RMW_IMPLEMENTATION", "")
    try:
        found = (identify or ask)()
    except Exception as error:  # ImportError, or RuntimeError of a library that is missing
        first = (str(error).splitlines() or [repr(error)])[0]
        fix = (
            f"install the package of {wanted} (ros-<distribution>-{wanted.replace('_', '-')}) or "
            "unset RMW_IMPLEMENTATION"
            if wanted
            else _SOURCE_ROS
        )
        return Finding("RMW", "problem", f"no middleware loads: {first}", fix)
    if wanted and wanted != found:
        return Finding(
            "RMW", "problem", f"{found} is loaded, not RMW_IMPLEMENTATION={wanted}",
            f"install {wanted}, or unset RMW_IMPLEMENTATION",
        )  # fmt: skip
    chosen = "as RMW_IMPLEMENTATION says" if wanted else "the default"
    return Finding("RMW", "ok", f"{found}, {chosen}")


def check_messages(load: Callable[[str], Any] | None = None) -> Finding:
    """cag_avatar_msgs is built, from this version's definition."""
    build = (
        "run colcon build in ros2_ws and source install/setup.bash; on the Python wheels: "
        "make ros2-ws"
    )

    def load_type(name: str) -> Any:
        kind, _, name = name.partition("/")
        return getattr(importlib.import_module(f"cag_avatar_msgs.{kind}"), name)

    load = load or load_type
    try:
        built = load("msg/FaceExpression").get_fields_and_field_types()
    except Exception as error:
        return Finding("messages", "problem", f"cag_avatar_msgs is not built ({error})", build)
    for name in _LATER_TYPES:
        try:
            load(name)
        except Exception:
            detail = f"cag_avatar_msgs is of another version: it has no {name}"
            return Finding("messages", "problem", detail, build)
    wanted = _field_names(face_expression_definition())
    if list(built) != wanted:
        differ = ", ".join(sorted(set(built) ^ set(wanted))) or "their order"
        return Finding(
            "messages", "problem", f"cag_avatar_msgs is of another version: {differ}", build
        )
    return Finding("messages", "ok", f"cag_avatar_msgs, FaceExpression of {len(wanted)} fields")


def _field_names(definition: str) -> list[str]:
    """Fields of a message definition, in order; constants and comments left out."""
    lines = (line.split("#")[0].strip() for line in definition.splitlines())
    found = (re.fullmatch(r"[\w/\[\]<=]+\s+(\w+)", line) for line in lines)
    return [match.group(1) for match in found if match is not None]


def check_mediapipe(
    find: FindModule = importlib.util.find_spec, locate: Callable[[], Path] | None = None
) -> Finding:
    """The face tracker and its model file are installed."""
    if find("mediapipe") is None:
        fix = "pip install 'cag_avatar[tracking]'"
        return Finding("MediaPipe", "problem", "mediapipe is not installed", fix)
    if locate is None:
        from cag_avatar.tracking.face_landmarker import find_landmarker_model

        locate = find_landmarker_model
    try:
        return Finding("MediaPipe", "ok", str(locate()))
    except InputError as error:
        detail, _, fix = str(error).partition(": ")
        return Finding("MediaPipe", "problem", detail, fix)


def check_system_libraries(
    find_library: Callable[[str], str | None] = ctypes.util.find_library,
) -> Finding:
    """The libraries that mediapipe opens."""
    packages = {"EGL": "libegl1", "GLESv2": "libgles2"}
    missing = [name for name in packages if find_library(name) is None]
    if not missing:
        return Finding("EGL, GLES", "ok", "libEGL, libGLESv2")
    names = " and ".join(f"lib{name}" for name in missing)
    fix = "apt-get install " + " ".join(packages[name] for name in missing)
    return Finding("EGL, GLES", "problem", f"{names} not found: no face can be tracked", fix)


def check_gpu(
    cuda: Callable[[], str | None] | None = None,
    find: FindModule = importlib.util.find_spec,
    device: Path = Path("/dev/nvidia0"),
) -> Finding:
    """A GPU that PyTorch sees, and gsplat to draw with it; without either the CPU draws."""
    name = (cuda or _cuda_device)()
    gsplat = find("gsplat") is not None
    if name is not None and gsplat:
        return Finding("GPU", "ok", f"{name}, gsplat: the cuda back end is used")
    if name is not None:
        fix = "pip install 'cag_avatar[cuda]'"
        return Finding("GPU", "warning", f"{name}, but no gsplat: the CPU draws", fix)
    if device.exists():
        return Finding(
            "GPU", "warning", f"{device} exists, but PyTorch does not see it: the CPU draws",
            "check that nvidia-smi works; install a PyTorch built for CUDA (pytorch.org)",
        )  # fmt: skip
    return Finding("GPU", "ok", "none: the cpu back end draws")


def _cuda_device() -> str | None:
    import torch

    return torch.cuda.get_device_name(0) if torch.cuda.is_available() else None


def check_cameras(cameras: Callable[[], list[CameraDevice]] = list_cameras) -> Finding:
    """Cameras that can be read, and their formats."""
    found = cameras()
    said = [
        f"{c.path} {c.name}: {' '.join(c.formats)}" if c.formats else f"{c.path}: {c.error}"
        for c in found
    ]
    detail = "; ".join(said)
    if any(c.denied for c in found):
        fix = "sudo usermod -aG video $USER, then log in again (in Docker: --device, --group-add)"
        return Finding("cameras", "problem", detail, fix)
    if not any(c.formats for c in found):
        return Finding(
            "cameras", "warning", detail or "no /dev/video*: a video file can drive the avatar",
            "plug a camera in; in Docker give --device /dev/video0",
        )  # fmt: skip
    return Finding("cameras", "ok", detail)


def check_network_buffers(settings: Path = Path("/proc/sys/net")) -> Finding:
    """Kernel buffers that images between machines need; codes do without."""
    values = {"core/rmem_max": 0, "ipv4/ipfrag_time": 0}
    for name in values:
        try:
            values[name] = int((settings / name).read_text())
        except (OSError, ValueError):
            return Finding("network", "ok", f"{settings / name} is not readable: not checked")
    receive, fragments = values.values()
    wrong, fixes = [], []
    if receive < _RECEIVE_BUFFER:
        wrong.append(f"net.core.rmem_max {receive} is below {_RECEIVE_BUFFER}")
        fixes.append("net.core.rmem_max=2147483647")
    if fragments > _FRAGMENT_SECONDS:
        wrong.append(f"net.ipv4.ipfrag_time {fragments} s is above {_FRAGMENT_SECONDS}")
        fixes.append(f"net.ipv4.ipfrag_time={_FRAGMENT_SECONDS}")
    if wrong:
        detail = "; ".join(wrong) + ": uncompressed images between machines get lost"
        return Finding("network", "warning", detail, "sudo sysctl -w " + " ".join(fixes))
    return Finding("network", "ok", f"rmem_max {receive}, ipfrag_time {fragments} s")


def check_shared_memory(
    folder: Path = Path("/dev/shm"), free: Callable[[Path], int] | None = None
) -> Finding:
    """Shared memory for whole images between processes."""
    if not folder.is_dir():
        return Finding("shared memory", "ok", f"no {folder}: not used")
    there = (free or _free)(folder)
    if there < SHARED_MEMORY_NEEDED:
        detail = f"{there >> 20} MiB free, {SHARED_MEMORY_NEEDED >> 20} needed: images get lost"
        fix = "in Docker give --shm-size=128m or --ipc=host; else remove old files there"
        return Finding("shared memory", "warning", detail, fix)
    return Finding("shared memory", "ok", f"{there >> 20} MiB free")


def check_port(port: int, host: str = "127.0.0.1") -> Finding:
    """The display page's port is free."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            fix = f"end what uses it (ss -ltnp 'sport = :{port}'), or choose another: --port"
            return Finding("port", "problem", f"{host}:{port}: {error.strerror}", fix)
    return Finding("port", "ok", f"{host}:{port} is free")


def check_disk(
    folders: Sequence[Path] | None = None, free: Callable[[Path], int] | None = None
) -> Finding:
    """Caches and calibrations can be written and have room."""
    if folders is None:
        cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        folders = (cache / "cag_avatar", default_calibration_folder())
    short = []
    for folder in folders:
        place = next(p for p in (folder, *folder.parents) if p.exists())
        if not (place.is_dir() and os.access(place, os.W_OK | os.X_OK)):
            fix = (
                f"make {place} a folder that you may write to, or set XDG_CACHE_HOME, XDG_DATA_HOME"
            )
            return Finding("disk", "problem", f"{folder} cannot be written", fix)
        there = (free or _free)(place)
        if there < _DISK_NEEDED:
            short.append(f"{place}: {there >> 20} MiB free, {_DISK_NEEDED >> 20} wanted")
    if short:
        return Finding("disk", "warning", "; ".join(short), "make room there")
    return Finding("disk", "ok", ", ".join(map(str, folders)))


def _free(folder: Path) -> int:
    return shutil.disk_usage(folder).free


def check_optional(find: FindModule = importlib.util.find_spec) -> Finding:
    """What is left out for want of a library; never a problem."""
    uses = {
        "rosbags": "cag-avatar bag",
        "hri_msgs": "REP-155 topics",
        "tf2_ros": "TF frames",
        "launch_ros": "launch files",
    }
    missing = [f"{name} ({use})" for name, use in uses.items() if find(name) is None]
    if not missing:
        return Finding("optional", "ok", "all there")
    fix = "rosbags: pip install 'cag_avatar[bags]'; the others come with ROS, if they are wanted"
    return Finding("optional", "ok", "not installed: " + ", ".join(missing), fix)
