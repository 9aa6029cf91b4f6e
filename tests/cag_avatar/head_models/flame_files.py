"""Files shaped like FLAME's, made up: an egg with two balls, random smooth shapes, FLAME's joints.

Nothing of FLAME is in them; their layout is.
"""

from __future__ import annotations

import pickle
import sys
import types
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy import sparse

from cag_avatar.head_models import ARKIT_INDEX, LinearHeadModel, load_head_model
from cag_avatar.head_models.flame import FlameHeadModel
from cag_avatar.head_models.flame_file import load_flame
from cag_avatar.head_models.storage import save_head_model
from cag_avatar.tracking.landmark_embedding import landmark_path, load_landmark_embedding

Arrays = dict[str, Any]

#: Where the made-up file puts the point midway between the eyes.
OFFSET = np.array([0.003, 0.021, -0.012])


def ball(
    rows: int, columns: int, radii: tuple[float, float, float]
) -> tuple[np.ndarray, np.ndarray]:
    """A closed ellipsoid: vertices, and faces that turn outwards."""
    row, column = np.meshgrid(np.arange(1, rows), np.arange(columns), indexing="ij")
    polar, azimuth = row / rows * np.pi, column / columns * 2 * np.pi
    ring = [np.sin(polar) * np.sin(azimuth), np.cos(polar), np.sin(polar) * np.cos(azimuth)]
    points = [*np.stack(ring, -1).reshape(-1, 3), [0, 1, 0], [0, -1, 0]]
    top, bottom = len(points) - 2, len(points) - 1
    faces = []
    for i in range(rows - 2):
        for j in range(columns):
            a, b = i * columns + j, i * columns + (j + 1) % columns
            faces += [[a, a + columns, b + columns], [a, b + columns, b]]
    for j in range(columns):
        faces.append([top, j, (j + 1) % columns])
        last = (rows - 2) * columns
        faces.append([bottom, last + (j + 1) % columns, last + j])
    return np.array(points) * radii, np.array(faces)


def _smooth(rng: np.random.Generator, points: np.ndarray, count: int, size: float) -> np.ndarray:
    """Random smooth offset fields [V, 3, count]."""
    wave = rng.normal(0, 18, (3, count))
    phase = rng.uniform(0, 2 * np.pi, (3, count))
    field = np.sin((points @ wave)[:, None] + phase)
    return size * field * rng.uniform(0.3, 1.0, count)


def flame_arrays(seed: int = 0, rows: int = 18, columns: int = 24) -> Arrays:
    """What a FLAME pickle holds, 510 vertices by default; all plain arrays."""
    rng = np.random.default_rng(seed)
    skull, skull_faces = ball(rows, columns, (0.078, 0.125, 0.1))
    skull += [0.0, -0.015, -0.045]
    eye, eye_faces = ball(6, 10, (0.012, 0.012, 0.012))
    centres = np.array([[0.032, 0.0, 0.028], [-0.032, 0.0, 0.028]])
    points = np.concatenate([skull, eye + centres[0], eye + centres[1]])
    faces = np.concatenate([skull_faces, eye_faces + len(skull), eye_faces + len(skull) + len(eye)])
    count, n = len(points), len(skull)
    weights = np.zeros((count, 5))
    _, y, z = skull.T
    weights[:n, 0] = 1 / (1 + np.exp((y + 0.105) / 0.008))
    jaw = 1 / (1 + np.exp((y + 0.062) / 0.006)) / (1 + np.exp(-(z + 0.01) / 0.01))
    weights[:n, 2] = jaw * (1 - weights[:n, 0])
    weights[:n, 1] = 1 - weights[:n].sum(1)
    weights[n : n + len(eye), 3] = 1
    weights[n + len(eye) :, 4] = 1
    # Joints are means of vertices at both sides of them; those of the eyes of their balls.
    at = np.array([[0.04, -0.13, -0.045], [0.06, -0.1, -0.05], [0.075, -0.03, -0.05]])
    mirrored = np.abs(points) * [1, 0, 0] + points * [0, 1, 1]
    regressor = np.zeros((5, count))
    for joint in range(5):
        own = points - centres[joint - 3] if joint > 2 else mirrored - at[joint]
        near = np.argsort(np.linalg.norm(own, axis=1))[: 62 if joint > 2 else 8]
        share = rng.dirichlet(np.full(len(near), 20.0))
        regressor[joint, near] = share * (1.002 if joint == 2 else 1.0)
    posedirs = _smooth(rng, points, 36, 4e-3).reshape(count, 3, 36)
    shapes = _smooth(rng, points, 400, 1.5e-3)
    lid = [np.exp(-((np.linalg.norm(points - c, axis=1) / 0.02) ** 2)) for c in centres]
    return {
        "v_template": points + OFFSET,
        "f": faces.astype(np.uint32),
        "shapedirs": shapes,
        "posedirs": posedirs,
        "J_regressor": sparse.csc_matrix(regressor),
        "weights": weights,
        "kintree_table": np.array([[2**32 - 1, 0, 1, 1, 1], [0, 1, 2, 3, 4]]),
        "bs_style": "lbs",
        "l_eyelid": np.stack([0 * lid[0], -0.008 * lid[0], 0.002 * lid[0]], 1),
        "r_eyelid": np.stack([0 * lid[1], -0.008 * lid[1], 0.002 * lid[1]], 1),
    }


@contextmanager
def chumpy() -> Iterator[tuple[type, type]]:
    """Stand-ins for chumpy's classes, importable only inside: ``Ch`` and ``Select``."""
    modules = {name: types.ModuleType(name) for name in
               ("chumpy", "chumpy.ch", "chumpy.reordering")}  # fmt: skip
    made = []
    for module, name in (("chumpy.ch", "Ch"), ("chumpy.reordering", "Select")):
        cls = type(name, (), {"__module__": module})
        setattr(modules[module], name, cls)
        made.append(cls)
    before = {name: sys.modules.get(name) for name in modules}
    sys.modules.update(modules)
    try:
        yield made[0], made[1]
    finally:
        for name, module in before.items():
            if module is None:
                del sys.modules[name]
            else:
                sys.modules[name] = module


def write_flame_pickle(path: Path, arrays: Arrays | None = None, old: bool = False) -> Path:
    """Write a FLAME pickle, protocol 2.

    ``old`` writes it as the makers did: template and shapes as chumpy expressions, and the module
    names of old numpy and scipy.
    """
    arrays = dict(flame_arrays() if arrays is None else arrays)
    if not old:
        path.write_bytes(pickle.dumps(arrays, protocol=2))
        return path
    with chumpy() as (ch, select):

        def leaf(array: np.ndarray) -> object:
            made = ch()
            made.__dict__.update(x=array, _depends_on_deps=None)
            return made

        shapes = arrays["shapedirs"]
        mixed = np.random.default_rng(1).permutation(shapes.size)
        picked = select()
        store = np.empty(shapes.size)
        store[mixed] = shapes.ravel()
        picked.__dict__.update(a=leaf(store), idxs=mixed, preferred_shape=shapes.shape)
        arrays |= {"v_template": leaf(arrays["v_template"]), "shapedirs": picked}
        content = pickle.dumps(arrays, protocol=2)
    for new, former in ((b"cscipy.sparse._csc\n", b"cscipy.sparse.csc\n"),
                        (b"cnumpy._core.multiarray\n", b"cnumpy.core.multiarray\n")):  # fmt: skip
        content = content.replace(new, former)
    path.write_bytes(content)
    return path


def face_like_flame() -> Arrays:
    """The bundled head in FLAME's layout, cut down to what FLAME has: a face to a detector.

    Its identity and expression bases fill the first of FLAME's components.
    """
    head = load_head_model("anny")
    assert isinstance(head, LinearHeadModel)
    inner = head.region_faces("teeth_upper", "teeth_lower", "tongue", "mouth_cavity")
    faces = np.delete(head.faces.numpy(), inner.numpy(), axis=0)
    used, flat = np.unique(faces, return_inverse=True)
    points = head.vertices.double().numpy()[used]
    own = head.skinning.double().numpy()[used]
    opening = head.expression_basis[ARKIT_INDEX["jawOpen"]].norm(dim=1).double().numpy()[used]
    jaw = np.clip(opening / np.quantile(opening, 0.98), 0, 1) * own[:, 2]
    weights = np.stack(
        [own[:, 0] + own[:, 1] / 2, own[:, 2] + own[:, 1] / 2 - jaw, jaw, own[:, 3], own[:, 4]], 1
    )
    shapes = np.zeros((len(points), 3, 400), np.float32)
    shapes[..., : head.num_identity] = np.moveaxis(head.identity_basis.numpy()[:, used], 0, 2)
    shapes[..., 300:352] = np.moveaxis(head.expression_basis.numpy()[:, used], 0, 2)
    # jawOpen is the joint's and eyeLook* the balls' here.
    shapes[..., 300 + ARKIT_INDEX["jawOpen"]] = 0
    mirrored = np.abs(points) * [1, 0, 0] + points * [0, 1, 1]
    regressor = np.zeros((5, len(points)))
    at = [[0.06, -0.25, -0.08], [0.05, -0.13, -0.07], [0.06, -0.03, -0.07]]
    for joint in range(5):
        if joint > 2:
            near = np.flatnonzero(weights[:, joint] > 0.5)
        else:
            near = np.argsort(np.linalg.norm(mirrored - at[joint], axis=1))[:20]
        regressor[joint, near] = 1 / len(near)
    return {
        "v_template": points + OFFSET,
        "f": flat.reshape(-1, 3).astype(np.uint32),
        "shapedirs": shapes,
        "posedirs": np.zeros((len(points), 3, 36), np.float32),
        "J_regressor": sparse.csc_matrix(regressor),
        "weights": weights,
        "kintree_table": np.array([[2**32 - 1, 0, 1, 1, 1], [0, 1, 2, 3, 4]]),
        **{
            f"{side[0].lower()}_eyelid": head.expression_basis[ARKIT_INDEX[f"eyeBlink{side}"]]
            .double()
            .numpy()[used]
            for side in ("Left", "Right")
        },
    }


def face_flame_model(folder: Path, name: str) -> FlameHeadModel:
    """:func:`face_like_flame` as a head model file in a folder, the bundled landmarks beside it."""
    save_head_model(
        folder / f"{name}.safetensors",
        load_flame(write_flame_pickle(folder / f"{name}.pkl", face_like_flame()), name),
    )
    model = load_head_model(folder / f"{name}.safetensors")
    assert isinstance(model, FlameHeadModel)
    head = load_head_model("anny")
    inner = head.region_faces("teeth_upper", "teeth_lower", "tongue", "mouth_cavity")
    kept = np.delete(np.arange(len(head.faces)), inner.numpy())
    place = np.full(len(head.faces), -1)
    place[kept] = np.arange(len(kept))
    embedding = load_landmark_embedding(head)
    faces = torch.from_numpy(place[embedding.faces.numpy()])
    assert (faces >= 0).all()
    replace(embedding, head_model=name, faces=faces).save(landmark_path(model))
    return model
