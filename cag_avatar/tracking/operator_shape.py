"""The shape of an operator's head from some frames of a live video.

A program of its own, which the estimator starts (``operator_solver.py``): it brings torch, and in
one process it would take turns with the live frames. Reads OperatorFrames from standard input and
writes OperatorShape to standard output.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from io import BytesIO
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cag_avatar.tracking.fit_config import FitConfig
from cag_avatar.tracking.irises import EyeLook
from cag_avatar.tracking.landmark_correction import Typical
from cag_avatar.tracking.live_irises import EyeLooks, OperatorIrises, learn_irises

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
    eyes: Sequence[EyeLooks]
    """Of look_at_eyes(), T of them."""

    def to_bytes(self) -> bytes:
        """For another process."""
        settings = {"head_model": self.head_model, "size": self.size, "config": asdict(self.config)}
        looks = [look for pair in self.eyes for look in pair]
        seen = [look for look in looks if look is not None]
        nothing = np.zeros((0, 3), np.float32), np.zeros((0, 2), np.float32)
        return _packed(
            settings=np.array(json.dumps(settings)),
            landmarks=self.landmarks,
            scores=self.scores,
            colors=self.colors,
            eye_pixels=np.array([0 if look is None else len(look.at) for look in looks], np.int64),
            eye_colors=np.concatenate([nothing[0], *(look.colors for look in seen)]),
            eye_at=np.concatenate([nothing[1], *(look.at for look in seen)]),
        )

    @classmethod
    def from_bytes(cls, data: bytes) -> OperatorFrames:
        """Inverse of :meth:`to_bytes`."""
        arrays = _unpacked(data)
        settings = json.loads(str(arrays.pop("settings")))
        width, height = settings["size"]
        config = FitConfig(**settings["config"])
        counts = arrays.pop("eye_pixels")
        ends = np.cumsum(counts)[:-1]
        colors, at = (np.split(arrays.pop(name), ends) for name in ("eye_colors", "eye_at"))
        looks = [
            EyeLook(*parts) if count else None
            for count, *parts in zip(counts, colors, at, strict=True)
        ]
        eyes = list(zip(looks[::2], looks[1::2], strict=True))
        return cls(settings["head_model"], (width, height), config, eyes=eyes, **arrays)


@dataclass(frozen=True, eq=False)
class OperatorShape:
    """How an operator looks."""

    rest: NDArray[np.float32]
    """Landmarks of their rest head, metres, canonical space, [478, 3]."""
    focal: float
    """Focal length, pixels."""
    typical: Typical | None
    """Of the operator, for the landmark correction; None where there is no correction."""
    irises: OperatorIrises | None = None
    """Theirs; None where they were hardly seen."""

    def to_bytes(self) -> bytes:
        """For another process."""
        arrays = {"rest": self.rest, "focal": np.array(self.focal)}
        if self.typical is not None:
            arrays |= {"features": self.typical.features, "error": self.typical.error}
        if self.irises is not None:
            arrays |= {f"iris_{name}": np.asarray(v) for name, v in vars(self.irises).items()}
        return _packed(**arrays)

    @classmethod
    def from_bytes(cls, data: bytes) -> OperatorShape:
        """Inverse of :meth:`to_bytes`. Raises ValueError when the data is none of it."""
        arrays = _unpacked(data)
        typical = Typical(arrays["features"], arrays["error"]) if "features" in arrays else None
        irises = None
        if "iris_rings" in arrays:
            rings, centres, proportion = (
                arrays[f"iris_{name}"] for name in ("rings", "centres", "proportion")
            )
            irises = OperatorIrises(rings, centres, float(proportion))
        return cls(arrays["rest"], float(arrays["focal"]), typical, irises)


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
        better = correction.correct(*seen, typical, rigid=config.rigid(pictures=False))
        landmarks, prior = better.landmarks, corrected_prior(better, config)
    centre = frames.size[0] / 2, frames.size[1] / 2
    found = torch.from_numpy(landmarks)
    with torch.no_grad():
        state = initial_state(points, found, centre, config)
        arguments = (points, found, weights, clip_prior(prior), config)
        state = fit_frames(state, *arguments, iterations=3)
        state = at_distance(fit_shared(state, *arguments, iterations=4), config)
        rest = points.rest(state.shape).numpy()
    return OperatorShape(rest, state.focal, typical, learn_irises(frames.eyes, frames.landmarks))


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
