"""Where the tensors live."""

from __future__ import annotations

import torch

from cag_avatar.rendering.rasterizer import Rasterizer

__all__ = ["device_of"]


def device_of(rasterizer: Rasterizer) -> torch.device:
    """The device whose tensors a rasteriser takes."""
    return torch.device("cuda" if rasterizer.name == "cuda" else "cpu")
