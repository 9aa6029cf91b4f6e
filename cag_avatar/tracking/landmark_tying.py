"""Tie MediaPipe's landmarks to a head model: render heads, detect, and find the surface points.

Each landmark becomes the surface point whose projections lie nearest, by the median, to where the
detector put it in many renders of different identities, expressions and poses. Rays cast through
the detections give the neighbourhood that is searched.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from cag_avatar.camera import PinholeCamera
from cag_avatar.errors import InputError
from cag_avatar.geometry import rigid_transform, rotation_vector_to_matrix
from cag_avatar.head_models.arkit import ARKIT_INDEX, ARKIT_NAMES
from cag_avatar.head_models.base import REGIONS, HeadModel
from cag_avatar.rendering.mesh import interpolate, rasterize, vertex_normals
from cag_avatar.tracking.face_landmarker import FACE_LANDMARKS, NUM_LANDMARKS, FaceLandmarker
from cag_avatar.tracking.landmark_embedding import LandmarkEmbedding

__all__ = ["TyingConfig", "tie_landmarks"]

_SKIN = ("face_skin", "lips", "ears", "scalp", "neck")
_EYES = ("eye_left", "eye_right")

#: Deviation of coefficients without bounds, which have no ARKit name (FLAME's expression).
_UNNAMED = 0.7

#: Expressions of the renders: ARKit names and largest coefficient.
_EXPRESSIONS = {
    "jawOpen": 0.6, "mouthSmileLeft": 0.8, "mouthSmileRight": 0.8, "mouthPucker": 0.7,
    "browInnerUp": 0.8, "eyeBlinkLeft": 0.7, "eyeBlinkRight": 0.7, "mouthFunnel": 0.5,
    "browDownLeft": 0.6, "browDownRight": 0.6, "mouthLeft": 0.5, "mouthRight": 0.5,
}  # fmt: skip


@dataclass(frozen=True)
class TyingConfig:
    """How many heads to render, and how."""

    renders: int = 400
    """Heads rendered."""
    size: int = 384
    """Width and height of a render in pixels."""
    seed: int = 0
    """Seed of identities, expressions and poses."""

    def __post_init__(self) -> None:
        if self.renders < 20 or self.size < 128:
            raise InputError("tie-landmarks: needs renders >= 20 and size >= 128")


@dataclass(frozen=True)
class _Render:
    vertices: NDArray[np.float32]  # [V, 3] camera space
    detected: NDArray[np.float32]  # [478, 2] pixels
    hit: NDArray[np.int32]  # [478] visible face under each landmark, -1 if none


def tie_landmarks(
    model: HeadModel, config: TyingConfig, progress: Callable[[int, int], None] | None = None
) -> LandmarkEmbedding:
    """Find the surface point of every landmark.

    Args:
        model: the head model.
        config: number and size of renders.
        progress: called with (renders done, renders in all).

    Raises:
        InputError: the detector finds no face in more than half of the renders, or puts a landmark
            where the model has nothing.
    """
    camera = PinholeCamera(
        config.size, config.size, 2.2 * config.size, 2.2 * config.size, config.size / 2,
        config.size / 2,
    )  # fmt: skip
    random = np.random.default_rng(config.seed)
    renders = []
    with FaceLandmarker() as landmarker:
        for index in range(config.renders):
            render = _render_and_detect(model, camera, random, landmarker)
            if render is not None:
                renders.append(render)
            if progress is not None:
                progress(index + 1, config.renders)
    if 2 * len(renders) < config.renders:
        raise InputError(
            f"head model '{model.name}': a face was found in only {len(renders)} of "
            f"{config.renders} renders; the model does not look like a face to the detector: check "
            "its regions (FLAME: import it with --masks) and that its file is a full head"
        )
    return _place(model, camera, renders)


def _render_and_detect(
    model: HeadModel,
    camera: PinholeCamera,
    random: np.random.Generator,
    landmarker: FaceLandmarker,
) -> _Render | None:
    identity = torch.tensor(random.normal(0, 0.8, model.num_identity), dtype=torch.float32)
    rest = model.rest_vertices(identity)
    code = _expression(model, random)
    angles = random.normal(0, 1, 3) * (0.15, 0.28, 0.08)
    facing = torch.diag(torch.tensor([1.0, -1.0, -1.0]))  # canonical to OpenCV axes
    rotation = facing @ rotation_vector_to_matrix(torch.tensor(angles, dtype=torch.float32))
    offset = (random.normal(0, 0.01), random.normal(0.02, 0.01), random.uniform(0.6, 0.75))
    pose = rigid_transform(rotation, torch.tensor(offset, dtype=torch.float32))[None]
    vertices = model.posed_vertices(rest, code, pose, pose)[0].numpy()
    buffers = rasterize(vertices, model.faces.numpy(), camera)
    image = _shade(model, rest, vertices, buffers, random)
    faces = landmarker.detect(image)
    if not faces:
        return None
    detected = faces[0].landmarks[:, :2]
    column = np.clip(detected[:, 0].astype(int), 0, camera.width - 1)
    row = np.clip(detected[:, 1].astype(int), 0, camera.height - 1)
    return _Render(vertices, detected, buffers.face_index[row, column])


def _expression(model: HeadModel, random: np.random.Generator) -> torch.Tensor:
    """A code [1, E] of two ARKit expressions, and of whatever has no name."""
    arkit = torch.zeros(1, len(ARKIT_NAMES))
    for name in random.choice(list(_EXPRESSIONS), 2, replace=False):
        arkit[0, ARKIT_INDEX[str(name)]] = random.uniform(0, _EXPRESSIONS[str(name)])
    code = model.arkit_to_code(arkit)
    alone = [model.code_tokens.count(token) == 1 for token in model.code_tokens]
    free = torch.isinf(model.code_high) & torch.tensor(alone)
    noise = random.normal(0, _UNNAMED, int(free.sum()))
    code[0, free] += torch.tensor(noise, dtype=code.dtype)
    return code


def _shade(
    model: HeadModel,
    rest: torch.Tensor,
    vertices: NDArray[np.float32],
    buffers: object,
    random: np.random.Generator,
) -> NDArray[np.uint8]:
    """A plain picture with skin, lips, brows, irises and hair, enough for the detector.

    What a model lacks (FLAME's teeth, say) is not painted.
    """
    colors = np.full((len(vertices), 3), (0.78, 0.6, 0.5), dtype=np.float32)
    region = model.vertex_region.numpy()
    for name, color in (
        ("lips", (0.66, 0.33, 0.32)),
        ("scalp", (0.2, 0.15, 0.12)),
        ("shoulders", (0.3, 0.35, 0.45)),
        ("mouth_cavity", (0.25, 0.08, 0.08)),
        ("tongue", (0.6, 0.3, 0.3)),
        ("teeth_upper", (0.9, 0.88, 0.84)),
        ("teeth_lower", (0.9, 0.88, 0.84)),
        ("eye_left", (0.92, 0.92, 0.92)),
        ("eye_right", (0.92, 0.92, 0.92)),
    ):
        colors[region == REGIONS.index(name)] = color
    normals = vertex_normals(vertices, model.faces.numpy())
    light = np.array([random.uniform(-0.5, 0.5), -0.4, -0.9])
    light /= np.linalg.norm(light)
    lit = 0.35 + 0.65 * np.clip(normals @ light, 0, 1)
    image = interpolate(buffers, colors * lit[:, None], background=0.6)  # type: ignore[arg-type]
    point = interpolate(buffers, rest.numpy())  # type: ignore[arg-type]
    x, y, z = np.abs(point[..., 0]), point[..., 1], point[..., 2]
    arch = 0.0245 + 0.006 * np.sin(np.clip((x - 0.012) / 0.045, 0, 1) * 2.2)
    brow = (np.abs(y - arch) < 0.0028) & (x > 0.012) & (x < 0.05) & (z > -0.02)
    image[brow] *= 0.35
    face = buffers.face_index  # type: ignore[attr-defined]
    on_eye = np.isin(model.face_region.numpy()[face], [REGIONS.index(n) for n in _EYES])
    centres = model.eye_centres(rest).numpy()
    side = np.where(point[..., :1] > 0, centres[0], centres[1])
    radius = np.linalg.norm((point - side)[..., :2], axis=-1)
    image[(face >= 0) & on_eye & (radius < 0.0058)] = (0.3, 0.2, 0.12)
    image[(face >= 0) & on_eye & (radius < 0.0025)] = 0.05
    return (np.clip(image, 0, 1) * 255).astype(np.uint8)


def _place(model: HeadModel, camera: PinholeCamera, renders: list[_Render]) -> LandmarkEmbedding:
    faces = model.faces.numpy()
    rest = model.vertices.numpy()
    region = model.face_region.numpy()
    # Candidates: a grid of seven points on every face of the allowed regions.
    grid = np.array(
        [[1, 1, 1], [4, 1, 1], [1, 4, 1], [1, 1, 4], [2, 2, 0.2], [0.2, 2, 2], [2, 0.2, 2]]
    )
    grid /= grid.sum(1, keepdims=True)
    detected = np.stack([r.detected for r in renders])  # [R, 478, 2]
    eyes = detected[:, [33, 263]]
    unit = np.linalg.norm(eyes[:, 0] - eyes[:, 1], axis=1)[:, None]
    posed = np.stack([r.vertices for r in renders])  # [R, V, 3]
    # A model without eyeballs has skin where the irises would be.
    iris = _EYES if all(len(index) for index in model.eye_vertices) else _SKIN
    centroid = rest[faces].mean(1)
    allowed_on = {
        names: np.isin(region, [REGIONS.index(n) for n in names]) for names in (_SKIN, _EYES)
    }
    out_face = np.zeros(NUM_LANDMARKS, np.int64)
    out_weight = np.zeros((NUM_LANDMARKS, 3), np.float32)
    spread = np.zeros(NUM_LANDMARKS, np.float32)
    for k in range(NUM_LANDMARKS):
        allowed = allowed_on[_SKIN if k < FACE_LANDMARKS else iris]
        # The rim of an iris often hides behind a lid: its centre leads to the same eye.
        probe = k if k < FACE_LANDMARKS else FACE_LANDMARKS + 5 * ((k - FACE_LANDMARKS) // 5)
        hits = np.array([r.hit[probe] for r in renders])
        hits = hits[(hits >= 0)]
        hits = hits[allowed[hits]]
        if len(hits) == 0:
            where = "skin" if k < FACE_LANDMARKS else "eye"
            raise InputError(
                f"head model '{model.name}': landmark {k} never falls on the {where}; the renders "
                "do not look like its faces, or its regions are wrong (FLAME: import with --masks)"
            )
        seed = np.median(rest[faces[hits]].mean(1), axis=0)
        near = np.flatnonzero(allowed & (np.linalg.norm(centroid - seed, axis=1) < 0.018))
        if len(near) == 0:
            near = hits[:1].astype(np.int64)
        face = np.repeat(near, len(grid))
        weight = np.tile(grid, (len(near), 1))
        points = (grid @ posed[:, faces[near]]).reshape(len(posed), -1, 3)  # [R, C, 3]
        pixels = points[..., :2] / points[..., 2:] * camera.fx + (camera.cx, camera.cy)
        error = np.linalg.norm(pixels - detected[:, k][:, None], axis=-1) / unit
        best = np.median(error, axis=0)
        choice = int(best.argmin())
        out_face[k], out_weight[k], spread[k] = face[choice], weight[choice], best[choice]
    return LandmarkEmbedding(
        model.name, torch.tensor(out_face), torch.tensor(out_weight), torch.tensor(spread)
    )
