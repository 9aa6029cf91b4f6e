"""The head model file: one safetensors file, kind, names and origin as JSON in its header.

Header fields: ``format`` "cag_avatar-head-model", ``version`` 2, ``kind`` (version 1 had only
"linear"), ``name``, ``expression_names``, ``joints``, ``regions``, ``metadata`` (source, licence).
Tensors are those of the kind's class, but for ``vertex_region``, which follows from the faces'.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file
from torch import Tensor

from cag_avatar.errors import InputError
from cag_avatar.files import replacing

# Importing a kind enters it in HEAD_MODEL_KINDS.
from cag_avatar.head_models import flame, linear  # noqa: F401
from cag_avatar.head_models.base import HEAD_MODEL_KINDS, REGIONS, HeadModel
from cag_avatar.head_models.linear import JOINTS

__all__ = [
    "FORMAT_VERSION",
    "check_head_tensors",
    "head_model_fingerprint",
    "load_head_model_file",
    "save_head_model",
    "save_head_model_arrays",
    "vertex_regions",
]

FORMAT_VERSION = 2
_FORMAT = "cag_avatar-head-model"
_HALF = ("identity_basis", "expression_basis")  # millimetres: float16 keeps a micrometre
#: A person's own, so they say nothing about which model an avatar was made with.
_PERSONAL = ("vertices", "identity_basis")


def save_head_model_arrays(
    path: Path,
    *,
    name: str,
    expression_names: tuple[str, ...],
    metadata: dict[str, str],
    kind: str = "linear",
    joints: tuple[str, ...] = JOINTS,
    half: bool = True,
    **arrays: NDArray[Any],
) -> None:
    """Write a head model; array names and shapes as in the class of the kind.

    ``half`` stores the bases as float16 (for bases of unit-size coefficients in [0, 1]).
    """
    tensors = {}
    for key, value in arrays.items():
        if np.issubdtype(value.dtype, np.integer):
            dtype = np.int32
        else:
            dtype = np.float16 if half and key in _HALF else np.float32  # type: ignore[assignment]
        tensors[key] = np.ascontiguousarray(value.astype(dtype))
    header = {
        "format": _FORMAT,
        "version": FORMAT_VERSION,
        "kind": kind,
        "name": name,
        "expression_names": list(expression_names),
        "joints": list(joints),
        "regions": list(REGIONS),
        "metadata": metadata,
    }
    with replacing(path) as temporary:
        save_file(tensors, temporary, metadata={"cag_avatar": json.dumps(header)})


def save_head_model(path: Path, model: HeadModel, half: bool = False) -> None:
    """Write a head model of any kind; ``half`` as for save_head_model_arrays()."""
    arrays = {k: getattr(model, k).cpu().numpy() for k in model.tensor_shapes}
    del arrays["vertex_region"]
    save_head_model_arrays(
        path,
        name=model.name,
        expression_names=model.expression_names,
        metadata=model.metadata,
        kind=model.kind,
        joints=model.joint_names,
        half=half,
        **arrays,
    )


def load_head_model_file(path: Path) -> HeadModel:
    """Read a head model file. Raises InputError naming the file when it is not one."""
    try:
        with safe_open(path, "pt") as handle:
            header = json.loads((handle.metadata() or {}).get("cag_avatar", "{}"))
            t = {key: handle.get_tensor(key) for key in handle.keys()}  # noqa: SIM118
    except (OSError, SafetensorError, ValueError) as error:
        raise InputError(f"{path}: not a head model file ({error})") from error
    if (
        not isinstance(header, dict)
        or header.get("format") != _FORMAT
        or header.get("version") not in (1, FORMAT_VERSION)
    ):
        raise InputError(
            f"{path}: not a head model of version 1 or {FORMAT_VERSION}; extract it again with "
            "'cag-avatar extract-head-model' or 'cag-avatar import-flame'"
        )
    kind = header.get("kind", "linear")
    if kind not in HEAD_MODEL_KINDS:
        raise InputError(
            f"{path}: a head model of kind '{kind}', this program knows "
            f"{', '.join(sorted(HEAD_MODEL_KINDS))}"
        )
    model_class = HEAD_MODEL_KINDS[kind]
    missing = [key for key in model_class.tensor_shapes if key not in t and key != "vertex_region"]
    if missing:
        raise InputError(f"{path}: lacks {', '.join(missing)}; extract it again")
    names = header["expression_names"]
    indices = model_class.index_bounds
    t = {k: v.long() if k in indices else v.float() for k, v in t.items()}
    t["vertex_region"] = vertex_regions(t["faces"], t["face_region"], len(t["vertices"]))
    model = model_class(
        name=header["name"],
        expression_names=tuple(names),
        metadata=header["metadata"],
        file=Path(path),
        **{key: t[key] for key in model_class.tensor_shapes},
    )
    if header["joints"] != list(model.joint_names) or header["regions"] != list(REGIONS):
        raise InputError(f"{path}: joints or regions differ from this version's; extract it again")
    sizes = {"E": len(names), "J": len(model.joint_names)}
    check_head_tensors(model_class, t, sizes, str(path), "extract it again")
    return model


def vertex_regions(faces: Tensor, face_region: Tensor, vertices: int) -> Tensor:
    """Region of each vertex, [V] int64: that of the last face that uses it."""
    # numpy's assignment takes the last of several faces; torch's any, another from run to run.
    region = np.zeros(vertices, np.int64)
    region[faces.flatten().numpy()] = np.repeat(face_region.numpy(), 3)
    return torch.from_numpy(region)


def check_head_tensors(
    model_class: type[HeadModel],
    tensors: Mapping[str, Tensor],
    sizes: Mapping[str, int],
    where: str,
    remedy: str,
    skip: tuple[str, ...] = (),
) -> None:
    """Check shapes, indices and finiteness of a head model's tensors.

    Args:
        model_class: says which tensors there are.
        tensors: by field name.
        sizes: known sizes by the letters of ``tensor_shapes``; others are taken from the tensors
            and must agree.
        where: file named in errors.
        remedy: what to do, named in errors.
        skip: fields to leave out.

    Raises:
        InputError: a tensor is missing, of another shape, holds NaN or infinity, or an index that
            points at nothing.
    """
    bound = {"regions": len(REGIONS), **sizes}
    for name, shape in model_class.tensor_shapes.items():
        if name in skip:
            continue
        if name not in tensors:
            raise InputError(f"{where}: tensor '{name}' is missing; {remedy}")
        tensor = tensors[name]
        if tensor.ndim == len(shape):
            for side, letter in zip(tensor.shape, shape, strict=True):
                if isinstance(letter, str):
                    bound.setdefault(letter, side)
        expected = [bound.get(side, -1) if isinstance(side, str) else side for side in shape]
        if list(tensor.shape) != expected:
            raise InputError(
                f"{where}: tensor '{name}' has shape {list(tensor.shape)}, expected {expected}; "
                f"{remedy}"
            )
        if name not in model_class.index_bounds and not tensor.is_floating_point():
            raise InputError(f"{where}: tensor '{name}' has dtype {tensor.dtype}, expected floats")
        if tensor.is_floating_point() and not torch.isfinite(tensor).all():
            raise InputError(f"{where}: tensor '{name}' holds NaN or infinity; {remedy}")
    for name, letter in model_class.index_bounds.items():
        if name in skip or not tensors[name].numel():
            continue
        tensor = tensors[name]
        limit = bound[letter]
        if tensor.is_floating_point() or int(tensor.min()) < 0 or int(tensor.max()) >= limit:
            raise InputError(
                f"{where}: tensor '{name}' must hold int32 indices below {limit}; {remedy}"
            )


def head_model_fingerprint(model: HeadModel) -> str:
    """Identifies a head model whoever's rest head it carries: 16 hexadecimal digits."""
    digest = hashlib.sha256(json.dumps([model.kind, *model.expression_names]).encode())
    for name in sorted(model.tensor_shapes):
        if name not in _PERSONAL:
            digest.update(np.ascontiguousarray(getattr(model, name).cpu().numpy()).tobytes())
    return digest.hexdigest()[:16]
