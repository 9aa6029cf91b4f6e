"""Trains a person's regressor on the frames that an avatar was trained on."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from cag_avatar_training.dataset import Dataset
from cag_avatar_training.regressor.config import RegressorConfig
from cag_avatar_training.regressor.made_up_faces import FaceMaker, Faces
from cag_avatar_training.regressor.network import RegressorNetwork
from cag_avatar_training.regressor.readings import Readings, code_errors, read_faces
from numpy.typing import NDArray

from cag_avatar.errors import InputError, MissingDependencyError
from cag_avatar.head_models import ARKIT_NAMES, HeadModel, load_head_model
from cag_avatar.tracking.code_regressor import (
    CodeRegressor,
    regressor_features,
    typical_landmarks,
)
from cag_avatar.tracking.face_landmarker import FACE_LANDMARKS
from cag_avatar.tracking.landmark_embedding import load_landmark_embedding

__all__ = ["regressor_of_training", "train_regressor"]

_LOG = logging.getLogger(__name__)


def regressor_of_training(
    dataset: Dataset, frames: Sequence[int], codes: NDArray[np.floating]
) -> CodeRegressor | None:
    """The regressor of an avatar that was just trained on ``frames`` with their codes [N, E].

    None, and the log says why, where the dataset keeps no scores, or it cannot be made.
    """
    if dataset.tracking.scores is None or dataset.tracking.landmarks is None:
        _LOG.info(
            "%s: keeps no scores, so the avatar gets no regressor of its own; "
            "'cag-avatar train-regressor' makes one from the images",
            dataset.path,
        )
        return None
    order = np.argsort(np.asarray(frames))
    try:
        readings = read_faces(dataset, frames)
        return train_regressor(dataset, readings, np.asarray(codes)[order])
    except InputError as error:
        _LOG.warning("the avatar gets no regressor of its own: %s", error)
        return None


def train_regressor(
    dataset: Dataset,
    readings: Readings,
    codes: NDArray[np.floating],
    config: RegressorConfig | None = None,
    show: Callable[[int, int], None] | None = None,
) -> CodeRegressor:
    """Learn the codes of some frames from what MediaPipe says of them.

    Args:
        dataset: whose person it is; no other frame of it is looked at.
        readings: of the N training frames.
        codes: their fitted codes, [N, E].
        config: settings.
        show: called with (trainings done, trainings).

    Raises:
        InputError: too few frames, or the head model has no landmarks.
        MissingDependencyError: ``onnx`` is not installed.
    """
    config = config or RegressorConfig()
    _check_onnx()
    if len(codes) != len(readings.frames) or len(codes) < 4 * config.folds:
        raise InputError(
            f"{dataset.path}: {len(readings.frames)} training frames with a face are too few for "
            f"a regressor, at least {4 * config.folds} are needed"
        )
    head = load_head_model(dataset.info.head_model)
    embedding = load_landmark_embedding(head)
    tracking = dataset.tracking
    rest = head.rest_vertices(
        torch.from_numpy(tracking.identity), torch.from_numpy(tracking.vertex_offsets)
    )
    mean = embedding.points(rest, head.faces)[:FACE_LANDMARKS].numpy()
    wanted = np.asarray(codes, np.float32)
    features = regressor_features(mean, readings.landmarks, readings.scores)
    seen = Faces(features, wanted)
    maker = FaceMaker(head, rest, mean, readings, wanted, seen) if _is_arkit(head) else None
    # Faces of other models cannot be made up: what their code would be in scores is not known.
    shares = config.shares if maker is not None else (0.0,)
    errors: dict[float, list[float]] = {share: [] for share in shares}
    folds = np.array_split(np.arange(len(seen.codes)), config.folds)
    total, done = (len(folds) * len(shares) if len(shares) > 1 else 0) + 1, 0
    steps = max(1, round(config.steps * config.trial))
    if len(shares) > 1:
        for fold in folds:
            train = np.setdiff1d(np.arange(len(seen.codes)), fold)
            made = (
                None
                if maker is None
                else maker.make(train, config.made_up // 3, config.score_noise, config.seed)
            )
            for share in shares:
                network = RegressorNetwork.fit(seen.part(train), made, share, head, config, steps)
                errors[share].append(network.error(seen.part(fold)))
                done += 1
                if show is not None:
                    show(done, total)
    share = min(shares, key=lambda s: float(np.mean(errors[s] or [0.0])))
    everything = np.arange(len(seen.codes))
    made = (
        None
        if maker is None
        else maker.make(everything, config.made_up, config.score_noise, config.seed)
    )
    network = RegressorNetwork.fit(seen, made, share, head, config, config.steps)
    if show is not None:
        show(total, total)
    protocol: dict[str, Any] = {
        "training_frames": len(codes),
        "share_of_made_up_faces": share,
        "cross_validation_error": {
            str(s): round(float(np.mean(e)), 5) for s, e in errors.items() if e
        },
        "training_error": round(network.error(seen), 5),
        "raw_scores_error_of_training_frames": code_errors(None, readings, wanted, head)[
            "raw_scores"
        ],
        "irises_in_pictures": bool(dataset.info.tracking.get("irises_in_pictures", False)),
        "seed": config.seed,
    }
    _LOG.info(
        "regressor: %d frames, mean error %.4f (raw scores: %.4f), made-up faces count %.0f %%",
        len(codes), protocol["training_error"],
        protocol["raw_scores_error_of_training_frames"], 100 * share,
    )  # fmt: skip
    typical = typical_landmarks(mean, readings.landmarks)
    return CodeRegressor(network.graph(), mean, typical, protocol)


def _is_arkit(head: HeadModel) -> bool:
    return head.expression_names == ARKIT_NAMES


def _check_onnx() -> None:
    try:
        import onnx  # noqa: F401
    except ImportError as error:
        raise MissingDependencyError("onnx", "training the regressor", "training") from error
