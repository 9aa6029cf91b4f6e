"""The landmarks of a head model as arrays: what a live fit needs of it, without torch.

Made from the head model once on a machine and kept in the user's cache folder, because reading the
model and everything that it imports takes seconds.
"""

from __future__ import annotations

import hashlib
import logging
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from cag_avatar import __version__
from cag_avatar.errors import InputError
from cag_avatar.files import replacing
from cag_avatar.head_models.arkit import ARKIT_NAMES
from cag_avatar.head_models.library import head_model_path
from cag_avatar.native.library import cache_folder
from cag_avatar.tracking.face_landmarker import NUM_LANDMARKS

__all__ = ["LivePoints", "load_live_points"]

_LOG = logging.getLogger(__name__)
_FORMAT = "cag_avatar-live-points-2"


@dataclass(frozen=True, eq=False)
class LivePoints:
    """Surface points of a model that is linear in ARKit's coefficients, as SurfacePoints."""

    mean: NDArray[np.float32]
    """On the mean head, metres, canonical space, [478, 3]."""
    expression: NDArray[np.float32]
    """How coefficients move them, [52, 478, 3]."""
    eye: NDArray[np.int32]
    """0 or 1 for points on the left or right eyeball, else -1, [478]."""
    eye_arm: NDArray[np.float32]
    """From the middle of an eyeball's points to its centre, metres, [2, 3]: see eye_arms()."""
    spread: NDArray[np.float32]
    """Of the LandmarkEmbedding, [478]."""

    def save(self, path: Path) -> None:
        """Write one safetensors file. Raises OSError when it cannot be written."""
        arrays = {f.name: np.ascontiguousarray(getattr(self, f.name)) for f in fields(self)}
        with replacing(path) as temporary:
            save_file(arrays, temporary, {"format": _FORMAT})

    @classmethod
    def load(cls, path: Path) -> LivePoints | None:
        """Read what :meth:`save` wrote; None where that is not there or not whole."""
        try:
            with safe_open(path, "np") as handle:
                names = set(handle.keys())
                whole = (handle.metadata() or {}).get("format") == _FORMAT
                if not whole or names != {f.name for f in fields(cls)}:
                    return None
                points = cls(**{name: handle.get_tensor(name) for name in names})
        except (OSError, SafetensorError):
            return None
        return points if points._is_sound() else None

    def _is_sound(self) -> bool:
        """Whether shapes and values are such as C may be given."""
        n = NUM_LANDMARKS
        shapes = {"mean": (n, 3), "expression": (len(ARKIT_NAMES), n, 3), "eye": (n,)}
        shapes |= {"eye_arm": (2, 3), "spread": (n,)}
        fits = all(getattr(self, name).shape == shape for name, shape in shapes.items())
        finite = all(np.isfinite(array).all() for array in vars(self).values())
        return fits and finite and bool(np.isin(self.eye, (-1, 0, 1)).all())


def load_live_points(head_model: str) -> LivePoints:
    """The landmarks of a head model, by name; from the cache where they are there.

    Raises:
        InputError: there is no such model or no landmarks for it, or it is not linear in ARKit's
            52 coefficients.
    """
    kept = _kept_file(head_model_path(head_model))
    points = LivePoints.load(kept)
    if points is None:
        points = _make(head_model)
        try:
            points.save(kept)
        except OSError as error:
            _LOG.info("%s cannot be written (%s): every start takes longer", kept, error)
    return points


def _kept_file(model: Path) -> Path:
    """Where the points of a head model's file are kept: elsewhere once anything of it changes."""
    digest = hashlib.sha256(f"{_FORMAT} {__version__}".encode())
    landmarks = model.with_name(f"{model.stem}_landmarks.json")
    for file in (model, landmarks, Path(__file__)):
        digest.update(file.read_bytes() if file.is_file() else b"none")
    return cache_folder() / f"live-points-{digest.hexdigest()[:32]}.safetensors"


def _make(head_model: str) -> LivePoints:
    import torch

    from cag_avatar.head_models import REGIONS, LinearHeadModel, load_head_model
    from cag_avatar.tracking.landmark_embedding import load_landmark_embedding
    from cag_avatar.tracking.surface_basis import eye_arms

    model = load_head_model(head_model)
    if model.expression_names != ARKIT_NAMES:
        raise InputError(f"head model '{model.name}': its code is not the 52 ARKit coefficients")
    if not isinstance(model, LinearHeadModel):
        raise InputError(f"head model '{model.name}': is not linear in its code, live must be")
    embedding = load_landmark_embedding(model)
    region = model.face_region[embedding.faces].numpy()
    eye = np.full(NUM_LANDMARKS, -1, np.int32)
    for side, name in enumerate(("eye_left", "eye_right")):
        eye[region == REGIONS.index(name)] = side
    _LOG.info("landmarks of head model '%s' prepared, once on this machine", model.name)
    mean = embedding.points(model.vertices, model.faces)
    return LivePoints(
        mean.numpy(),
        embedding.points(model.expression_basis, model.faces).numpy(),
        eye,
        eye_arms(model, mean, torch.from_numpy(eye)).numpy(),
        embedding.spread.numpy(),
    )
