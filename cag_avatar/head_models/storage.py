"""The head model file: one safetensors file, names and origin as JSON in its header."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from cag_avatar.errors import InputError
from cag_avatar.files import replacing
from cag_avatar.head_models.base import JOINTS, REGIONS, HeadModel

__all__ = ["FORMAT_VERSION", "load_head_model_file", "save_head_model_arrays"]

FORMAT_VERSION = 1
_FORMAT = "cag_avatar-head-model"
_TENSORS = (
    "vertices", "faces", "uv", "face_uv", "identity_basis", "expression_basis", "skinning",
    "neck_pivot", "eye_left", "eye_right", "face_region",
)  # fmt: skip
_HALF = ("identity_basis", "expression_basis")  # millimetres: float16 keeps a micrometre


def save_head_model_arrays(
    path: Path,
    *,
    name: str,
    expression_names: tuple[str, ...],
    metadata: dict[str, str],
    **arrays: NDArray[Any],
) -> None:
    """Write a head model; array names and shapes as in HeadModel (eye_left, eye_right: indices)."""
    tensors = {}
    for key, value in arrays.items():
        if np.issubdtype(value.dtype, np.integer):
            dtype = np.int32
        else:
            dtype = np.float16 if key in _HALF else np.float32  # type: ignore[assignment]
        tensors[key] = np.ascontiguousarray(value.astype(dtype))
    header = {
        "format": _FORMAT,
        "version": FORMAT_VERSION,
        "name": name,
        "expression_names": list(expression_names),
        "joints": list(JOINTS),
        "regions": list(REGIONS),
        "metadata": metadata,
    }
    with replacing(path) as temporary:
        save_file(tensors, temporary, metadata={"cag_avatar": json.dumps(header)})


def load_head_model_file(path: Path) -> HeadModel:
    """Read a head model file. Raises InputError naming the file when it is not one."""
    try:
        with safe_open(path, "pt") as handle:
            header = json.loads((handle.metadata() or {}).get("cag_avatar", "{}"))
            t = {key: handle.get_tensor(key) for key in handle.keys()}  # noqa: SIM118
    except (OSError, SafetensorError, ValueError) as error:
        raise InputError(f"{path}: not a head model file ({error})") from error
    missing = [key for key in _TENSORS if key not in t]
    if (
        not isinstance(header, dict)
        or header.get("format") != _FORMAT
        or header.get("version") != FORMAT_VERSION
    ):
        raise InputError(
            f"{path}: not a head model of version {FORMAT_VERSION}; extract it again with "
            "'cag-avatar extract-head-model'"
        )
    if missing:
        raise InputError(f"{path}: lacks {', '.join(missing)}; extract it again")
    if header["joints"] != list(JOINTS) or header["regions"] != list(REGIONS):
        raise InputError(f"{path}: joints or regions differ from this version's; extract it again")
    faces = t["faces"].long()
    region = t["face_region"].long()
    # numpy's assignment takes the last of several faces; torch's any, another from run to run.
    vertex_region = np.zeros(len(t["vertices"]), np.int64)
    vertex_region[faces.flatten().numpy()] = np.repeat(region.numpy(), 3)
    return HeadModel(
        name=header["name"],
        vertices=t["vertices"],
        faces=faces,
        uv=t["uv"],
        face_uv=t["face_uv"].long(),
        identity_basis=t["identity_basis"].float(),
        expression_basis=t["expression_basis"].float(),
        expression_names=tuple(header["expression_names"]),
        skinning=t["skinning"],
        neck_pivot=t["neck_pivot"],
        eye_vertices=(t["eye_left"].long(), t["eye_right"].long()),
        face_region=region,
        vertex_region=torch.from_numpy(vertex_region),
        metadata=header["metadata"],
    )
