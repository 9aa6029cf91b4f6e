"""One frame of a dataset, as tensors."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from cag_avatar_training.parts import PARSING_LABELS
from numpy.typing import NDArray
from torch import Tensor

from cag_avatar.camera import PinholeCamera

__all__ = ["Frame", "FrameArrays"]


@dataclass(frozen=True)
class FrameArrays:
    """Planes of one frame at one resolution, uint8."""

    image: NDArray[np.uint8]
    """RGB, [H, W, 3]."""
    alpha: NDArray[np.uint8]
    """Matte, 255 = person, [H, W]."""
    mouth: NDArray[np.uint8]
    """Lips, mouth interior and teeth, 255 = inside, [H, W]."""
    parsing: NDArray[np.uint8]
    """Part labels, indices into PARSING_LABELS, [H, W]."""

    @property
    def nbytes(self) -> int:
        """Bytes of all planes."""
        planes = (self.image, self.alpha, self.mouth, self.parsing)
        return sum(plane.nbytes for plane in planes)


class Frame:
    """Images of one frame at one resolution.

    Args:
        arrays: its planes.
        camera: of that resolution.
        device: of the tensors.
    """

    def __init__(
        self, arrays: FrameArrays, camera: PinholeCamera, device: torch.device | None = None
    ) -> None:
        self._arrays = arrays
        self._device = device
        self.camera = camera

    def _on_device(self, plane: NDArray[np.uint8]) -> Tensor:
        return torch.from_numpy(plane).to(self._device)

    def _tensor(self, plane: NDArray[np.uint8]) -> Tensor:
        return self._on_device(plane).float() / 255

    @property
    def alpha(self) -> Tensor:
        """Matte [H, W] in [0, 1]."""
        return self._tensor(self._arrays.alpha)

    @property
    def mouth(self) -> Tensor:
        """Mask of lips, mouth interior and teeth, [H, W] in [0, 1]."""
        return self._tensor(self._arrays.mouth)

    @property
    def parsing(self) -> Tensor:
        """Part labels, indices into PARSING_LABELS, [H, W] uint8."""
        return self._on_device(self._arrays.parsing)

    def mask(self, *names: str) -> Tensor:
        """Where any of the named parts is, [H, W] bool; names of PARSING_LABELS.

        Raises:
            KeyError: no such part.
        """
        parsing = self.parsing
        found = torch.zeros(parsing.shape, dtype=torch.bool, device=parsing.device)
        for name in names:
            if name not in PARSING_LABELS:
                raise KeyError(f"no part '{name}'; choose from {', '.join(PARSING_LABELS)}")
            found |= parsing == PARSING_LABELS.index(name)
        return found

    @property
    def nbytes(self) -> int:
        """Bytes of its planes."""
        return self._arrays.nbytes

    def target(self, background: Tensor) -> Tensor:
        """The image over a background [3]: rgb * alpha + background * (1 - alpha), [H, W, 3]."""
        alpha = self.alpha[..., None]
        return self._tensor(self._arrays.image) * alpha + background * (1 - alpha)
