"""The shape of an operator's head from some frames of a live video.

A program of its own, which the estimator starts (``operator_solver.py``): it brings torch, and in
one process it would take turns with the live frames. Reads OperatorFrames from standard input and
writes OperatorShape to standard output.
"""

from __future__ import annotations

import json
import sys
from dataclasses import asdict, dataclass
from io import BytesIO
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cag_avatar.tracking.fit_config import FitConfig
from cag_avatar.tracking.landmark_correction import Typical

__all__ = ["OperatorFrames", "OperatorShape", "solve_operator"]


@dataclass(frozen=True, eq=False)
class OperatorFrames:
    """What was seen in T frames of one person."""

    head_model: str
    """Name of the head model."""
    size: tuple[int, int]
    """Width and height of the frames, pixels."""
    config: FitConfig
    """Weights."""
    landmarks: NDArray[np.float32]
    """MediaPipe's, [T, 478, 3] pixels."""
    scores: NDArray[np.float32]
    """MediaPipe's blendshape scores, [T, 52]."""
    colors: NDArray[np.float32]
    """Of face_colors(), [T, 468, 3]."""

    def to_bytes(self) -> bytes:
        """For another process."""
        settings = {"head_model": self.head_model, "size": self.size, "config": asdict(self.config)}
        return _packed(
            settings=np.array(json.dumps(settings)),
            landmarks=self.landmarks,
            scores=self.scores,
            colors=self.colors,
        )

    @classmethod
    def from_bytes(cls, data: bytes) -> OperatorFrames:
        """Inverse of :meth:`to_bytes`."""
        arrays = _unpacked(data)
        settings = json.loads(str(arrays.pop("settings")))
        width, height = settings["size"]
        config = FitConfig(**settings["config"])
        return cls(settings["head_model"], (width, height), config, **arrays)


@dataclass(frozen=True, eq=False)
class OperatorShape:
    """How an operator looks."""

    rest: NDArray[np.float32]
    """Landmarks of their rest head, metres, canonical space, [478, 3]."""
    focal: float
    """Focal length, pixels."""
    typical: Typical | None
    """Of the operator, for the landmark correction; None where there is no correction."""

    def to_bytes(self) -> bytes:
        """For another process."""
        arrays = {"rest": self.rest, "focal": np.array(self.focal)}
        if self.typical is not None:
            arrays |= {"features": self.typical.features, "error": self.typical.error}
        return _packed(**arrays)

    @classmethod
    def from_bytes(cls, data: bytes) -> OperatorShape:
        """Inverse of :meth:`to_bytes`. Raises ValueError when the data is none of it."""
        arrays = _unpacked(data)
        typical = Typical(arrays["features"], arrays["error"]) if "features" in arrays else None
        return cls(arrays["rest"], float(arrays["focal"]), typical)


def solve_operator(frames: OperatorFrames) -> OperatorShape:
    """Solve shape, poses and codes of the frames together.

    Raises:
        InputError: the head model has no file or no landmarks.
    """
    import torch

    from cag_avatar.head_models import load_head_model
    from cag_avatar.tracking.clip_prior import clip_prior
    from cag_avatar.tracking.code_prior import code_prior, corrected_prior
    from cag_avatar.tracking.fitting import at_distance, fit_frames, fit_shared, initial_state
    from cag_avatar.tracking.landmark_correction import load_landmark_correction
    from cag_avatar.tracking.landmark_embedding import load_landmark_embedding
    from cag_avatar.tracking.landmark_weights import landmark_weights
    from cag_avatar.tracking.surface_basis import shape_space

    config = frames.config
    model = load_head_model(frames.head_model)
    embedding = load_landmark_embedding(model)
    points = shape_space(model).points(embedding.faces, embedding.barycentric)
    weights = torch.from_numpy(landmark_weights(embedding.spread.numpy(), config))
    landmarks = np.ascontiguousarray(frames.landmarks[..., :2])
    prior, typical = code_prior(frames.scores, config), None
    correction = load_landmark_correction(model.name) if config.correction != "none" else None
    if correction is not None:
        seen = (frames.landmarks, frames.scores, frames.colors)
        typical = correction.typical(*seen)
        better = correction.correct(*seen, typical, rigid=config.correction == "rigid")
        landmarks, prior = better.landmarks, corrected_prior(better, config)
    centre = frames.size[0] / 2, frames.size[1] / 2
    found = torch.from_numpy(landmarks)
    with torch.no_grad():
        state = initial_state(points, found, centre, config)
        arguments = (points, found, weights, clip_prior(prior), config)
        state = fit_frames(state, *arguments, iterations=3)
        state = at_distance(fit_shared(state, *arguments, iterations=4), config)
        return OperatorShape(points.rest(state.shape).numpy(), state.focal, typical)


def _packed(**arrays: NDArray[Any]) -> bytes:
    buffer = BytesIO()
    np.savez(buffer, allow_pickle=False, **arrays)
    return buffer.getvalue()


def _unpacked(data: bytes) -> dict[str, NDArray[Any]]:
    with np.load(BytesIO(data), allow_pickle=False) as file:
        return dict(file)


if __name__ == "__main__":
    result = solve_operator(OperatorFrames.from_bytes(sys.stdin.buffer.read()))
    sys.stdout.buffer.write(result.to_bytes())
