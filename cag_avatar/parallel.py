"""How compiled loops share the cores."""

from __future__ import annotations

import threading

__all__ = ["kernel_launch", "thread_count"]

#: Hold it around every parallel kernel: numba's workqueue threading layer ends the process if two
#: threads launch at once.
kernel_launch = threading.Lock()


def thread_count() -> int:
    """Threads to use: the smaller of numba's and torch's settings."""
    import numba
    import torch

    return max(1, min(numba.get_num_threads(), torch.get_num_threads()))
