"""Stages: the head fitted to the landmarks, then to the outline, then to the pictures."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import fields
from typing import Any

import numpy as np
import torch
from cag_avatar_training.preprocess.frame_store import FrameStore
from cag_avatar_training.preprocess.parallel import ordered_map
from cag_avatar_training.preprocess.workspace import StageStore
from cag_avatar_training.progress import Advance
from numpy.typing import NDArray
from torch import Tensor

from cag_avatar.head_models.base import HeadModel
from cag_avatar.tracking.clip_fit import ClipFit, Observations, fit_clip, resume_clip
from cag_avatar.tracking.fit_config import FitConfig
from cag_avatar.tracking.fit_state import FitState
from cag_avatar.tracking.photometric import PhotometricConfig, refine_photometric
from cag_avatar.tracking.silhouette import RimPoints, find_rim, stack_rims

__all__ = ["ClipFitter"]

#: Frames whose outline determines the shape, and how often it is found again: each round moves it.
_RIM_FRAMES, _ROUNDS = 40, 3
#: The state of a fit, and the rim points of all frames, in a stage's folder.
_STATE, _RIMS = "state", "rims"


class ClipFitter:
    """Makes a ClipFit of what the stages before found, or takes up one that a stage kept.

    Args:
        model: head model.
        observations: of T frames, landmarks in pixels of the crop.
        size: width and height of the crop.
        centre: principal point, pixels of the crop.
        config: weights.
    """

    def __init__(
        self,
        model: HeadModel,
        observations: Observations,
        size: int,
        centre: tuple[float, float],
        config: FitConfig,
    ) -> None:
        self.landmarks = observations.landmarks
        self._arguments = (model, observations, (size, size), centre, config)

    def to_landmarks(self, stage: StageStore) -> ClipFit:
        """Stage "fit"."""
        if not stage.whole:
            self._keep(stage, fit_clip(*self._arguments))
        return self._kept(stage)

    def to_outline(
        self, stage: StageStore, fit: ClipFit, alphas: FrameStore, advance: Advance
    ) -> ClipFit:
        """Stage "outline": the shape in rounds, then the poses of all frames."""
        if not stage.whole:
            count = len(self.landmarks)
            some = np.unique(np.linspace(0, count - 1, min(_RIM_FRAMES, count)).round().astype(int))
            done = 0
            for _ in range(_ROUNDS):
                found: dict[int, RimPoints] = {}
                for t, points in zip(some, self._rims(fit, alphas, some), strict=True):
                    found[int(t)] = points
                    advance(done := done + 1)
                fit = fit.with_rims(found)
            rims = []
            for points in self._rims(fit, alphas, np.arange(count)):
                rims.append(points)
                advance(done := done + 1)
            stage.save(_RIMS, _flat(rims))
            self._keep(stage, fit.with_all_rims(rims))
        return self._kept(stage)

    def to_pictures(
        self,
        stage: StageStore,
        outline: StageStore,
        fit: ClipFit,
        images: FrameStore,
        config: PhotometricConfig,
        advance: Advance,
    ) -> ClipFit:
        """Stage "photometric". It holds the outline that stage ``outline`` found."""
        if not stage.whole:
            done = itertools.count(1)
            rims = _unflat(outline.load(_RIMS)[0], len(self.landmarks))
            rim = stack_rims(rims, fit.model, space=None, rest=fit.rest)
            fit = refine_photometric(
                fit, lambda t: images[t], config, lambda: advance(next(done)), rim
            )
            self._keep(stage, fit)
        return self._kept(stage)

    @staticmethod
    def outline_steps(count: int) -> int:
        """Steps that :meth:`to_outline` reports."""
        return _ROUNDS * min(_RIM_FRAMES, count) + count

    def _rims(self, fit: ClipFit, alphas: FrameStore, frames: NDArray[Any]) -> Iterator[RimPoints]:
        rest = fit.rest.numpy()

        def rim(frame: int) -> RimPoints:
            height = float(np.ptp(self.landmarks[frame, :, 1]))
            return find_rim(fit.model, rest, fit.buffers(frame), alphas[frame], height)

        return ordered_map(rim, (int(t) for t in frames))

    def _keep(self, stage: StageStore, fit: ClipFit) -> None:
        arrays, notes = {}, {}
        for item in fields(FitState):
            value = getattr(fit.state, item.name)
            if isinstance(value, Tensor):
                arrays[item.name] = value.numpy()
            else:
                notes[item.name] = value
        stage.save(_STATE, arrays, **notes)
        stage.commit(len(self.landmarks), whole=True)

    def _kept(self, stage: StageStore) -> ClipFit:
        arrays, notes = stage.load(_STATE)
        values: dict[str, Any] = {k: torch.from_numpy(v) for k, v in arrays.items()}
        values |= {k: tuple(v) if isinstance(v, list) else v for k, v in notes.items()}
        return resume_clip(*self._arguments, FitState(**values))


def _flat(rims: list[RimPoints]) -> dict[str, NDArray[Any]]:
    """Rim points of all frames one after the other, and how many each frame has."""
    names = ("faces", "barycentric", "normals", "targets")
    arrays = {name: np.concatenate([getattr(r, name) for r in rims]) for name in names}
    return arrays | {"count": np.array([len(r.faces) for r in rims], np.int64)}


def _unflat(arrays: dict[str, NDArray[Any]], frames: int) -> list[RimPoints]:
    ends = np.cumsum(arrays["count"])
    assert len(ends) == frames
    parts = [
        np.split(arrays[name], ends[:-1]) for name in ("faces", "barycentric", "normals", "targets")
    ]
    return [RimPoints(*points) for points in zip(*parts, strict=True)]
