"""Runs a program of fixed shapes frame after frame: on CUDA as a graph, with overlapped read-back.

A frame on CUDA is: driving numbers copied from pinned memory, one graph replayed, its bytes copied
to one of two buffers on the device, and from there to pinned memory by a second stream. Nothing
waits on the host but :meth:`Runner.collect`, for the event behind the last copy, so that the host
prepares, and the device draws, frame k + 1 while frame k is on its way back.
"""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

__all__ = ["IN_FLIGHT", "EagerRunner", "GraphRunner", "Runner", "full_precision"]

#: Frames that may be submitted and not yet collected.
IN_FLIGHT = 2
#: Runs before a graph is captured: libraries set themselves up in the first ones.
_WARM_UP = 3

_LOG = logging.getLogger(__name__)

Program = Callable[[Tensor], Tensor]


@contextmanager
def full_precision() -> Iterator[None]:
    """float32 products in float32: rotations of 10 bits would shake."""
    before = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = False
    try:
        yield
    finally:
        torch.backends.cuda.matmul.allow_tf32 = before


class Runner(ABC):
    """Frames in, bytes out, in order; at most IN_FLIGHT at a time. For one thread."""

    @abstractmethod
    def submit(self, inputs: NDArray[np.float32]) -> None:
        """Start a frame; ``inputs`` may be changed afterwards."""

    @abstractmethod
    def collect(self) -> NDArray[np.uint8]:
        """Wait for the oldest frame; valid until IN_FLIGHT more are submitted."""

    @abstractmethod
    def drain(self) -> None:
        """Give up the frames that were not collected."""

    @property
    @abstractmethod
    def seconds(self) -> dict[str, float]:
        """Of the last frame collected: ``draw`` and ``read-back``."""


class EagerRunner(Runner):
    """Runs the program at once, on any device."""

    def __init__(self, program: Program, device: torch.device) -> None:
        self._program = program
        self._device = device
        self._done: deque[NDArray[np.uint8]] = deque()

    @torch.no_grad()
    def submit(self, inputs: NDArray[np.float32]) -> None:
        """See Runner."""
        if len(self._done) == IN_FLIGHT:
            raise RuntimeError("collect() a frame before another is submitted")
        given = torch.from_numpy(inputs.copy()).to(self._device)
        self._done.append(self._program(given).cpu().numpy())

    def collect(self) -> NDArray[np.uint8]:
        """See Runner."""
        return self._done.popleft()

    def drain(self) -> None:
        """See Runner."""
        self._done.clear()

    @property
    def seconds(self) -> dict[str, float]:
        """Nothing is measured."""
        return {}


class _Slot:
    """Memory and marks of a frame in flight."""

    def __init__(self, inputs: Tensor, result: Tensor) -> None:
        self.given = torch.empty(inputs.shape, dtype=inputs.dtype, pin_memory=True)
        self.device = torch.empty_like(result)
        self.host = torch.empty(result.shape, dtype=result.dtype, pin_memory=True)
        self.begun, self.drawn, self.ready = (
            torch.cuda.Event(enable_timing=True) for _ in range(3)
        )


class GraphRunner(Runner):
    """Replays the program as a CUDA graph.

    If the graph cannot be captured, which is logged, the program is run kernel by kernel instead,
    with everything else alike.

    Args:
        program: reads its argument and returns a new tensor; must not make the host wait.
        example: inputs like those to come.
        device: CUDA device.
    """

    def __init__(
        self, program: Program, example: NDArray[np.float32], device: torch.device
    ) -> None:
        self._program = program
        self._device = device
        self._stream = torch.cuda.Stream(device)
        self._copies = torch.cuda.Stream(device)
        self._inputs = torch.from_numpy(example.copy()).to(device)
        self._stream.wait_stream(torch.cuda.current_stream(device))
        with torch.no_grad(), full_precision():
            with torch.cuda.stream(self._stream):
                for _ in range(_WARM_UP):
                    result = program(self._inputs)
            self._stream.synchronize()
            self._graph = self._capture()
        self._slots = [_Slot(self._inputs, result) for _ in range(IN_FLIGHT)]
        torch.cuda.current_stream(device).synchronize()  # the slots' memory is there
        self._free = deque(self._slots)
        self._flying: deque[_Slot] = deque()
        self._last: _Slot | None = None

    def _capture(self) -> torch.cuda.CUDAGraph | None:
        graph = torch.cuda.CUDAGraph()
        try:
            # Other threads of the process may use the device meanwhile.
            with torch.cuda.graph(graph, stream=self._stream, capture_error_mode="thread_local"):
                self._result = self._program(self._inputs)
        except RuntimeError as error:
            _LOG.warning(
                "no CUDA graph, kernels are launched one by one, several times slower: %s",
                str(error).strip().splitlines()[0],
            )
            return None
        return graph

    @property
    def captured(self) -> bool:
        """Whether frames are replayed as a graph."""
        return self._graph is not None

    @torch.no_grad()
    def submit(self, inputs: NDArray[np.float32]) -> None:
        """See Runner. Never waits for the device."""
        if not self._free:
            raise RuntimeError("collect() a frame before another is submitted")
        slot = self._free.popleft()
        slot.given.numpy()[...] = inputs
        with torch.cuda.stream(self._stream):
            slot.begun.record(self._stream)
            self._inputs.copy_(slot.given, non_blocking=True)
            if self._graph is None:
                with full_precision():
                    self._result = self._program(self._inputs)
            else:
                self._graph.replay()
            # The next replay overwrites the graph's own result.
            slot.device.copy_(self._result)
            slot.drawn.record(self._stream)
        with torch.cuda.stream(self._copies):
            self._copies.wait_event(slot.drawn)
            slot.host.copy_(slot.device, non_blocking=True)
            slot.ready.record(self._copies)
        self._flying.append(slot)

    def collect(self) -> NDArray[np.uint8]:
        """See Runner. Waits for the copy of that frame alone."""
        slot = self._flying.popleft()
        slot.ready.synchronize()
        self._free.append(slot)
        self._last = slot
        return slot.host.numpy()

    def drain(self) -> None:
        """See Runner."""
        while self._flying:
            self.collect()

    @property
    def seconds(self) -> dict[str, float]:
        """See Runner; by CUDA events."""
        if self._last is None:
            return {}
        return {
            "draw": self._last.begun.elapsed_time(self._last.drawn) / 1e3,
            "read-back": self._last.drawn.elapsed_time(self._last.ready) / 1e3,
        }
