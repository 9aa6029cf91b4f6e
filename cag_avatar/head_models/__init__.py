"""Head models: a mesh with identity, expression, joints and named regions."""

from __future__ import annotations

from cag_avatar.head_models.arkit import ARKIT_INDEX, ARKIT_NAMES
from cag_avatar.head_models.base import REGIONS, HeadModel
from cag_avatar.head_models.flame import FlameHeadModel
from cag_avatar.head_models.library import head_model_folders, head_model_path, load_head_model
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
