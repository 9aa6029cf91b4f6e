"""Mirrored pictures: a second subject for the price of one."""

from __future__ import annotations

import numpy as np
import torch
from cag_avatar_training.landmark_correction.data import CorrectionData
from numpy.typing import NDArray

from cag_avatar.head_models import ARKIT_INDEX, ARKIT_NAMES, REGIONS, HeadModel
from cag_avatar.tracking.face_landmarker import FACE_LANDMARKS, NUM_LANDMARKS
from cag_avatar.tracking.landmark_embedding import LandmarkEmbedding

__all__ = ["mirror_codes", "mirror_landmarks", "mirrored_data", "mirrored_points"]

#: Faces searched for a mirrored point: so many whose middles are nearest.
_NEAREST = 48
#: Steps of barycentric weights along an edge of such a face.
_STEPS = 8


def mirror_codes() -> NDArray[np.int64]:
    """The coefficient of the other side for each of ARKIT_NAMES, [52]."""
    swap = {"Left": "Right", "Right": "Left"}
    other = []
    for name in ARKIT_NAMES:
        side = next((side for side in swap if name.endswith(side)), None)
        other.append(
            ARKIT_INDEX[name.removesuffix(side) + swap[side]] if side else ARKIT_INDEX[name]
        )
    return np.array(other)


def mirror_landmarks(points: NDArray[np.floating]) -> NDArray[np.int64]:
    """The landmark of the other side for each landmark, [478]; its own inverse.

    Args:
        points: the landmarks of a symmetric face about x = 0, such as the mean of many detected
            faces, [478, 3].
    """
    other = np.full(NUM_LANDMARKS, -1)
    flipped = points * (-1.0, 1.0, 1.0)
    for start, end in ((0, FACE_LANDMARKS), (FACE_LANDMARKS, NUM_LANDMARKS)):
        distance = np.linalg.norm(flipped[start:end, None] - points[None, start:end], axis=2)
        # The nearest pairs first: what is paired is paired both ways.
        order = np.argsort(distance, axis=None, kind="stable")
        rows, columns = (index.tolist() for index in np.unravel_index(order, distance.shape))
        found = [-1] * (end - start)
        for i, j in zip(rows, columns, strict=True):
            if found[i] < 0 and found[j] < 0:
                found[i], found[j] = j, i
        other[start:end] = np.array(found) + start
    return other


def mirrored_points(model: HeadModel, embedding: LandmarkEmbedding) -> LandmarkEmbedding:
    """The surface points that are the mirror images of an embedding's on the mean head."""
    vertices, faces = model.vertices.numpy(), model.faces.numpy()
    goals = embedding.points(model.vertices, model.faces).numpy() * (-1.0, 1.0, 1.0)
    middles = vertices[faces].mean(1)
    region = model.face_region.numpy()
    eyes = {REGIONS.index("eye_left"): REGIONS.index("eye_right")}
    eyes |= {right: left for left, right in eyes.items()}
    grid = np.array(
        [(i, j, _STEPS - i - j) for i in range(_STEPS + 1) for j in range(_STEPS + 1 - i)]
    ) / float(_STEPS)
    found_faces, found_weights = [], []
    for goal, face in zip(goals, embedding.faces.tolist(), strict=True):
        wanted = eyes.get(int(region[face]), int(region[face]))
        distance = np.where(region == wanted, np.linalg.norm(middles - goal, axis=1), np.inf)
        near = np.argpartition(distance, _NEAREST)[:_NEAREST]
        near = near[np.isfinite(distance[near])]
        points = np.einsum("gk,fkc->fgc", grid, vertices[faces[near]])
        best = np.linalg.norm(points - goal, axis=2)
        row, column = np.unravel_index(best.argmin(), best.shape)
        found_faces.append(int(near[row]))
        found_weights.append(grid[column])
    return LandmarkEmbedding(
        embedding.head_model, torch.tensor(found_faces),
        torch.tensor(np.array(found_weights), dtype=torch.float32), embedding.spread,
    )  # fmt: skip


def mirrored_data(data: CorrectionData, landmarks: NDArray[np.int64]) -> CorrectionData:
    """What would be found in the mirrored pictures of a subject.

    Args:
        data: of the subject.
        landmarks: of :func:`mirror_landmarks`.
    """
    codes = mirror_codes()

    def flip(pixels: NDArray[np.float32]) -> NDArray[np.float32]:
        out = pixels.copy()
        out[..., 0] = data.width - out[..., 0]
        return out

    axes = np.diag([-1.0, 1.0, 1.0, 1.0]).astype(np.float32)
    return CorrectionData(
        landmarks=flip(data.landmarks[:, landmarks]),
        scores=data.scores[:, codes],
        colors=data.colors[:, landmarks[:FACE_LANDMARKS]],
        codes=data.codes[:, codes],
        # The mirrored head is the mirror image; its points are the images of the mirrored points.
        true_px=flip(data.mirrored_px),
        mirrored_px=flip(data.true_px),
        head_pose=axes @ data.head_pose @ axes,
        focal=data.focal,
        width=data.width,
        planes=data.planes,
        flipped=not data.flipped,
    )
