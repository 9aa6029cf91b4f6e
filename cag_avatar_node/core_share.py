"""How many cores a renderer takes where the estimator runs on the same machine."""

from __future__ import annotations

import os

from cag_avatar.parallel import core_count

__all__ = ["renderer_environment"]

_VARIABLE = "OMP_NUM_THREADS"


def renderer_environment() -> dict[str, str]:
    """Environment variables to add for a renderer beside an estimator: all cores but one.

    Where both want all of them, each waits for the other at times: with a core left latency is
    steadier, though its median may be larger. Empty when the user has chosen a number of threads.
    """
    if os.environ.get(_VARIABLE):
        return {}
    return {_VARIABLE: str(max(1, core_count() - 1))}
