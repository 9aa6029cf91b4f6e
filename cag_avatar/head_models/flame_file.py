"""Reads the FLAME files that a user brings: FLAME 2020, 2023 and 2023 Open, ``.pkl`` or ``.npz``.

They come from https://flame.is.tue.mpg.de after registration; 2023 Open may be used under
CC-BY-4.0, the others for research only. Nothing of them is part of this package.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from cag_avatar.errors import InputError
from cag_avatar.head_models.base import REGIONS
from cag_avatar.head_models.flame import FlameHeadModel, flame_code_names
from cag_avatar.head_models.flame_regions import flame_regions
from cag_avatar.head_models.restricted_pickle import as_array, load_arrays
from cag_avatar.head_models.storage import vertex_regions
from cag_avatar.head_models.unwrapping import unwrap

__all__ = ["FlameExtras", "load_flame"]

_LOG = logging.getLogger(__name__)
Array = NDArray[np.float64]
Index = NDArray[np.int64]

_NUM_SHAPE = 300
#: Parents of root, neck, jaw and the two eyes; the root's entry is any number.
_PARENTS = (0, 1, 1, 1)
#: Parts of the atlas that is made where a file has no texture coordinates, and their scale.
_MAGNIFICATION = {"skin": 1.0, "face": 2.2, "eye_left": 1.6, "eye_right": 1.6, "trunk": 0.55}
_PARTS = tuple(_MAGNIFICATION)
_PART_OF = {
    "face_skin": "face", "lips": "face", "eye_left": "eye_left", "eye_right": "eye_right",
    "neck": "trunk", "shoulders": "trunk",
}  # fmt: skip
_KEYS = (
    "v_template", "f", "shapedirs", "posedirs", "J_regressor", "weights", "kintree_table",
)  # fmt: skip


@dataclass(frozen=True)
class FlameExtras:
    """Files beside the model that it does without."""

    left_eyelid: Path | None = None
    """metrical-tracker's ``l_eyelid.npy``: offsets of the closed left lid, [V, 3]."""
    right_eyelid: Path | None = None
    """metrical-tracker's ``r_eyelid.npy``."""
    template: Path | None = None
    """``head_template.obj``, for its texture coordinates; without them an atlas is made."""
    masks: Path | None = None
    """``FLAME_masks.pkl``, for exact regions; without them lips, ears and scalp are guessed."""


def load_flame(
    path: Path, name: str | None = None, extras: FlameExtras | None = None
) -> FlameHeadModel:
    """Read a FLAME model.

    Args:
        path: the ``.pkl`` or ``.npz``. A pickle is read as data: nothing in it is run. Beside
            FLAME's own entries, ``l_eyelid`` and ``r_eyelid`` [V, 3], ``vt`` [U, 2] and ``ft``
            [F, 3] are used if they are there.
        name: of the head model; by default the file's, in small letters.
        extras: files beside it; they win over entries.

    Returns:
        The model in canonical space: identity 300, expression 100, code 120.

    Raises:
        InputError: a file is not there, is refused, or does not hold FLAME.
    """
    path, extras = Path(path), extras or FlameExtras()
    held = load_arrays(path)
    missing = [key for key in _KEYS if key not in held]
    if missing:
        raise InputError(f"{path}: not a FLAME model, lacks {', '.join(missing)}")
    arrays: dict[str, NDArray[Any]] = {key: as_array(held[key], path, key) for key in _KEYS}
    template, faces = _mesh(arrays, path)
    count = len(template)
    shape = arrays["shapedirs"]
    expressions = shape.shape[2] - _NUM_SHAPE
    weights = arrays["weights"].astype(np.float64)
    regressor = arrays["J_regressor"].astype(np.float64)
    joints = regressor @ template
    eyes, origin, left_first = _eyes(template, weights, joints)
    vertices = template - origin
    by_side = eyes if left_first else (eyes[1], eyes[0])

    eyelids = _eyelids(held, extras, path, count)
    masks = None if extras.masks is None else _masks(extras.masks, count)
    region = flame_regions(vertices, faces, weights, by_side, joints[1] - origin, masks)
    uv, face_uv = _texture(held, extras, path, vertices, faces, region)

    expression = np.moveaxis(shape[:, :, _NUM_SHAPE:], 2, 0)
    face_region = torch.from_numpy(region)
    metadata = {
        "source": f"FLAME, from {path.name}",
        "licence": "FLAME's own: see https://flame.is.tue.mpg.de; not to be passed on by default",
    }

    def real(array: NDArray[Any]) -> torch.Tensor:
        result = torch.from_numpy(np.ascontiguousarray(array, dtype=np.float32))
        if not torch.isfinite(result).all():
            raise InputError(f"{path}: holds NaN or infinity; get the file again")
        return result

    index = torch.from_numpy(faces)
    return FlameHeadModel(
        name=name or path.stem.lower(),
        expression_names=flame_code_names(expressions, left_first),
        vertices=real(vertices),
        faces=index,
        uv=real(uv),
        face_uv=torch.from_numpy(face_uv),
        identity_basis=real(np.moveaxis(shape[:, :, :_NUM_SHAPE], 2, 0)),
        skinning=real(weights / weights.sum(1, keepdims=True)),
        neck_pivot=real(joints[1] - origin),
        eye_left=torch.from_numpy(by_side[0]),
        eye_right=torch.from_numpy(by_side[1]),
        face_region=face_region,
        vertex_region=vertex_regions(index, face_region, count),
        metadata=metadata,
        expression_basis=real(expression),
        eyelid_basis=real(eyelids),
        pose_basis=real(np.moveaxis(arrays["posedirs"].reshape(count, 3, 36), 2, 0)),
        joint_regressor=real(regressor),
        joint_offset=real((regressor.sum(1, keepdims=True) - 1) * origin),
        joint_expression=real(np.einsum("jv,xvc->xjc", regressor, expression)),
        origin=real(origin),
    )


def _mesh(arrays: dict[str, NDArray[Any]], path: Path) -> tuple[Array, Index]:
    """Template and faces, all shapes checked."""
    template = arrays["v_template"].astype(np.float64)
    count = len(template)
    faces = arrays["f"]
    shape = arrays["shapedirs"].shape
    expected = {
        "v_template": (count, 3),
        "f": (len(faces), 3),
        "shapedirs": (count, 3, max(shape[-1], _NUM_SHAPE + 1)),
        "weights": (count, 5),
        "J_regressor": (5, count),
        "kintree_table": (2, 5),
    }
    for key, want in expected.items():
        if arrays[key].shape != want:
            raise InputError(
                f"{path}: '{key}' has shape {list(arrays[key].shape)}, FLAME's is {list(want)}; "
                "use the full model, with 300 shape and 100 expression components"
            )
    if arrays["posedirs"].size != count * 3 * 36:
        raise InputError(f"{path}: 'posedirs' has shape {list(arrays['posedirs'].shape)}, not V336")
    if tuple(arrays["kintree_table"][0, 1:].astype(np.int64)) != _PARENTS:
        raise InputError(f"{path}: 'kintree_table' is not FLAME's root, neck, jaw and two eyes")
    faces = faces.astype(np.int64)
    if count == 0 or faces.min() < 0 or faces.max() >= count:
        raise InputError(f"{path}: 'f' points at vertices that are not there")
    height = float(np.ptp(template[:, 1]))
    if not 0.1 < height < 1.0:
        raise InputError(f"{path}: the head is {height:g} high, FLAME's unit is the metre")
    if not (arrays["weights"].sum(1) > 0.5).all():
        raise InputError(f"{path}: 'weights' leaves vertices without a joint")
    return template, faces


def _eyes(
    template: Array, weights: Array, joints: Array
) -> tuple[tuple[Index, Index], Array, bool]:
    """Vertices of the balls in the file's order, the point midway, and whether left comes first."""
    eyes = tuple(np.flatnonzero(weights[:, joint] > 0.5) for joint in (3, 4))
    centres = [
        template[index].mean(0) if len(index) else joints[joint]
        for joint, index in zip((3, 4), eyes, strict=True)
    ]
    return (eyes[0], eyes[1]), 0.5 * (centres[0] + centres[1]), bool(centres[0][0] > centres[1][0])


def _eyelids(held: dict[str, Any], extras: FlameExtras, path: Path, count: int) -> Array:
    """Offsets of the left and the right lid, [2, V, 3]; zero with a warning if there are none."""
    result = np.zeros((2, count, 3))
    files = (extras.left_eyelid, extras.right_eyelid)
    found = 0
    for side, (key, file) in enumerate(zip(("l_eyelid", "r_eyelid"), files, strict=True)):
        if file is not None:
            try:
                array = np.load(file, allow_pickle=False)
            except (OSError, ValueError, EOFError) as error:
                raise InputError(f"{file}: not a readable .npy file ({error})") from error
        elif key in held:
            array = as_array(held[key], path, key)
        else:
            continue
        if array.shape != (count, 3):
            raise InputError(
                f"{file or path}: '{key}' has shape {list(array.shape)}, expected {[count, 3]}"
            )
        result[side] = array
        found += 1
    if found < 2:
        _LOG.warning(
            "%s: %s eyelid shapes, so eyes close only as the expression does; give "
            "metrical-tracker's l_eyelid.npy and r_eyelid.npy", path, "no" if not found else "half"
        )  # fmt: skip
    return result


def _masks(path: Path, count: int) -> dict[str, Index]:
    masks = {}
    for key, value in load_arrays(path).items():
        index = as_array(value, path, key).astype(np.int64).flatten()
        if len(index) and (index.min() < 0 or index.max() >= count):
            raise InputError(f"{path}: '{key}' points at vertices that the model does not have")
        masks[key] = index
    if "lips" not in masks or "scalp" not in masks:
        raise InputError(f"{path}: not FLAME_masks.pkl, lacks 'lips' or 'scalp'")
    return masks


def _texture(
    held: dict[str, Any],
    extras: FlameExtras,
    path: Path,
    vertices: Array,
    faces: Index,
    region: Index,
) -> tuple[Array, Index]:
    """Texture coordinates [U, 2] and the corners' indices [F, 3]."""
    if extras.template is not None:
        return _texture_of_obj(extras.template, faces)
    if "vt" in held and "ft" in held:
        uv = as_array(held["vt"], path, "vt").astype(np.float64)
        face_uv = as_array(held["ft"], path, "ft").astype(np.int64)
        if uv.ndim != 2 or uv.shape[1] != 2 or face_uv.shape != faces.shape:
            raise InputError(f"{path}: 'vt' and 'ft' must be [U, 2] and {list(faces.shape)}")
        if face_uv.min() < 0 or face_uv.max() >= len(uv) or uv.min() < 0 or uv.max() > 1:
            raise InputError(f"{path}: 'ft' or 'vt' is out of range")
        return uv, face_uv
    # The face gets the texels, as in the atlas of the bundled model.
    part = np.array([_PARTS.index(_PART_OF.get(name, "skin")) for name in REGIONS])[region]
    return unwrap(vertices, faces, part, np.array([_MAGNIFICATION[name] for name in _PARTS]))


def _texture_of_obj(path: Path, faces: Index) -> tuple[Array, Index]:
    """Texture coordinates of an OBJ file with the same triangles in any order."""
    try:
        lines = [line.split() for line in path.read_text().splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read ({error}); name an .obj file") from error
    try:
        uv = np.array([[float(x) for x in w[1:3]] for w in lines if w[:1] == ["vt"]])
        corner = np.array(
            [[[int(i) for i in c.split("/")[:2]] for c in w[1:]] for w in lines if w[:1] == ["f"]]
        )
    except ValueError as error:
        raise InputError(f"{path}: not triangles with texture coordinates ({error})") from error
    if corner.shape != (*faces.shape, 2) or uv.ndim != 2 or uv.shape[1] != 2:
        raise InputError(f"{path}: not {len(faces)} triangles with texture coordinates")
    where = {tuple(sorted(t)): dict(pairs) for t, pairs in (
        ((tuple((c[:, 0] - 1).tolist())), [(int(v) - 1, int(t) - 1) for v, t in c]) for c in corner
    )}  # fmt: skip
    try:
        face_uv = np.array([[where[tuple(sorted(f))][v] for v in f] for f in faces.tolist()])
    except KeyError:
        raise InputError(f"{path}: its triangles are not the model's") from None
    if face_uv.min() < 0 or face_uv.max() >= len(uv) or uv.min() < 0 or uv.max() > 1:
        raise InputError(f"{path}: texture coordinates are out of range")
    return uv, face_uv.astype(np.int64)
