"""Mend landmarks that are tied to the wrong part of the face, by life-like rendered subjects."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import torch
from cag_avatar_training.landmark_correction.data import SubjectPictures
from numpy.typing import NDArray

from cag_avatar.errors import InputError
from cag_avatar.head_models.base import REGIONS, HeadModel
from cag_avatar.tracking.face_landmarker import (
    FACE_LANDMARKS,
    NUM_LANDMARKS,
)
from cag_avatar.tracking.landmark_correction import upright_frame
from cag_avatar.tracking.landmark_embedding import LandmarkEmbedding

__all__ = ["tie_to_subjects"]

_SKIN = ("face_skin", "lips", "ears", "scalp", "neck")
_EYES = ("eye_left", "eye_right")
#: Farthest that a landmark may move from where it was tied before, metres.
_REACH = 0.016
#: Deviation beyond which a detection counts no more: the detector fails in some pictures. Metres.
_CAP = 0.012
#: Weight of a landmark's constant distance against its deviations: the constant part is known to
#: the landmark correction and to the fitted shape, what moves differently nobody takes away.
_CONSTANT = 0.3
#: Faces that are searched more finely, and steps of barycentric weights along their edges.
_KEPT, _STEPS = 12, 6
#: A landmark moves where its varying error falls below this part of what it was.
_GAIN = 0.45
#: Every so many-th picture of a subject is used.
_EVERY = 4


def tie_to_subjects(
    data: Mapping[int, SubjectPictures],
    model: HeadModel,
    start: LandmarkEmbedding,
    progress: Callable[[int, int], None] | None = None,
) -> LandmarkEmbedding:
    """Move the landmarks that do not move with the point that they are tied to.

    Detections and surface points are compared upright and in metres at the face. A point's error
    has a part that is constant for a subject and one that varies with expression and view; the
    second counts fully, the first by a third. A landmark moves only where that more than halves its
    varying error: rendered brows are not quite where real ones are, closeness alone is no reason;
    a lower lip tied to the upper one is.

    Args:
        data: of every subject, by seed.
        model: head model of the subjects.
        start: landmarks as tied to plain renders; points within 16 mm of these are searched.
        progress: called with landmarks done and their number.

    Returns:
        The landmarks; those that moved keep their ``spread``.

    Raises:
        InputError: there are no pictures.
    """
    pictures = sum(len(subject.codes) for subject in data.values())
    if pictures == 0:
        raise InputError("subjects: none of their pictures shows a face; render them again")
    mean = start.points(model.vertices, model.faces).numpy().astype(np.float64)[:FACE_LANDMARKS]
    places, detections, starts = _upright(data, model, mean)
    rest, faces = model.vertices.numpy(), model.faces.numpy()
    region = model.face_region.numpy()
    eyes = _EYES if all(len(index) for index in model.eye_vertices) else _SKIN
    allowed = {names: np.isin(region, [REGIONS.index(n) for n in names]) for names in (_SKIN, eyes)}
    middles = rest[faces].mean(1)
    tied = start.points(model.vertices, model.faces).numpy()
    fine = np.array(
        [(i, j, _STEPS - i - j) for i in range(_STEPS + 1) for j in range(_STEPS + 1 - i)],
        np.float32,
    ) / np.float32(_STEPS)
    out_face, out_weight = start.faces.numpy().copy(), start.barycentric.numpy().copy()
    for k in range(NUM_LANDMARKS):
        if progress is not None:
            progress(k, NUM_LANDMARKS)
        on = allowed[_SKIN if k < FACE_LANDMARKS else eyes]
        near = np.flatnonzero(on & (np.linalg.norm(middles - tied[k], axis=1) < _REACH))
        near = np.union1d(near, start.faces[k].numpy())
        middle = np.full((1, 3), 1 / 3, np.float32)
        coarse = _errors(places, detections[:, k], starts, faces[near], middle)[:, 0]
        kept = near[np.argsort(coarse, kind="stable")[:_KEPT]]
        error = _errors(places, detections[:, k], starts, faces[kept], fine)
        face, point = np.unravel_index(error.argmin(), error.shape)
        best = kept[[face]], fine[[point]]
        before, after = (
            _errors(places, detections[:, k], starts, faces[at], weight, constant_weight=0)[0, 0]
            for at, weight in ((out_face[[k]], out_weight[[k]]), best)
        )
        if after < _GAIN * before:
            out_face[k], out_weight[k] = best[0][0], best[1][0]
    if progress is not None:
        progress(NUM_LANDMARKS, NUM_LANDMARKS)
    return LandmarkEmbedding(
        model.name, torch.from_numpy(out_face), torch.from_numpy(out_weight),
        start.spread,
    )  # fmt: skip


def _upright(
    data: Mapping[int, SubjectPictures], model: HeadModel, mean: NDArray[np.float64]
) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.int64]]:
    """Vertices [R, V, 2] and detections [R, 478, 2] of R pictures, and each subject's first."""
    places: list[NDArray[np.float32]] = []
    detections: list[NDArray[np.float32]] = []
    starts = []
    count = 0
    for subject in data.values():
        some = slice(0, None, _EVERY)
        seen = subject.camera().project(subject.vertices(model)[some]).numpy()
        landmarks = subject.landmarks[some]
        if not len(landmarks):
            continue
        frame = upright_frame(mean, landmarks)
        places.append(frame.upright(seen).astype(np.float32))
        detections.append(frame.upright(landmarks[..., :2]).astype(np.float32))
        starts.append(count)
        count += len(landmarks)
    return np.concatenate(places), np.concatenate(detections), np.array(starts)


def _errors(
    places: NDArray[np.float32],
    detected: NDArray[np.float32],
    starts: NDArray[np.int64],
    corners: NDArray[np.integer],
    weights: NDArray[np.float32],
    constant_weight: float = _CONSTANT,
) -> NDArray[np.float64]:
    """Weighted errors [K, G] of G points on each of K faces, metres.

    Args:
        places: upright vertices, [R, V, 2].
        detected: one landmark, [R, 2].
        starts: first picture of each subject.
        corners: vertices of the faces, [K, 3].
        weights: barycentric, [G, 3].
        constant_weight: of each subject's constant error.
    """
    error = np.einsum("gc,rkcx->rkgx", weights, places[:, corners]) - detected[:, None, None]
    counts = np.diff(np.append(starts, len(places)))
    constant = np.add.reduceat(error, starts) / counts[:, None, None, None]
    varying = error - np.repeat(constant, counts, axis=0)
    square = np.minimum((varying**2).sum(-1), _CAP**2).mean(0)
    share = counts / counts.sum()
    square = square + constant_weight**2 * np.tensordot(share, (constant**2).sum(-1), 1)
    return np.asarray(np.sqrt(square))
