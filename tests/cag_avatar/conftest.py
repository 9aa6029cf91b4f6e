"""A head model, its landmarks, and a plain face that the landmarker finds."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from cag_avatar.camera import PinholeCamera
from cag_avatar.geometry import rigid_transform, rotation_vector_to_matrix
from cag_avatar.head_models import REGIONS, HeadModel, load_head_model
from cag_avatar.rendering.mesh import interpolate, rasterize, vertex_normals
from cag_avatar.tracking.landmark_embedding import LandmarkEmbedding, load_landmark_embedding
from cag_avatar.tracking.surface_basis import ShapeSpace

_PAINT = {
    "lips": (0.66, 0.33, 0.32),
    "scalp": (0.2, 0.15, 0.12),
    "shoulders": (0.3, 0.35, 0.45),
    "mouth_cavity": (0.25, 0.08, 0.08),
    "tongue": (0.6, 0.3, 0.3),
    "teeth_upper": (0.9, 0.88, 0.84),
    "teeth_lower": (0.9, 0.88, 0.84),
    "eye_left": (0.92, 0.92, 0.92),
    "eye_right": (0.92, 0.92, 0.92),
}


@pytest.fixture(scope="session")
def head() -> HeadModel:
    """The bundled head model."""
    return load_head_model("anny")


@pytest.fixture(scope="session")
def embedding(head: HeadModel) -> LandmarkEmbedding:
    """Its bundled landmarks."""
    return load_landmark_embedding(head)


@pytest.fixture(scope="session")
def shape_space(head: HeadModel) -> ShapeSpace:
    """Its shape space."""
    return ShapeSpace(head)


@dataclass(frozen=True)
class Photographer:
    """Draws the mean head: skin, lips, brows, hair, and irises that turn with the gaze."""

    model: HeadModel
    focal_ratio: float = 1.8

    def camera(self, width: int, height: int) -> PinholeCamera:
        """A camera whose focal length is a multiple of the longer side."""
        focal = self.focal_ratio * max(width, height)
        return PinholeCamera(width, height, focal, focal, width / 2, height / 2)

    def pose(
        self, turn: tuple[float, float, float] = (0, 0, 0), shift: float = 0.0
    ) -> torch.Tensor:
        """Canonical to camera space, [4, 4]: facing, turned about x, y and z (radians)."""
        facing = torch.diag(torch.tensor([1.0, -1.0, -1.0]))
        rotation = facing @ rotation_vector_to_matrix(torch.tensor(turn))
        return rigid_transform(rotation, torch.tensor([shift, 0.02, 0.62]))

    def photograph(
        self, code: torch.Tensor, pose: torch.Tensor, width: int = 320, height: int = 320
    ) -> NDArray[np.uint8]:
        """RGB picture [H, W, 3] of a code [52] at a pose [4, 4]."""
        model = self.model
        rest = model.vertices
        posed = model.posed_vertices(rest, code[None], pose[None], pose[None])[0].numpy()
        buffers = rasterize(posed, model.faces.numpy(), self.camera(width, height), 2)
        colors = np.full((len(posed), 3), (0.78, 0.6, 0.5), np.float32)
        for name, color in _PAINT.items():
            colors[model.vertex_region.numpy() == REGIONS.index(name)] = color
        light = np.array([0.2, -0.4, -0.9]) / np.linalg.norm([0.2, -0.4, -0.9])
        lit = 0.35 + 0.65 * np.clip(vertex_normals(posed, model.faces.numpy()) @ light, 0, 1)
        image = interpolate(buffers, colors * lit[:, None], background=0.6)
        # Painted on the rest head, so brows move with the skin and irises with the balls.
        point = interpolate(buffers, rest.numpy())
        x, y, z = np.abs(point[..., 0]), point[..., 1], point[..., 2]
        arch = 0.0245 + 0.006 * np.sin(np.clip((x - 0.012) / 0.045, 0, 1) * 2.2)
        image[(np.abs(y - arch) < 0.0028) & (x > 0.012) & (x < 0.05) & (z > -0.02)] *= 0.35
        eyes = [REGIONS.index("eye_left"), REGIONS.index("eye_right")]
        face = buffers.face_index
        on_eye = (face >= 0) & np.isin(model.face_region.numpy()[face], eyes)
        left, right = model.eye_centres(rest).numpy()
        centre = np.where(point[..., :1] > 0, left, right)
        radius = np.linalg.norm((point - centre)[..., :2], axis=-1)
        image[on_eye & (radius < 0.0058)] = (0.3, 0.2, 0.12)
        image[on_eye & (radius < 0.0025)] = 0.05
        image = image.reshape(height, 2, width, 2, 3).mean((1, 3))
        return (np.clip(image, 0, 1) * 255).astype(np.uint8)


@pytest.fixture(scope="session")
def photographer(head: HeadModel) -> Photographer:
    """Draws faces."""
    return Photographer(head)
