"""The landmark correction from its data: measured on held-out subjects, then trained on all."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any

import numpy as np
from cag_avatar_training.landmark_correction.config import CorrectionConfig
from cag_avatar_training.landmark_correction.data import CorrectionData, SubjectPictures
from cag_avatar_training.landmark_correction.learning import (
    bare_skin,
    fit_network,
    held_out_figures,
    make_examples,
)
from cag_avatar_training.landmark_correction.mirroring import (
    mirror_landmarks,
    mirrored_data,
    mirrored_points,
)
from numpy.typing import NDArray

from cag_avatar.errors import InputError
from cag_avatar.head_models import ARKIT_NAMES, HeadModel
from cag_avatar.tracking.face_landmarker import NUM_LANDMARKS
from cag_avatar.tracking.face_pictures import PictureReader, reader_arrays
from cag_avatar.tracking.landmark_correction import (
    FACE_LANDMARKS,
    LandmarkCorrection,
    landmark_features,
)
from cag_avatar.tracking.landmark_embedding import LandmarkEmbedding

__all__ = ["learn_correction", "with_truth"]

#: The deviation of a code is never taken to be smaller: real faces are not rendered ones.
_LEAST_DEVIATION = 0.04


def with_truth(
    pictures: Mapping[int, SubjectPictures], model: HeadModel, embedding: LandmarkEmbedding
) -> dict[int, CorrectionData]:
    """Where the landmarks of an embedding truly are in the pictures of all subjects."""
    mirrored = mirrored_points(model, embedding)
    return {s: subject.with_truth(model, embedding, mirrored) for s, subject in pictures.items()}


def learn_correction(
    data: Mapping[int, CorrectionData],
    model: HeadModel,
    embedding: LandmarkEmbedding,
    config: CorrectionConfig,
    progress: Callable[[str, int, int], None] | None = None,
) -> LandmarkCorrection:
    """Train twice: without the held-out subjects, to measure; then with all, to be used.

    A network that reads pictures is trained once, because it takes long, and used as measured.

    Args:
        data: of every subject in which a face was found, by seed.
        model: head model of the subjects.
        embedding: its landmarks.
        config: of the training.
        progress: told the stage ("measure" or "train"), steps done and their number.

    Returns:
        The network; its ``deviation`` and ``protocol`` are those of the measured one.

    Raises:
        InputError: no subject is held out, or none is left to train on.
    """
    held_out = [seed for seed in config.held_out if seed in data]
    trained = [seed for seed in data if seed not in config.held_out]
    if not held_out or not trained:
        raise InputError(
            f"subjects: faces were found of {len(trained)} to train on and {len(held_out)} to "
            "measure on; take more subjects"
        )
    points = embedding.points(model.vertices, model.faces).numpy().astype(np.float64)
    mean, skin = points[:FACE_LANDMARKS], bare_skin(model, embedding)
    other = mirror_landmarks(_mean_face(data, mean, skin))

    def fit(seeds: list[int], stage: str) -> dict[str, NDArray]:
        subjects = [data[seed] for seed in seeds]
        subjects += [mirrored_data(subject, other) for subject in subjects]
        examples = make_examples(subjects, mean, skin, config.pictures)

        def tell(done: int, total: int) -> None:
            if progress is not None:
                progress(stage, done, total)

        return fit_network(examples, mean, skin, config, tell)

    unknown = np.full(len(ARKIT_NAMES), _LEAST_DEVIATION)
    arrays = fit(trained, "measure")
    measured = LandmarkCorrection(model.name, {**arrays, "deviation": unknown})
    reader = PictureReader(reader_arrays(arrays)) if config.pictures else None
    figures, deviation = held_out_figures(measured, [data[seed] for seed in held_out], reader)
    if not config.pictures:
        arrays = fit(sorted(data), "train")
    arrays["deviation"] = np.maximum(deviation, _LEAST_DEVIATION)
    return LandmarkCorrection(model.name, arrays, _protocol(data, held_out, figures, config))


def _mean_face(
    data: Mapping[int, CorrectionData], mean: NDArray[np.float64], skin: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Mean of the upright detected landmarks, [478, 3]."""
    faces = [
        landmark_features(mean, skin, d.landmarks, d.scores, d.colors)[0][:, : 3 * NUM_LANDMARKS]
        for d in data.values()
    ]
    return np.concatenate(faces).mean(0).reshape(NUM_LANDMARKS, 3)


def _protocol(
    data: Mapping[int, CorrectionData],
    held_out: list[int],
    figures: dict[str, Any],
    config: CorrectionConfig,
) -> dict[str, Any]:
    return {
        "subjects": len(data),
        "frames": sum(len(subject.codes) for subject in data.values()),
        "seeds": [min(data), max(data)],
        "mirrored": True,
        "config": asdict(config),
        "held_out": {
            "seeds": held_out,
            "frames": sum(len(data[seed].codes) for seed in held_out),
            **figures,
        },
    }
