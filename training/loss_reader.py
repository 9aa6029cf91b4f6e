"""Reading the loss of an iteration without making the host wait for a GPU."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["LossReader"]


class LossReader:
    """Losses as numbers; on a GPU each a step late, when it has long been computed.

    A loss that is read at once makes the host wait for the whole step before it may start the next.

    Args:
        device: of the losses.
    """

    def __init__(self, device: torch.device) -> None:
        self._late = device.type == "cuda"
        self._flying: tuple[Tensor, torch.cuda.Event] | None = None

    def read(self, loss: Tensor) -> float:
        """The loss of this step on a CPU, on a GPU that of the step before (the first time, of
        this one)."""
        if not self._late:
            return float(loss.detach())
        before = self._flying
        host = torch.empty((), pin_memory=True)
        host.copy_(loss.detach(), non_blocking=True)
        done = torch.cuda.Event()
        done.record()
        self._flying = (host, done)
        value, ready = before or self._flying
        ready.synchronize()
        return float(value)
