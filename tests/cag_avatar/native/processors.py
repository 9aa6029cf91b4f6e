"""The compiled code as machines with smaller vectors build it: other lines of the source run."""

from __future__ import annotations

import platform
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from cag_avatar.native import library

#: Kinds of processor, and what gcc is told about them.
PROCESSORS: dict[str, tuple[str, ...]] = {"this one": ("-march=native",)}
if platform.machine() == "x86_64":
    PROCESSORS |= {"AVX2": ("-mavx2", "-mfma"), "SSE": ("-msse4.1",)}


@contextmanager
def code_of(name: str, folder: Path, clear: Callable[[], None]) -> Iterator[None]:
    """The code built for a kind of processor, or with "numpy" none; ``clear`` forgets what a module
    has loaded."""
    if name == "numpy":
        with no_code(clear):
            yield
        return
    clear()
    with built_for(name, folder):
        yield
    clear()


@contextmanager
def no_code(clear: Callable[[], None]) -> Iterator[None]:
    """load_library() gives nothing; ``clear`` as for :func:`code_of`."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CAG_AVATAR_NATIVE", "0")
        library.load_library.cache_clear()
        clear()
        try:
            yield
        finally:
            library.load_library.cache_clear()
            clear()


@contextmanager
def built_for(name: str, folder: Path) -> Iterator[None]:
    """load_library() gives the code built for a kind of processor; skips without gcc."""
    if shutil.which("gcc") is None:
        pytest.skip("no gcc")
    with pytest.MonkeyPatch.context() as patch:
        flags = [flag for flag in library._FLAGS if not flag.startswith("-march")]
        patch.setattr(library, "_FLAGS", (*flags, *PROCESSORS[name]))
        patch.setenv("CAG_AVATAR_CACHE", str(folder))
        library.load_library.cache_clear()
        yield
    library.load_library.cache_clear()
