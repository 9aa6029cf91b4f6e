"""How compiled loops share the cores."""

from __future__ import annotations

import os
import threading

__all__ = ["core_count", "kernel_launch", "thread_count"]

#: Hold it around every parallel kernel: numba's workqueue threading layer ends the process if two
#: threads launch at once.
kernel_launch = threading.Lock()


def thread_count() -> int:
    """Threads to use: the smaller of numba's and torch's settings."""
    import numba
    import torch

    return max(1, min(numba.get_num_threads(), torch.get_num_threads()))


def core_count() -> int:
    """Cores of this process: OMP_NUM_THREADS, else those that it may run on."""
    wanted = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0]
    if wanted.isdecimal() and int(wanted) > 0:
        return int(wanted)
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
