"""MediaPipe's landmarks as points on a head model's surface."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from cag_avatar.errors import InputError
from cag_avatar.files import replacing
from cag_avatar.head_models.base import HeadModel
from cag_avatar.tracking.face_landmarker import NUM_LANDMARKS

__all__ = ["LandmarkEmbedding", "landmark_path", "load_landmark_embedding"]

_FORMAT = "cag_avatar-landmarks"


@dataclass(frozen=True)
class LandmarkEmbedding:
    """A surface point for each of the 478 landmarks."""

    head_model: str
    """Name of the head model whose faces are meant."""
    faces: Tensor
    """Face of each landmark, [478] int64."""
    barycentric: Tensor
    """Weights of that face's corners, [478, 3] float32."""
    spread: Tensor
    """Median distance between the point and the detections that placed it, as a fraction of the
    distance between the eyes, [478] float32: how far to trust the landmark."""

    def points(self, vertices: Tensor, faces: Tensor) -> Tensor:
        """Landmarks of vertices [..., V, 3] with the model's faces [F, 3]: [..., 478, 3]."""
        corners = vertices[..., faces[self.faces], :]
        return (corners * self.barycentric[..., None]).sum(-2)

    def save(self, path: Path) -> None:
        """Write as JSON."""
        content = {
            "format": _FORMAT,
            "version": 1,
            "head_model": self.head_model,
            "landmarks": [
                [int(f), *(round(float(x), 4) for x in b), round(float(s), 4)]
                for f, b, s in zip(self.faces, self.barycentric, self.spread, strict=True)
            ],
        }
        with replacing(path) as temporary:
            temporary.write_text(json.dumps(content).replace("], [", "],\n["))

    @classmethod
    def load(cls, path: Path, model: HeadModel) -> LandmarkEmbedding:
        """Read a file for ``model``. Raises InputError if it is not one, or for another model."""
        try:
            content: dict[str, Any] = json.loads(Path(path).read_text())
            table = torch.tensor(content["landmarks"], dtype=torch.float64)
            made_for = content["head_model"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise InputError(f"{path}: not a landmark file ({error})") from error
        if content.get("format") != _FORMAT or table.shape != (NUM_LANDMARKS, 5):
            raise InputError(f"{path}: not a landmark file of {NUM_LANDMARKS} landmarks")
        faces = table[:, 0]
        if made_for != model.name or faces.min() < 0 or faces.max() >= len(model.faces):
            raise InputError(f"{path}: made for '{made_for}', not '{model.name}'")
        if not torch.isfinite(table).all():
            raise InputError(f"{path}: holds NaN or infinity; run 'cag-avatar tie-landmarks'")
        weights = table[:, 1:4] / table[:, 1:4].sum(1, keepdim=True)
        return cls(model.name, table[:, 0].long(), weights.float(), table[:, 4].float())


def landmark_path(model: HeadModel) -> Path:
    """Where a head model's landmarks lie: NAME_landmarks.json beside its file.

    Raises:
        InputError: the model does not come from a file.
    """
    if model.file is None:
        raise InputError(f"head model '{model.name}': has no file, so no landmarks beside it")
    return model.file.with_name(f"{model.name}_landmarks.json")


@lru_cache(maxsize=2)
def load_landmark_embedding(model: HeadModel) -> LandmarkEmbedding:
    """The embedding beside a head model's file. Raises InputError if there is none for it."""
    path = landmark_path(model)
    if not path.is_file():
        raise InputError(
            f"{path}: no landmarks for this head model; run 'cag-avatar tie-landmarks "
            f"--head-model {model.name}'"
        )
    return LandmarkEmbedding.load(path, model)
