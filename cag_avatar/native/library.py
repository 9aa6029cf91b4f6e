"""Builds a C file of this folder with the machine's compiler, once, and loads it.

Each file is a library of its own, so that who only drives an avatar does not wait for what trains
one. It is kept in the user's cache folder under a name that holds what it depends on (source,
compiler, flags, processor), so that another machine that shares the folder builds its own.
"""

from __future__ import annotations

import ctypes
import hashlib
import logging
import os
import platform
import shutil
import subprocess
import threading
from functools import cache
from importlib import resources
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal

from cag_avatar.files import replacing

__all__ = [
    "LibraryName",
    "NativeUnavailableError",
    "cache_folder",
    "check_layout",
    "load_library",
]

#: Live frames; Gaussians, offset network and blending in training; live tracking; irises.
LibraryName = Literal["frame", "compose", "offsets", "splatting", "landmark_fit", "irises"]

_LOG = logging.getLogger(__name__)
_FLAGS = (
    "-O3", "-march=native", "-fno-math-errno", "-fno-trapping-math", "-ffp-contract=fast",
    "-std=gnu11", "-shared", "-fPIC",
)  # fmt: skip
_HEADERS = ("lanes.h",)
#: Seconds that the compiler may take.
_PATIENCE = 120.0
_building = threading.Lock()


class NativeUnavailableError(RuntimeError):
    """The compiled code cannot be used here; the message says why and what would help."""


def cache_folder() -> Path:
    """Where built libraries lie: CAG_AVATAR_CACHE, or cag_avatar in XDG_CACHE_HOME."""
    own = os.environ.get("CAG_AVATAR_CACHE")
    if own:
        return Path(own).expanduser()
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(base).expanduser() / "cag_avatar"


@cache
def load_library(name: LibraryName) -> ctypes.CDLL:
    """The functions of ``name``.c; builds them if that was not done on this machine.

    Raises:
        NativeUnavailableError: no C compiler (set CC, or install gcc), it failed, or
            CAG_AVATAR_NATIVE=0.
    """
    if os.environ.get("CAG_AVATAR_NATIVE") == "0":
        raise NativeUnavailableError("switched off by CAG_AVATAR_NATIVE=0")
    with _building:
        folder = resources.files("cag_avatar.native")
        sources = {file: folder.joinpath(file).read_bytes() for file in (f"{name}.c", *_HEADERS)}
        compiler = _compiler()
        path = cache_folder() / f"{name}-{_fingerprint(sources, compiler)}.so"
        if not path.is_file():
            _build(sources, compiler, path)
        try:
            return ctypes.CDLL(str(path))
        except OSError as error:
            raise NativeUnavailableError(f"{path} cannot be loaded: {error}") from error


def check_layout(library: ctypes.CDLL, *structures: type[ctypes.Structure]) -> None:
    """Raise RuntimeError where a structure is not as large as C's of the same name."""
    for structure in structures:
        size = getattr(library, f"cag{structure.__name__.lower()}_size")
        size.restype = ctypes.c_int64
        if size() != ctypes.sizeof(structure):
            raise RuntimeError(f"{structure.__name__} is not C's: reinstall cag_avatar")


def _compiler() -> str:
    wanted = [os.environ["CC"]] if os.environ.get("CC") else ["gcc", "cc"]
    for name in wanted:
        found = shutil.which(name)
        if found:
            return found
    raise NativeUnavailableError(f"no C compiler ({' or '.join(wanted)}): install gcc")


def _fingerprint(sources: dict[str, bytes], compiler: str) -> str:
    """Changes when the library has to be built again."""
    version = subprocess.run([compiler, "--version"], capture_output=True, check=False).stdout
    parts = [*sources.values(), version, " ".join(_FLAGS).encode()]
    parts += [platform.machine().encode(), _processor()]
    return hashlib.sha256(b"\0".join(parts)).hexdigest()[:20]


def _processor() -> bytes:
    """What the processor can do, as Linux tells."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor().encode()
    wanted = ("flags", "Features", "model name")
    return "\n".join(sorted({line for line in lines if line.startswith(wanted)})).encode()


def _build(sources: dict[str, bytes], compiler: str, path: Path) -> None:
    """Compile with OpenMP; without it (one thread) where the compiler has none."""
    _LOG.info("building %s with %s, once on this machine", next(iter(sources)), compiler)
    try:
        with replacing(path) as temporary, TemporaryDirectory(dir=temporary.parent) as folder:
            for file, text in sources.items():
                (Path(folder) / file).write_bytes(text)
            source = str(Path(folder) / next(iter(sources)))
            command = [compiler, *_FLAGS, source, "-o", str(temporary), "-lm"]
            first = _run([*command, "-fopenmp"])
            if first is None:
                return
            if _run(command) is not None:
                raise NativeUnavailableError(f"{compiler} failed: {first}")
            _LOG.warning("%s has no OpenMP: the compiled code uses one core", compiler)
    except OSError as error:
        raise NativeUnavailableError(
            f"{path.parent} cannot be written ({error.strerror}): set CAG_AVATAR_CACHE"
        ) from error


def _run(command: list[str]) -> str | None:
    """Run the compiler; None if it succeeded, else the first line that it said."""
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=_PATIENCE, check=False
        )
    except subprocess.TimeoutExpired:
        return f"no result within {_PATIENCE:g} s"
    if done.returncode == 0:
        return None
    lines = done.stderr.strip().splitlines()
    return lines[0] if lines else f"exit code {done.returncode}"
