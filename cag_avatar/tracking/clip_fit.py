"""Fit a head model to a whole clip: landmarks first, then the matte's outline."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cag_avatar.camera import PinholeCamera
from cag_avatar.head_models.base import HeadModel
from cag_avatar.rendering.mesh import MeshBuffers, rasterize, visible_faces
from cag_avatar.tracking.clip_prior import ClipPrior, clip_prior, model_prior
from cag_avatar.tracking.code_prior import code_prior, corrected_prior, with_free_gaze
from cag_avatar.tracking.conjugate_gaze import with_conjugate_gaze
from cag_avatar.tracking.fit_config import FitConfig
from cag_avatar.tracking.fit_state import FitState
from cag_avatar.tracking.fitting import (
    at_distance,
    fit_frames,
    fit_shared,
    initial_state,
    landmark_residuals,
)
from cag_avatar.tracking.irises import with_irises
from cag_avatar.tracking.landmark_correction import load_landmark_correction
from cag_avatar.tracking.landmark_embedding import (
    LandmarkEmbedding,
    load_landmark_embedding,
)
from cag_avatar.tracking.landmark_weights import landmark_weights
from cag_avatar.tracking.silhouette import RimPoints, stack_rims
from cag_avatar.tracking.steadying import SteadyConfig, steady_poses
from cag_avatar.tracking.surface_basis import ShapeSpace, shape_space

__all__ = ["ClipFit", "Observations", "fit_clip", "resume_clip"]

#: Frames whose residuals are in memory together.
_CHUNK = 64

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class Observations:
    """What the face landmarker and the pictures say, frame by frame."""

    landmarks: NDArray[np.float32]
    """MediaPipe's, in pixels of the pictures that are fitted, [T, 478, 3]."""
    scores: NDArray[np.float32]
    """MediaPipe's blendshape scores, [T, 52]."""
    colors: NDArray[np.generic] | None = None
    """Blurred colours at the landmarks of the face (face_colors), 0..255, [T, 468, 3]; without
    them the landmarks cannot be corrected."""
    looks: NDArray[np.float32] | None = None
    """What the picture reader says of the faces (PictureReader.read), [T, D]; None: nobody looked,
    and landmarks are corrected without."""
    irises: NDArray[np.float32] | None = None
    """What the pictures add to the irises' landmarks (combined_shifts), pixels, [T, 2, 2]; None:
    nobody looked."""


@dataclass(frozen=True)
class _Observed:
    landmarks: Tensor  # [T, 478, 2]
    prior: ClipPrior
    irises: bool = False  # theirs were found in the pictures


def _observe(model: HeadModel, observations: Observations, config: FitConfig) -> _Observed:
    """Landmarks and prior, corrected where there is a correction for the model."""
    landmarks, scores = observations.landmarks, observations.scores
    irises = observations.irises is not None
    wanted = config.correction != "none"
    looks = observations.looks
    correction = load_landmark_correction(model.name, looks is not None) if wanted else None
    if correction is not None and observations.colors is not None:
        better = correction.correct(
            landmarks, scores, observations.colors.astype(np.float32),
            rigid=config.rigid(looks is not None), looks=looks, irises_found=irises,
        )  # fmt: skip
        expected = corrected_prior(better, config)
        prior = clip_prior(with_free_gaze(expected, config) if irises else expected)
        return _Observed(_with_irises(better.landmarks, observations), prior, irises)
    if wanted:
        _LOG.info("head model '%s': landmarks are taken as the detector gives them", model.name)
    prior = clip_prior(code_prior(scores, config))
    return _Observed(
        _with_irises(landmarks[..., :2], observations), model_prior(model, prior, config), irises
    )


def _with_irises(landmarks: NDArray[np.float32], observations: Observations) -> Tensor:
    """Landmarks [T, 478, 2] with what the pictures add to the irises'."""
    shifts = observations.irises
    return torch.from_numpy(
        np.array(landmarks, np.float32) if shifts is None else with_irises(landmarks, shifts)
    )


def _weights(embedding: LandmarkEmbedding, observed: _Observed, config: FitConfig) -> Tensor:
    spread = embedding.spread.numpy()
    return torch.from_numpy(landmark_weights(spread, config, observed.irises))


class ClipFit:
    """A head fitted to a clip; made by :func:`fit_clip`."""

    def __init__(
        self,
        model: HeadModel,
        space: ShapeSpace,
        state: FitState,
        size: tuple[int, int],
        observed: _Observed,
        config: FitConfig,
    ) -> None:
        self.model = model
        self.state = state
        self._space = space
        self._size = size
        self._observed = observed
        self._config = config
        embedding = load_landmark_embedding(model)
        self._points = space.points(embedding.faces, embedding.barycentric)
        self._weights = _weights(embedding, observed, config)
        self.identity, self.offsets = space.split(state.shape)
        self.rest = model.rest_vertices(self.identity, self.offsets)
        # By face; what face -1, nothing, shows comes last.
        self._regions = np.append(model.face_region.numpy(), -1).astype(np.int8)

    @property
    def count(self) -> int:
        """Number of frames T."""
        return len(self.state.code)

    @property
    def camera(self) -> PinholeCamera:
        """The fitted camera."""
        focal, centre = self.state.focal, self.state.centre
        return PinholeCamera(*self._size, focal, focal, *centre)

    def buffers(self, frame: int, torso_pose: Tensor | None = None) -> MeshBuffers:
        """The fitted mesh as seen in a frame; the torso follows the head unless it has a pose.

        Several threads may draw at once; so for :meth:`labels`.
        """
        vertices = self._posed(frame, torso_pose)
        return rasterize(vertices, self.model.faces.numpy(), self.camera, threads=1)

    def labels(self, frame: int) -> NDArray[np.int8]:
        """Region of the fitted mesh at each pixel of a frame, -1 where there is none, [H, W]."""
        face = visible_faces(self._posed(frame, None), self.model.faces.numpy(), self.camera)
        return self._regions[face]

    def _posed(self, frame: int, torso_pose: Tensor | None) -> NDArray[np.float32]:
        at = torch.tensor([frame])
        pose = self.state.at(at).head_pose()
        torso = pose if torso_pose is None else torso_pose[None]
        vertices = self.model.posed_vertices(self.rest, self.state.code[at], pose, torso)[0]
        return np.asarray(vertices.numpy(), np.float32)

    def with_rims(self, rims: dict[int, RimPoints]) -> ClipFit:
        """Solve again with the outlines of some frames: their shape first, then all poses.

        Args:
            rims: rim points by frame number; frames without are fitted to landmarks alone.
        """
        observed, config = self._observed, self._config
        chosen = torch.tensor(sorted(rims))
        part = stack_rims([rims[int(t)] for t in chosen], self.model, space=self._space, rest=None)
        arguments = (
            self._points,
            observed.landmarks[chosen],
            self._weights,
            observed.prior.at(chosen),
        )
        survey = replace(config, shared_frames=len(chosen))
        shared = fit_shared(
            self.state.at(chosen),
            *arguments,
            survey,
            iterations=4,
            silhouette=part,
        )
        # Poses only follow the new shape; the outlines of all frames settle them.
        state = at_distance(replace(self.state, shape=shared.shape), config)
        return self._again(state, iterations=1)

    def with_all_rims(self, rims: list[RimPoints], iterations: int = 4) -> ClipFit:
        """Solve poses and codes of every frame with its outline; the shape stays."""
        rim = stack_rims(rims, self.model, space=None, rest=self.rest)
        return self._again(self.state, iterations, rim)

    def _again(self, state: FitState, iterations: int = 4, rim: object | None = None) -> ClipFit:
        state = fit_frames(
            state, self._points, self._observed.landmarks, self._weights, self._observed.prior,
            self._config, iterations=iterations, silhouette=rim,  # type: ignore[arg-type]
        )  # fmt: skip
        return ClipFit(self.model, self._space, state, self._size, self._observed, self._config)

    def steadied(self, runs: Iterable[tuple[int, int]], config: SteadyConfig) -> ClipFit:
        """With head poses that tremble less; ``runs`` as in :func:`steady_poses`."""
        rotation, translation = steady_poses(
            self.state.rotation, self.state.translation, runs, config
        )
        state = replace(self.state, rotation=rotation, translation=translation)
        return ClipFit(self.model, self._space, state, self._size, self._observed, self._config)

    def with_conjugate_gaze(self) -> ClipFit:
        """With eyes that look up and down together; see :func:`with_conjugate_gaze`."""
        code = with_conjugate_gaze(self.state.code.numpy(), self.model.expression_names)
        state = replace(self.state, code=torch.from_numpy(code))
        return ClipFit(self.model, self._space, state, self._size, self._observed, self._config)

    def landmark_rmse(self) -> float:
        """Root mean square of the landmark errors' coordinates, in inter-ocular distances."""
        seen = self._observed.landmarks
        total = 0.0
        for frames in torch.arange(len(seen)).split(_CHUNK):
            errors = landmark_residuals(self.state.at(frames), self._points, seen[frames])
            total += float(errors.double().square().sum())
        return float(np.sqrt(total / seen.numel()))


def fit_clip(
    model: HeadModel,
    observations: Observations,
    size: tuple[int, int],
    centre: tuple[float, float],
    config: FitConfig,
) -> ClipFit:
    """Fit to landmarks: shared identity and smooth offsets; poses and codes by frame.

    Args:
        model: the head model.
        observations: of T frames.
        size: width and height of the pictures.
        centre: principal point, pixels.
        config: weights.
    """
    space = shape_space(model)
    embedding = load_landmark_embedding(model)
    points = space.points(embedding.faces, embedding.barycentric)
    observed = _observe(model, observations, config)
    weights = _weights(embedding, observed, config)
    state = initial_state(points, observed.landmarks, centre, config)
    arguments = (points, observed.landmarks, weights, observed.prior, config)
    state = fit_frames(state, *arguments, iterations=4)
    for iterations in (4, 3):
        state = fit_shared(state, *arguments, iterations=iterations)
        state = fit_frames(at_distance(state, config), *arguments, iterations=4)
    return ClipFit(model, space, at_distance(state, config), size, observed, config)


def resume_clip(
    model: HeadModel,
    observations: Observations,
    size: tuple[int, int],
    centre: tuple[float, float],
    config: FitConfig,
    state: FitState,
) -> ClipFit:
    """The ClipFit that had ``state``, without solving anything; arguments as in fit_clip()."""
    return ClipFit(
        model, shape_space(model), state, size, _observe(model, observations, config), config
    )
