"""Head models: a mesh with identity, expression, joints and named regions.

What needs torch is imported when it is asked for: ``head_models.arkit`` alone is only names.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from cag_avatar.head_models.arkit import ARKIT_INDEX, ARKIT_NAMES

if TYPE_CHECKING:
    from cag_avatar.head_models.base import REGIONS, HeadModel
    from cag_avatar.head_models.flame import FlameHeadModel
    from cag_avatar.head_models.library import (
        head_model_folders,
        head_model_path,
        load_head_model,
    )
    from cag_avatar.head_models.linear import JOINTS, LinearHeadModel

__all__ = [
    "ARKIT_INDEX",
    "ARKIT_NAMES",
    "JOINTS",
    "REGIONS",
    "FlameHeadModel",
    "HeadModel",
    "LinearHeadModel",
    "head_model_folders",
    "head_model_path",
    "load_head_model",
]

_HOMES = {
    "JOINTS": "linear",
    "REGIONS": "base",
    "FlameHeadModel": "flame",
    "HeadModel": "base",
    "LinearHeadModel": "linear",
    "head_model_folders": "library",
    "head_model_path": "library",
    "load_head_model": "library",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
