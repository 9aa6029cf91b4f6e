#!/usr/bin/env python3
"""Build the colcon workspace ros2_ws on the ROS 2 wheels of the running virtual environment.

Run it with that environment's Python::

    .venv/bin/python scripts/build_ros2_ws.py                  # both packages, with colcon
    .venv/bin/python scripts/build_ros2_ws.py --messages-only  # only what the nodes need to run
    .venv-jazzy/bin/python scripts/build_ros2_ws.py --suffix=-jazzy    # beside another distribution

It (1) repairs the wheels' CMake files, which name the machine that built them, (2) builds
``cag_avatar_msgs`` with colcon and installs it into the environment beside the other messages, so
that ``import cag_avatar_msgs.msg`` works without sourcing anything, and (3) builds ``cag_avatar``
with ``--symlink-install``. Every step does nothing when it is up to date.

With ROS from apt or RoboStack none of this is needed: ``colcon build`` in ros2_ws is enough.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.metadata
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import time
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
WORKSPACE = REPOSITORY / "ros2_ws"
MESSAGES = WORKSPACE / "src" / "cag_avatar_msgs"
BUILDERS_INCLUDE = re.compile(r"/opt/python/[^/;\"]+/include/python[0-9.]+\w*")
BUILDERS_NUMPY = re.compile(
    r"/opt/python/[^/;\"]+/lib/python[0-9.]+/site-packages/numpy/_?core/include"
)


class BuildError(RuntimeError):
    """The workspace cannot be built: the message says what is missing and how to get it."""


def repair_cmake_files(prefix: Path, python_include: str, numpy_include: str) -> int:
    """Replace the wheel builder's include folders in ``prefix``/share/**/*.cmake by ours.

    Returns the number of files changed; a second run changes none.
    """
    changed = 0
    for path in sorted((prefix / "share").glob("**/*.cmake")):
        text = path.read_text(encoding="utf-8", errors="surrogateescape")
        if "/opt/python/" not in text:
            continue
        repaired = BUILDERS_NUMPY.sub(lambda _: numpy_include, text)
        repaired = BUILDERS_INCLUDE.sub(lambda _: python_include, repaired)
        if repaired != text:
            temporary = path.with_name(path.name + ".tmp")
            temporary.write_text(repaired, encoding="utf-8", errors="surrogateescape")
            os.replace(temporary, path)
            changed += 1
    return changed


def check_prerequisites(prefix: Path) -> None:
    """Raise BuildError when this environment cannot build messages."""
    rclpy = importlib.util.find_spec("rclpy")
    if rclpy is None or rclpy.origin is None:
        raise BuildError("rclpy is not installed in this environment: run 'make setup'")
    if not Path(rclpy.origin).resolve().is_relative_to(prefix.resolve()):
        raise BuildError(
            f"rclpy comes from {Path(rclpy.origin).parent}, not from this environment: "
            "run 'colcon build' in ros2_ws instead"
        )
    for module in ("colcon_core", "em", "ament_package", "rosidl_generator_py"):
        if importlib.util.find_spec(module) is None:
            raise BuildError(f"the build tool '{module}' is not installed: run 'make setup'")
    if not (shutil.which("c++") or shutil.which("g++") or shutil.which("clang++")):
        raise BuildError("no C++ compiler found: install one (Debian, Ubuntu: apt install g++)")


def messages_fingerprint() -> str:
    """Hash of everything that the built messages depend on."""
    digest = hashlib.sha256(sys.version.encode())
    for package in ("numpy", "ros-rosidl-generator-py", "ros-std-msgs"):
        digest.update(f"{package}=={importlib.metadata.version(package)}".encode())
    for path in sorted(p for p in MESSAGES.rglob("*") if p.is_file()):
        digest.update(path.relative_to(MESSAGES).as_posix().encode() + b"\0")
        digest.update(path.read_bytes())
    return digest.hexdigest()


def environment(prefix: Path) -> dict[str, str]:
    """Environment in which colcon finds the wheels' CMake packages and this Python."""
    env = dict(os.environ)
    env["AMENT_PREFIX_PATH"] = env["CMAKE_PREFIX_PATH"] = str(prefix)
    env["PATH"] = os.pathsep.join([str(prefix / "bin"), env.get("PATH", "")])
    env.pop("PYTHONPATH", None)
    return env


def run(command: list[str], cwd: Path, env: dict[str, str]) -> None:
    """Run a command; on failure raise BuildError with its last lines."""
    result = subprocess.run(
        command, cwd=cwd, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    if result.returncode != 0:
        tail = "\n".join(result.stdout.splitlines()[-40:])
        raise BuildError(f"{' '.join(command)} failed ({result.returncode}):\n{tail}")


def colcon_build(package: str, env: dict[str, str], suffix: str, *options: str) -> None:
    """``colcon build`` of one package of the workspace, into folders with a suffix."""
    colcon = [sys.executable, "-m", "colcon", "--log-base", f"log{suffix}", "build"]
    bases = ["--build-base", f"build{suffix}", "--install-base", f"install{suffix}"]
    run([*colcon, *bases, "--packages-select", package, *options], WORKSPACE, env)


def build_messages(prefix: Path, env: dict[str, str], suffix: str = "") -> bool:
    """Build cag_avatar_msgs and install it into the environment. False when it was up to date."""
    stamp = prefix / "share" / "cag_avatar_msgs" / "built_from.sha256"
    fingerprint = messages_fingerprint()
    in_workspace = (WORKSPACE / f"install{suffix}" / "cag_avatar_msgs" / "share").is_dir()
    if in_workspace and stamp.is_file() and stamp.read_text() == fingerprint:
        return False
    colcon_build(
        "cag_avatar_msgs",
        env,
        suffix,
        "--cmake-args",
        "-DCMAKE_BUILD_TYPE=Release",
        "-DBUILD_TESTING=OFF",
        f"-DPython3_EXECUTABLE={sys.executable}",
        "--no-warn-unused-cli",
    )
    build = WORKSPACE / f"build{suffix}" / "cag_avatar_msgs"
    cmake = str(prefix / "bin" / "cmake")
    command = [cmake if Path(cmake).is_file() else "cmake", "--install", str(build)]
    run([*command, "--prefix", str(prefix)], WORKSPACE, env)
    temporary = stamp.with_suffix(".tmp")
    temporary.write_text(fingerprint)
    os.replace(temporary, stamp)
    return True


def main(argv: list[str] | None = None) -> int:
    """Build; returns the exit code."""
    parser = argparse.ArgumentParser(description="Build ros2_ws on the ROS 2 wheels.")
    parser.add_argument(
        "--messages-only", action="store_true", help="build and install only cag_avatar_msgs"
    )
    parser.add_argument(
        "--suffix", default="", help="of the folders build, install and log (default: none)"
    )
    options = parser.parse_args(argv)
    prefix = Path(sys.prefix)
    start = time.monotonic()
    try:
        check_prerequisites(prefix)
        import numpy as np

        repair_cmake_files(prefix, sysconfig.get_paths()["include"], np.get_include())
        env = environment(prefix)
        built = build_messages(prefix, env, options.suffix)
        print("cag_avatar_msgs:", "built" if built else "up to date", flush=True)
        if not options.messages_only:
            colcon_build("cag_avatar", env, options.suffix, "--symlink-install")
            installed = WORKSPACE / f"install{options.suffix}"
            print(f"cag_avatar: built in {installed}", flush=True)
    except BuildError as error:
        print(f"build_ros2_ws: {error}", file=sys.stderr)
        return 1
    print(f"done in {time.monotonic() - start:.1f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
