"""Where the fitted head lies in the pictures, by the dataset's numbers alone."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from cag_avatar_training.dataset import Dataset
from cag_avatar_training.validation.face_measures import EYE_CORNERS
from numpy.typing import NDArray
from torch import Tensor

from cag_avatar.camera import PinholeCamera
from cag_avatar.errors import InputError
from cag_avatar.head_models import HeadModel
from cag_avatar.tracking.landmark_embedding import LandmarkEmbedding, load_landmark_embedding

__all__ = ["HEAD_REGIONS", "FittedHead", "head_angles"]

#: Regions that move with the skull.
HEAD_REGIONS = (
    "face_skin", "lips", "teeth_upper", "teeth_lower", "tongue", "mouth_cavity",
    "eye_left", "eye_right", "ears", "scalp",
)  # fmt: skip
#: Points whose motion is compared with the pictures', on the face and on the lips.
_FACE_POINTS, _LIP_POINTS = 90, 24
_BATCH = 16
#: Distance of the outer eye corners over that of the eyes' centres, on faces in general.
_CORNERS_PER_CENTRES = 1.45


@dataclass(frozen=True)
class FittedHead:
    """The head of a dataset: model, shape, and points to follow."""

    model: HeadModel
    rest: Tensor
    """The person's rest head, [V, 3] metres."""
    embedding: LandmarkEmbedding | None
    """MediaPipe's landmarks on the mesh; None where the head model has none."""
    points: NDArray[np.int64]
    """Vertices spread over face and lips, [K]."""
    eye_distance: float
    """Between the outer corners of the eyes at rest, metres."""

    @classmethod
    def of(cls, dataset: Dataset, model: HeadModel) -> FittedHead:
        """The head that ``dataset`` was fitted with.

        Raises:
            InputError: the dataset's numbers do not fit the model.
        """
        tracking = dataset.tracking
        wanted = (model.num_identity, len(model.vertices), model.num_expression)
        found = (len(tracking.identity), len(tracking.vertex_offsets), tracking.codes.shape[1])
        if wanted != found:
            raise InputError(
                f"{dataset.path}: identity, vertices and coefficients {found} do not fit the head "
                f"model '{model.name}' {wanted}; make the dataset again"
            )
        rest = model.rest_vertices(
            torch.from_numpy(tracking.identity), torch.from_numpy(tracking.vertex_offsets)
        )
        try:
            embedding = load_landmark_embedding(model)
        except InputError:
            embedding = None
        if embedding is None:
            centres = model.eye_centres(rest)
            distance = _CORNERS_PER_CENTRES * float((centres[0] - centres[1]).norm())
        else:
            corners = embedding.points(rest, model.faces)[list(EYE_CORNERS)]
            distance = float((corners[0] - corners[1]).norm())
        points = np.concatenate(
            [_spread(model, "face_skin", _FACE_POINTS), _spread(model, "lips", _LIP_POINTS)]
        )
        return cls(model, rest, embedding, points, distance)

    def vertices(
        self, codes: Tensor, head_pose: Tensor, torso_pose: Tensor
    ) -> Iterator[tuple[int, Tensor]]:
        """Frame number and vertices in camera space [V, 3], frame by frame."""
        for start in range(0, len(codes), _BATCH):
            part = slice(start, start + _BATCH)
            posed = self.model.posed_vertices(
                self.rest, codes[part], head_pose[part], torso_pose[part]
            )
            yield from enumerate(posed, start)

    def landmarks(self, vertices: Tensor, camera: PinholeCamera) -> NDArray[np.float32] | None:
        """MediaPipe's landmarks as the mesh has them, [478, 2] pixels."""
        if self.embedding is None:
            return None
        return camera.project(self.embedding.points(vertices, self.model.faces)).numpy()


def _spread(model: HeadModel, region: str, count: int) -> NDArray[np.int64]:
    """Vertices of a region, each chosen farthest from those before it; from the front of it."""
    index = model.region_vertices(region).numpy()
    if len(index) == 0:
        return np.zeros(0, np.int64)
    points = model.vertices.numpy()[index].astype(np.float64)
    front = points[:, 2] > np.median(points[:, 2]) - 0.02
    index, points = index[front], points[front]
    chosen = [int(points[:, 2].argmax())]
    distance = np.full(len(points), np.inf)
    while len(chosen) < min(count, len(points)):
        distance = np.minimum(distance, ((points - points[chosen[-1]]) ** 2).sum(1))
        chosen.append(int(distance.argmax()))
    return np.asarray(index[chosen], np.int64)


def head_angles(head_pose: NDArray[np.float32]) -> NDArray[np.float64]:
    """Pitch (down), yaw (to the subject's left) and roll of poses [T, 4, 4], degrees, [T, 3].

    Zero is the head upright, facing the camera; pitch about x first, then yaw, then roll.
    """
    turn = np.diag([1.0, -1.0, -1.0]) @ head_pose[:, :3, :3].astype(np.float64)
    pitch = np.arctan2(turn[:, 2, 1], turn[:, 2, 2])
    yaw = np.arcsin(np.clip(-turn[:, 2, 0], -1, 1))
    roll = np.arctan2(turn[:, 1, 0], turn[:, 0, 0])
    return np.rad2deg(np.stack([pitch, yaw, roll], 1))
