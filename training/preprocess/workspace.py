"""The work folder: what each stage has done so far, so that an interrupted run can go on.

Layout::

    DIR.work/lock                  held (flock) by the run that uses the folder
    DIR.work/STAGE/state.json      key, frames done, whether the stage is whole, seconds spent
    DIR.work/STAGE/...             the stage's own files

A stage's key is a hash of the program's version, of the settings that the stage depends on and of
the keys of the stages before it. When the key differs, what the stage left is thrown away. A file
counts only once state.json says so, and that is replaced in one step: a process may be killed at
any time. (After a power failure the system may have lost pages of a large file: remove the folder.)
"""

from __future__ import annotations

import dataclasses
import fcntl
import hashlib
import json
import logging
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import safe_open
from safetensors.numpy import save_file

import cag_avatar
from cag_avatar.errors import InputError
from cag_avatar.files import replacing

__all__ = ["StageStore", "Workspace", "file_fingerprint"]

_LOG = logging.getLogger(__name__)

#: Raised when a stage's files change their meaning.
_LAYOUT = 2
#: Bytes at each end of a file that its fingerprint covers.
_ENDS = 1 << 20


def file_fingerprint(path: Path) -> str:
    """Hash of a file's size, time of change, and first and last MiB (not of all of its content)."""
    stat = path.stat()
    digest = hashlib.sha256(f"{stat.st_size} {stat.st_mtime_ns}".encode())
    with path.open("rb") as file:
        digest.update(file.read(_ENDS))
        file.seek(max(0, stat.st_size - _ENDS))
        digest.update(file.read(_ENDS))
    return digest.hexdigest()


class StageStore:
    """Files of one stage. ``done`` frames of it are whole; ``whole`` says that the stage is."""

    def __init__(self, folder: Path, key: str) -> None:
        self.folder = folder
        self.key = key
        self.done = 0
        self.whole = False
        self.seconds = 0.0
        self._start = time.perf_counter()
        try:
            state = json.loads((folder / "state.json").read_text())
        except (OSError, ValueError):
            state = {}
        if state.get("key") == key:
            self.done, self.whole = int(state["done"]), bool(state["whole"])
            self.seconds = float(state["seconds"])
        elif folder.exists():
            if state:
                _LOG.info("%s: made with other settings, done again", folder.name)
            shutil.rmtree(folder)
        folder.mkdir(exist_ok=True)

    def commit(self, done: int, *, whole: bool = False) -> None:
        """Make the frames before ``done`` count, and the stage itself when it is ``whole``."""
        now = time.perf_counter()
        self.seconds += now - self._start
        self._start = now
        self.done, self.whole = done, whole
        values = {"key": self.key, "done": done, "whole": whole, "seconds": self.seconds}
        with replacing(self.folder / "state.json") as temporary:
            temporary.write_text(json.dumps(values))

    def save(self, name: str, arrays: Mapping[str, NDArray[Any]], **notes: Any) -> None:
        """Write arrays and notes (JSON values) to a file of the stage."""
        contiguous = {k: np.ascontiguousarray(v) for k, v in arrays.items()}
        with replacing(self.folder / f"{name}.safetensors") as temporary:
            save_file(contiguous, temporary, {"notes": json.dumps(notes)})

    def load(self, name: str) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
        """The arrays and notes of a file of the stage."""
        with safe_open(self.folder / f"{name}.safetensors", "np") as handle:
            arrays = {k: handle.get_tensor(k) for k in handle.keys()}  # noqa: SIM118
            notes = json.loads(handle.metadata()["notes"])
        return arrays, notes


class Workspace:
    """An open work folder; made by :meth:`open`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @classmethod
    @contextmanager
    def open(cls, folder: Path) -> Iterator[Workspace]:
        """Make or take up a work folder; it is the caller's alone until the block ends.

        Raises:
            InputError: another process uses it, or something else is there.
        """
        if folder.exists() and not (folder / "lock").is_file():
            raise InputError(f"{folder}: exists and is no work folder; remove or rename it")
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / "lock").open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise InputError(
                    f"{folder}: another preprocess is writing this dataset; wait for it or name "
                    "another output"
                ) from None
            yield cls(folder)

    def stage(
        self, name: str, depends: tuple[str, ...], settings: Any = None, needs: str | None = None
    ) -> StageStore:
        """The store of a stage.

        Args:
            name: of the stage and of its folder.
            depends: keys of the stages whose results it uses.
            settings: what else its result depends on: JSON values, paths or dataclasses of them.
            needs: file or folder of the stage without which nothing of it is done.
        """

        def plain(value: Any) -> Any:
            known = dataclasses.is_dataclass(value) and not isinstance(value, type)
            return dataclasses.asdict(value) if known else str(value)

        text = json.dumps([_LAYOUT, cag_avatar.__version__, name, depends, settings], default=plain)
        store = StageStore(self.folder / name, hashlib.sha256(text.encode()).hexdigest())
        if needs is not None and not (store.folder / needs).exists():
            store.done, store.whole = 0, False
        return store

    def remove(self) -> None:
        """Remove the folder and all that is in it."""
        shutil.rmtree(self.folder, ignore_errors=True)
