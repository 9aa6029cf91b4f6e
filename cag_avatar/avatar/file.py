"""The avatar file, ``*.cag``.

One safetensors file. Its metadata holds ``format`` = "cag_avatar", ``version`` and ``avatar``, a
JSON object with ``config`` (AvatarConfig), ``head_model``, ``head_kind``, ``head_embedded``,
``head_fingerprint``, ``code_layout`` ("ARKIT_52", or "NAMED" for other coefficients),
``expression_names``, ``sizes`` and ``record`` (CaptureRecord: camera, neutral poses, ranges,
training protocol, metrics, distribution of the codes) and, where they are there, ``regressor`` and
``live_basis`` (their protocols). Its tensors are those of Avatar.state_dict(), ``regressor.*``
(code_regressor.py: an ONNX graph as bytes, uint8, and landmarks) and ``live.*`` (offset_basis.py);
the expression basis is stored as float16 (its offsets are centimetres, so the rounding is below 10
micrometres), indices as int32. Nothing else is needed to load it, no head model file, no pickle;
unless its head model may not be passed on (FLAME): then the file holds the model's name and
fingerprint, and the model's own file must be there (see ``head_models/library.py``).
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from numpy.typing import NDArray
from safetensors.torch import save_file
from torch import Tensor

from cag_avatar.avatar.config import AvatarConfig
from cag_avatar.avatar.file_header import (
    FORMAT,
    FORMAT_VERSION,
    REMAKE,
    code_layout,
    opened,
    protocol_of,
)
from cag_avatar.avatar.model import Avatar
from cag_avatar.avatar.offset_basis import OffsetBasis
from cag_avatar.avatar.record import CaptureRecord
from cag_avatar.avatar.regressor_file import REGRESSOR, regressor_of
from cag_avatar.errors import InputError
from cag_avatar.files import replacing
from cag_avatar.gaussians.uv_sampling import SurfaceSamples
from cag_avatar.head_models.base import HEAD_MODEL_KINDS, REGIONS, HeadModel
from cag_avatar.head_models.library import load_head_model
from cag_avatar.head_models.storage import check_head_tensors, head_model_fingerprint
from cag_avatar.tracking.code_regressor import CodeRegressor

__all__ = ["load_avatar", "save_avatar"]

_HALF = frozenset({"expression_basis", "local.weight"})
#: Prefix of the tensors of the live basis.
_LIVE = "live"
#: Index tensors of the samples and the size that bounds their entries.
_INDICES = {"sample_face": "faces", "sample_region": "regions"}
_SIZES = ("vertices", "faces", "uv", "expressions", "gaussians", "eye_left", "eye_right")
#: Letters of HeadModel.tensor_shapes for sizes of the file.
_LETTERS = {"V": "vertices", "F": "faces", "U": "uv", "L": "eye_left", "R": "eye_right"}
#: What settings were before files named them.
_BEFORE = {"attention": "softmax", "local_size": 0}


def save_avatar(path: Path | str, avatar: Avatar) -> None:
    """Write an avatar to ``path``; a file already there is replaced once the new one is whole.

    Raises:
        InputError: the avatar has no record, or a tensor holds NaN or infinity.
    """
    if avatar.record is None:
        raise InputError(f"{path}: an avatar without a capture record cannot be saved, set .record")
    tensors = {}
    for name, tensor in avatar.state_dict().items():
        if not tensor.is_floating_point():
            value = tensor.to(torch.int32)
        else:
            if not torch.isfinite(tensor).all():
                raise InputError(f"{path}: not written, tensor '{name}' holds NaN or infinity")
            value = tensor.to(torch.float16 if name in _HALF else torch.float32)
        tensors[name] = value.detach().cpu().contiguous()
    body: dict[str, Any] = {
        "config": avatar.config.to_dict(),
        "head_model": avatar.head_name,
        "head_kind": avatar.head.kind,
        "head_embedded": avatar.head.embeddable,
        "head_fingerprint": head_model_fingerprint(avatar.head),
        "code_layout": code_layout(avatar.expression_names),
        "expression_names": list(avatar.expression_names),
        "sizes": _sizes(avatar),
        "record": avatar.record.to_dict(),
    }
    regressor = avatar.record.regressor
    if regressor is not None:
        body["regressor"] = regressor.protocol
        for name, array in regressor.tensors().items():
            tensors[f"{REGRESSOR}.{name}"] = torch.from_numpy(array)
    if avatar.live_basis is not None:
        body["live_basis"] = avatar.live_basis.protocol
        for name, array in avatar.live_basis.tensors().items():
            tensors[f"{_LIVE}.{name}"] = torch.from_numpy(array)
    metadata = {
        "format": FORMAT,
        "version": str(FORMAT_VERSION),
        "avatar": json.dumps(body, allow_nan=False),
    }
    with replacing(path) as temporary:
        save_file(tensors, temporary, metadata=metadata)


def _sizes(avatar: Avatar) -> dict[str, int]:
    head = avatar.head
    return {
        "vertices": len(head.vertices),
        "faces": len(head.faces),
        "uv": len(head.uv),
        "expressions": head.num_expression,
        "gaussians": avatar.num_gaussians,
        "eye_left": len(head.eye_left),
        "eye_right": len(head.eye_right),
    }


def load_avatar(path: Path | str) -> Avatar:
    """Read an avatar file.

    Raises:
        InputError: one line naming the file, what is wrong with it and what to do: not there, not
            an avatar, truncated, another version, a missing, extra or misshapen tensor, NaN; or its
            head model is not in the file and not installed, or is another version.
    """
    path = Path(path)
    with opened(path, "pt") as (handle, body):
        tensors = {name: handle.get_tensor(name) for name in handle.keys()}  # noqa: SIM118
    config, record, sizes = _parse(path, body)
    record = replace(record, regressor=_regressor(path, body, tensors))
    live_basis = _live_basis(path, body, tensors)
    _check_samples(path, tensors, sizes)
    head = _head(path, body, sizes, tensors)
    avatar = _build(path, head, config, record, tensors)
    expected = avatar.state_dict()
    for name in sorted(expected.keys() - tensors.keys()):
        raise InputError(f"{path}: tensor '{name}' is missing; {REMAKE}")
    for name in sorted(tensors.keys() - expected.keys()):
        raise InputError(f"{path}: unexpected tensor '{name}'; {REMAKE}")
    for name, tensor in tensors.items():
        if tensor.shape != expected[name].shape:
            raise InputError(
                f"{path}: tensor '{name}' has shape {list(tensor.shape)}, expected "
                f"{list(expected[name].shape)}; {REMAKE}"
            )
        if expected[name].is_floating_point():
            _check_values(path, name, tensor)
    avatar.load_state_dict({name: t.to(expected[name].dtype) for name, t in tensors.items()})
    avatar.live_basis = live_basis
    return avatar.eval().requires_grad_(False)


def _regressor(
    path: Path, body: dict[str, Any], tensors: dict[str, Tensor]
) -> CodeRegressor | None:
    """Take the regressor's tensors out of ``tensors``, if there are any."""
    return regressor_of(path, body, _taken(REGRESSOR, tensors))


def _taken(prefix: str, tensors: dict[str, Tensor]) -> dict[str, NDArray[Any]]:
    """Take the tensors "prefix.*" out of ``tensors``."""
    start = prefix + "."
    names = [name for name in tensors if name.startswith(start)]
    return {name.removeprefix(start): tensors.pop(name).numpy() for name in names}


def _live_basis(path: Path, body: dict[str, Any], tensors: dict[str, Tensor]) -> OffsetBasis | None:
    """Take the live basis's tensors out of ``tensors``, if there are any."""
    arrays = _taken(_LIVE, tensors)
    if not arrays:
        return None
    gaussians = body["sizes"].get("gaussians", 0)
    return OffsetBasis.of_tensors(arrays, gaussians, protocol_of(body, "live_basis"), str(path))


def _parse(path: Path, body: dict[str, Any]) -> tuple[AvatarConfig, CaptureRecord, dict[str, int]]:
    values = {**_BEFORE, **body["config"]} if isinstance(body["config"], dict) else {}
    missing = set(AvatarConfig().to_dict()) - set(values)
    if missing:
        raise InputError(f"{path}: config: field '{sorted(missing)[0]}' is missing; {REMAKE}")
    config = AvatarConfig.from_dict(values, f"{path}: config")
    record = CaptureRecord.from_dict(body["record"], str(path))
    sizes = body["sizes"]
    for name in _SIZES:
        least = 0 if name.startswith("eye") else 1
        if not isinstance(sizes.get(name), int) or sizes[name] < least:
            raise InputError(f"{path}: field 'sizes.{name}' must be a positive integer")
    if sizes["expressions"] != len(body["expression_names"]):
        raise InputError(f"{path}: field 'sizes.expressions' differs from 'expression_names'")
    for name in ("code_min", "code_max"):
        if len(getattr(record, name)) != sizes["expressions"]:
            raise InputError(f"{path}: field '{name}' must hold {sizes['expressions']} numbers")
    return config, record, {**sizes, "regions": len(REGIONS)}


def _check_samples(path: Path, tensors: dict[str, Tensor], sizes: dict[str, int]) -> None:
    """Check what building the avatar relies on, the head model aside."""
    n = sizes["gaussians"]
    shapes = {
        "rest": (sizes["vertices"], 3),
        "sample_face": (n,),
        "sample_barycentric": (n, 3),
        "sample_uv": (n, 2),
        "sample_region": (n,),
    }
    for name, shape in shapes.items():
        if name not in tensors:
            raise InputError(f"{path}: tensor '{name}' is missing; {REMAKE}")
        tensor = tensors[name]
        if tuple(tensor.shape) != shape:
            raise InputError(
                f"{path}: tensor '{name}' has shape {list(tensor.shape)}, expected {list(shape)}; "
                f"{REMAKE}"
            )
        if name in _INDICES:
            bound = sizes[_INDICES[name]]
            if tensor.dtype != torch.int32 or int(tensor.min()) < 0 or int(tensor.max()) >= bound:
                raise InputError(
                    f"{path}: tensor '{name}' must hold int32 indices below {bound}; {REMAKE}"
                )
        else:
            _check_values(path, name, tensor)


def _check_values(path: Path, name: str, tensor: Tensor) -> None:
    if not tensor.is_floating_point():
        raise InputError(f"{path}: tensor '{name}' has dtype {tensor.dtype}, expected floats")
    if not torch.isfinite(tensor).all():
        raise InputError(f"{path}: tensor '{name}' holds NaN or infinity; {REMAKE}")


def _head(
    path: Path, body: dict[str, Any], sizes: dict[str, int], tensors: dict[str, Tensor]
) -> HeadModel:
    """The head model: from the file's own tensors, or by its name."""
    name, names = str(body["head_model"]), tuple(body["expression_names"])
    if not body.get("head_embedded", True):
        try:
            head = load_head_model(name)
        except InputError as error:
            raise InputError(f"{path}: made with another head model: {error}") from error
        if head_model_fingerprint(head) != body.get("head_fingerprint"):
            raise InputError(
                f"{path}: made with another version of head model '{name}' than {head.file}; "
                "install that version, or train again"
            )
        return head
    kind = str(body.get("head_kind", "linear"))
    if kind not in HEAD_MODEL_KINDS:
        raise InputError(
            f"{path}: field 'head_kind' is '{kind}', this program knows "
            f"{', '.join(sorted(HEAD_MODEL_KINDS))}"
        )
    model_class = HEAD_MODEL_KINDS[kind]
    own: dict[str, Any] = {
        key: tensors[key].float() if tensors[key].is_floating_point() else tensors[key].long()
        for key in model_class.tensor_shapes
        if key in tensors
    }
    known = {letter: sizes[size] for letter, size in _LETTERS.items()} | {"E": len(names)}
    check_head_tensors(
        model_class, own, known, str(path), REMAKE, skip=("vertices", "identity_basis")
    )
    rest = tensors["rest"].float()
    head = model_class(
        name=name,
        expression_names=names,
        vertices=rest,
        identity_basis=rest.new_zeros(0, *rest.shape),
        **own,
    )
    if head.skinning.shape[1] != len(head.joint_names):
        raise InputError(f"{path}: tensor 'skinning' is not for {len(head.joint_names)} joints")
    return head


def _build(
    path: Path,
    head: HeadModel,
    config: AvatarConfig,
    record: CaptureRecord,
    tensors: dict[str, Tensor],
) -> Avatar:
    samples = SurfaceSamples(
        tensors["sample_face"].long(),
        tensors["sample_barycentric"].float(),
        tensors["sample_uv"].float(),
        tensors["sample_region"].long(),
    )
    try:
        return Avatar(config, head, tensors["rest"].float(), samples, record)
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
