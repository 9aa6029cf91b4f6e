"""Animatable 3D Gaussian head avatars driven by expression codes."""

from __future__ import annotations

import os

# numba and torch each bring their own OpenMP threads. By default a pool that has finished spins on
# its cores for a while, just when the other one needs them. Takes effect before torch is loaded.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

__version__ = "0.1.0"

__all__ = ["__version__"]
