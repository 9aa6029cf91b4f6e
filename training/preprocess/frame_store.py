"""Frames on disk: uncompressed, any of them at hand, none of them in memory."""

from __future__ import annotations

import os
from pathlib import Path
from types import TracebackType

import numpy as np
from numpy.typing import NDArray

from cag_avatar.errors import InputError

__all__ = ["FrameStore"]


class FrameStore:
    """A file of uint8 frames of one shape, one after the other. Threads may share it.

    Read and written with plain calls: pages of a memory map would count as the process's memory.

    Args:
        path: the file; made if it is missing.
        shape: of a frame, e.g. [H, W, 3].
    """

    def __init__(self, path: Path, shape: tuple[int, ...]) -> None:
        self.path = path
        self.shape = shape
        self._bytes = int(np.prod(shape))
        self._file = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)

    def __getitem__(self, index: int) -> NDArray[np.uint8]:
        """A copy of a frame. Raises IndexError if it was not written."""
        frame = np.empty(self.shape, np.uint8)
        view = memoryview(frame.data).cast("B")
        done = 0
        while done < self._bytes:
            count = os.preadv(self._file, [view[done:]], index * self._bytes + done)
            if count == 0:
                raise IndexError(f"{self.path}: frame {index} was not written")
            done += count
        return frame

    def write(self, index: int, frame: NDArray[np.uint8]) -> None:
        """Write a frame at its place. Raises InputError when the disk is full."""
        if frame.shape != self.shape or frame.dtype != np.uint8:
            raise ValueError(f"frame: {frame.dtype} {frame.shape}, the store holds {self.shape}")
        view = memoryview(np.ascontiguousarray(frame).data).cast("B")
        done = 0
        try:
            while done < self._bytes:
                done += os.pwrite(self._file, view[done:], index * self._bytes + done)
        except OSError as error:
            raise InputError(
                f"{self.path}: cannot be written ({error.strerror}); about "
                f"{self._bytes / 1e6:.1f} MB a frame are needed while preprocessing"
            ) from error

    def close(self) -> None:
        """Close the file; frames cannot be read afterwards."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def __enter__(self) -> FrameStore:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
