"""The avatar file, ``*.cag``.

One safetensors file. Its metadata holds ``format`` = "cag_avatar", ``version`` and ``avatar``, a
JSON object with ``config`` (AvatarConfig), ``head_model``, ``code_layout`` ("ARKIT_52"),
``expression_names``, ``sizes`` and ``record`` (CaptureRecord: camera, neutral poses, ranges,
training protocol, metrics). Its tensors are those of Avatar.state_dict(); the expression basis is
stored as float16 (its offsets are centimetres, so the rounding is below 10 micrometres), indices
as int32. Nothing else is needed to load it: no head model file, no pickle.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from cag_avatar.avatar.config import AvatarConfig
from cag_avatar.avatar.model import Avatar
from cag_avatar.avatar.record import CaptureRecord
from cag_avatar.errors import InputError
from cag_avatar.files import replacing
from cag_avatar.gaussians.uv_sampling import SurfaceSamples
from cag_avatar.head_models.arkit import ARKIT_NAMES
from cag_avatar.head_models.base import JOINTS, REGIONS, HeadModel

__all__ = ["FORMAT", "FORMAT_VERSION", "load_avatar", "save_avatar"]

FORMAT = "cag_avatar"
FORMAT_VERSION = 1

_LAYOUT = "ARKIT_52"
_HALF = frozenset({"expression_basis"})
#: Index tensors and the size that bounds their entries.
_INDICES = {
    "faces": "vertices",
    "face_uv": "uv",
    "face_region": "regions",
    "vertex_region": "regions",
    "eye_left": "vertices",
    "eye_right": "vertices",
    "sample_face": "faces",
    "sample_region": "regions",
}
_SIZES = ("vertices", "faces", "uv", "expressions", "gaussians", "eye_left", "eye_right")
_REMAKE = "make it again with 'cag-avatar train'"


def save_avatar(path: Path | str, avatar: Avatar) -> None:
    """Write an avatar to ``path``; a file already there is replaced once the new one is whole.

    Raises:
        InputError: the avatar has no record, or a tensor holds NaN or infinity.
    """
    if avatar.record is None:
        raise InputError(f"{path}: an avatar without a capture record cannot be saved, set .record")
    tensors = {}
    for name, tensor in avatar.state_dict().items():
        if name in _INDICES:
            value = tensor.to(torch.int32)
        else:
            if not torch.isfinite(tensor).all():
                raise InputError(f"{path}: not written, tensor '{name}' holds NaN or infinity")
            value = tensor.to(torch.float16 if name in _HALF else torch.float32)
        tensors[name] = value.detach().cpu().contiguous()
    body = {
        "config": avatar.config.to_dict(),
        "head_model": avatar.head_name,
        "code_layout": _LAYOUT,
        "expression_names": list(avatar.expression_names),
        "sizes": _sizes(avatar),
        "record": avatar.record.to_dict(),
    }
    metadata = {
        "format": FORMAT,
        "version": str(FORMAT_VERSION),
        "avatar": json.dumps(body, allow_nan=False),
    }
    with replacing(path) as temporary:
        save_file(tensors, temporary, metadata=metadata)


def _sizes(avatar: Avatar) -> dict[str, int]:
    return {
        "vertices": len(avatar.rest),
        "faces": len(avatar.faces),
        "uv": len(avatar.uv),
        "expressions": len(avatar.expression_basis),
        "gaussians": avatar.num_gaussians,
        "eye_left": len(avatar.eye_left),
        "eye_right": len(avatar.eye_right),
    }


def load_avatar(path: Path | str) -> Avatar:
    """Read an avatar file.

    Raises:
        InputError: one line naming the file, what is wrong with it and what to do: not there, not
            an
            avatar, truncated, another version, a missing, extra or misshapen tensor, NaN.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: no such file; {_REMAKE}")
    try:
        with safe_open(path, "pt") as handle:
            metadata = handle.metadata() or {}
            if metadata.get("format") != FORMAT:
                raise InputError(
                    f"{path}: not an avatar file; pass a .cag made by 'cag-avatar train'"
                )
            if metadata.get("version") != str(FORMAT_VERSION):
                raise InputError(
                    f"{path}: format version {metadata.get('version')}, this program reads "
                    f"{FORMAT_VERSION}; {_REMAKE}"
                )
            body = _body(path, metadata)
            tensors = {name: handle.get_tensor(name) for name in handle.keys()}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise InputError(
            f"{path}: not an avatar file, or truncated ({error}); {_REMAKE}"
        ) from error
    config, record, sizes = _parse(path, body)
    _check_head(path, tensors, sizes)
    avatar = _build(path, body, config, record, tensors)
    expected = avatar.state_dict()
    for name in sorted(expected.keys() - tensors.keys()):
        raise InputError(f"{path}: tensor '{name}' is missing; {_REMAKE}")
    for name in sorted(tensors.keys() - expected.keys()):
        raise InputError(f"{path}: unexpected tensor '{name}'; {_REMAKE}")
    for name, tensor in tensors.items():
        if tensor.shape != expected[name].shape:
            raise InputError(
                f"{path}: tensor '{name}' has shape {list(tensor.shape)}, expected "
                f"{list(expected[name].shape)}; {_REMAKE}"
            )
        _check_values(path, name, tensor)
    avatar.load_state_dict({name: t.to(expected[name].dtype) for name, t in tensors.items()})
    return avatar.eval().requires_grad_(False)


def _body(path: Path, metadata: dict[str, str]) -> dict[str, Any]:
    try:
        body = json.loads(metadata["avatar"])
    except (KeyError, ValueError) as error:
        raise InputError(f"{path}: field 'avatar' of the header is not JSON; {_REMAKE}") from error
    for name in ("config", "head_model", "expression_names", "sizes", "record"):
        if not isinstance(body, dict) or name not in body:
            raise InputError(f"{path}: field '{name}' of the header is missing; {_REMAKE}")
    if body.get("code_layout") != _LAYOUT:
        raise InputError(
            f"{path}: code layout '{body.get('code_layout')}' is unknown, expected {_LAYOUT}"
        )
    if tuple(body["expression_names"]) != ARKIT_NAMES:
        raise InputError(f"{path}: field 'expression_names' is not the 52 ARKit names in order")
    return body


def _parse(path: Path, body: dict[str, Any]) -> tuple[AvatarConfig, CaptureRecord, dict[str, int]]:
    missing = set(AvatarConfig().to_dict()) - set(body["config"])
    if missing:
        raise InputError(f"{path}: config: field '{sorted(missing)[0]}' is missing; {_REMAKE}")
    config = AvatarConfig.from_dict(body["config"], f"{path}: config")
    record = CaptureRecord.from_dict(body["record"], str(path))
    sizes = body["sizes"]
    for name in _SIZES:
        if not isinstance(sizes.get(name), int) or sizes[name] < 1:
            raise InputError(f"{path}: field 'sizes.{name}' must be a positive integer")
    for name in ("code_min", "code_max"):
        if len(getattr(record, name)) != sizes["expressions"]:
            raise InputError(f"{path}: field '{name}' must hold {sizes['expressions']} numbers")
    return config, record, {**sizes, "regions": len(REGIONS)}


def _check_head(path: Path, tensors: dict[str, Tensor], sizes: dict[str, int]) -> None:
    """Check what building the avatar relies on: the mesh and the samples."""
    v, f, n = sizes["vertices"], sizes["faces"], sizes["gaussians"]
    shapes = {
        "rest": (v, 3),
        "faces": (f, 3),
        "uv": (sizes["uv"], 2),
        "face_uv": (f, 3),
        "expression_basis": (sizes["expressions"], v, 3),
        "skinning": (v, len(JOINTS)),
        "neck_pivot": (3,),
        "face_region": (f,),
        "vertex_region": (v,),
        "eye_left": (sizes["eye_left"],),
        "eye_right": (sizes["eye_right"],),
        "sample_face": (n,),
        "sample_barycentric": (n, 3),
        "sample_uv": (n, 2),
        "sample_region": (n,),
    }
    for name, shape in shapes.items():
        if name not in tensors:
            raise InputError(f"{path}: tensor '{name}' is missing; {_REMAKE}")
        tensor = tensors[name]
        if tuple(tensor.shape) != shape:
            raise InputError(
                f"{path}: tensor '{name}' has shape {list(tensor.shape)}, expected {list(shape)}; "
                f"{_REMAKE}"
            )
        _check_values(path, name, tensor)
        if name in _INDICES:
            bound = sizes[_INDICES[name]]
            if tensor.dtype != torch.int32 or int(tensor.min()) < 0 or int(tensor.max()) >= bound:
                raise InputError(
                    f"{path}: tensor '{name}' must hold int32 indices below {bound}; {_REMAKE}"
                )


def _check_values(path: Path, name: str, tensor: Tensor) -> None:
    if name in _INDICES:
        return
    if not tensor.is_floating_point():
        raise InputError(f"{path}: tensor '{name}' has dtype {tensor.dtype}, expected floats")
    if not torch.isfinite(tensor).all():
        raise InputError(f"{path}: tensor '{name}' holds NaN or infinity; {_REMAKE}")


def _build(
    path: Path,
    body: dict[str, Any],
    config: AvatarConfig,
    record: CaptureRecord,
    tensors: dict[str, Tensor],
) -> Avatar:
    t = {
        name: tensor.long() if name in _INDICES else tensor.float()
        for name, tensor in tensors.items()
    }
    head = HeadModel(
        name=str(body["head_model"]),
        vertices=t["rest"],
        faces=t["faces"],
        uv=t["uv"],
        face_uv=t["face_uv"],
        identity_basis=t["rest"].new_zeros(0, *t["rest"].shape),
        expression_basis=t["expression_basis"],
        expression_names=tuple(body["expression_names"]),
        skinning=t["skinning"],
        neck_pivot=t["neck_pivot"],
        eye_vertices=(t["eye_left"], t["eye_right"]),
        face_region=t["face_region"],
        vertex_region=t["vertex_region"],
    )
    samples = SurfaceSamples(
        t["sample_face"], t["sample_barycentric"], t["sample_uv"], t["sample_region"]
    )
    try:
        return Avatar(config, head, t["rest"], samples, record)
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
