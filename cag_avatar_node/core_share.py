"""How many cores a renderer takes where the estimator runs on the same machine."""

from __future__ import annotations

import os

__all__ = ["renderer_environment"]

_VARIABLE = "OMP_NUM_THREADS"


def renderer_environment() -> dict[str, str]:
    """Environment variables to add for a renderer beside an estimator: all cores but one.

    Where both want all of them, each waits for the other, and every tenth picture is late. Empty
    when the user has chosen a number of threads.
    """
    if os.environ.get(_VARIABLE):
        return {}
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {_VARIABLE: str(max(1, (cores or 1) - 1))}
