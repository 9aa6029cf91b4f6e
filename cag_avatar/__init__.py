"""Animatable 3D Gaussian head avatars driven by expression codes."""

from __future__ import annotations

import os

# numba, torch and the compiled code each bring their own OpenMP threads. By default a pool that has
# finished spins on its cores for milliseconds, just when another one needs them; without any
# spinning each of the many short stages of a training iteration waits to be woken. So: a
# moment of spinning (GNU's OpenMP; others none). Takes effect before torch is loaded.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
os.environ.setdefault("GOMP_SPINCOUNT", "5000")

__version__ = "0.1.0"

__all__ = ["__version__"]
