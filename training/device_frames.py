"""The frames of a dataset where they are trained on."""

from __future__ import annotations

import logging

import numpy as np
import torch
from cag_avatar_training.dataset import Dataset
from cag_avatar_training.frame import Frame
from numpy.typing import NDArray
from torch import Tensor

__all__ = ["DeviceFrames"]

#: Share of the device's free memory that frames may take.
_SHARE = 0.5

_LOG = logging.getLogger(__name__)


class _KeptFrame(Frame):
    """A frame whose planes are copied to the device once, as bytes."""

    def __init__(self, frame: Frame) -> None:
        super().__init__(frame._arrays, frame.camera, frame._device)
        self._planes: dict[int, Tensor] = {}

    def _on_device(self, plane: NDArray[np.uint8]) -> Tensor:
        if id(plane) not in self._planes:  # the arrays are held by this frame
            self._planes[id(plane)] = super()._on_device(plane)
        return self._planes[id(plane)]


class DeviceFrames:
    """Frames of a dataset by number and size; on a GPU those that were asked for stay there.

    Every copy from ordinary memory makes the host wait for the GPU.

    Args:
        dataset: read on demand.
        device: of the tensors.
        room: bytes that may be kept; None is half of what the device has free, and nothing on a
            CPU.
    """

    def __init__(self, dataset: Dataset, device: torch.device, room: int | None = None) -> None:
        self._dataset = dataset
        self._device = device
        if room is None:
            on_gpu = device.type == "cuda"
            room = int(_SHARE * torch.cuda.mem_get_info(device)[0]) if on_gpu else 0
        self._room = room
        self._told = room == 0
        self._kept: dict[tuple[int, int], Frame] = {}

    def frame(self, index: int, size: int) -> Frame:
        """As Dataset.frame()."""
        key = (index, size)
        frame = self._kept.get(key)
        if frame is not None:
            return frame
        frame = self._dataset.frame(index, size, self._device)
        if frame.nbytes > self._room:
            if not self._told:
                _LOG.warning("no room on the GPU for all frames: some are copied every time")
                self._told = True
            return frame
        self._room -= frame.nbytes
        self._kept[key] = _KeptFrame(frame)
        return self._kept[key]
