"""Whether this CPU multiplies bfloat16 matrices faster than float32."""

from __future__ import annotations

import logging
import time
from functools import lru_cache

import torch

__all__ = ["fastest_dtype"]

_log = logging.getLogger(__name__)
#: bfloat16 must win by this factor to be worth its rounding.
_MARGIN = 1.3


@lru_cache(maxsize=2)
def fastest_dtype(device: str = "cpu") -> torch.dtype:
    """bfloat16 where a measurement (a few ms, once) shows that it pays, else float32; logged.

    On anything but a CPU it is float32: there the network is not what takes the time.

    CPUs without native bfloat16 products emulate them several times slower, so asking for the
    instruction set would not do.
    """
    if device != "cpu":
        return torch.float32
    factors = {
        dtype: (torch.ones(4096, 128, dtype=dtype), torch.ones(128, 128, dtype=dtype))
        for dtype in (torch.float32, torch.bfloat16)
    }
    times = dict.fromkeys(factors, float("inf"))
    with torch.inference_mode():
        # In turns, and the best of many: other programs must not decide.
        for _ in range(20):
            for dtype, (a, b) in factors.items():
                start = time.perf_counter()
                a @ b
                times[dtype] = min(times[dtype], time.perf_counter() - start)
    ratio = times[torch.float32] / times[torch.bfloat16]
    chosen = torch.bfloat16 if ratio > _MARGIN else torch.float32
    _log.info("offset network in %s (bfloat16 is %.1f x as fast here)", chosen, ratio)
    return chosen
