"""LPIPS (Zhang et al. 2018), where its package is installed: a figure others report, not a loss."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import lru_cache

import torch
from torch import Tensor

__all__ = ["load_lpips"]

_log = logging.getLogger(__name__)


@lru_cache(maxsize=2)
def load_lpips(device: str = "cpu") -> Callable[[Tensor, Tensor], float] | None:
    """Distance (AlexNet) of two images [H, W, 3] in [0, 1] on a device.

    None where the ``lpips`` package is absent, or cannot get the network's weights, which it
    downloads on first use; the log says which.
    """
    try:
        import lpips
    except ImportError as error:
        _log.info("LPIPS is not measured: %s", error)
        return None
    try:
        network = lpips.LPIPS(net="alex", verbose=False).to(device).eval()
    except OSError as error:  # urllib's errors are among them
        _log.warning("LPIPS is not measured: its weights cannot be loaded (%s)", error)
        return None

    def distance(image: Tensor, target: Tensor) -> float:
        pair = (x.permute(2, 0, 1)[None] * 2 - 1 for x in (image, target))
        with torch.inference_mode():
            return float(network(*pair))

    return distance
