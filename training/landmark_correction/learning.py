"""The network that predicts the face landmarker's errors: examples, training, measuring."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from cag_avatar_training.landmark_correction.config import CorrectionConfig
from cag_avatar_training.landmark_correction.data import CorrectionData
from cag_avatar_training.landmark_correction.descent import (
    descend,
    perceptron,
    perceptron_arrays,
)
from cag_avatar_training.landmark_correction.picture_network import (
    PictureExamples,
    train_picture_network,
)
from cag_avatar_training.tracking_benchmark import COEFFICIENTS
from numpy.typing import NDArray
from torch import Tensor, nn

from cag_avatar.head_models import ARKIT_INDEX, REGIONS, HeadModel
from cag_avatar.tracking.face_landmarker import EYE_OUTER_CORNERS, FACE_LANDMARKS
from cag_avatar.tracking.face_pictures import FacePlanes, PictureReader
from cag_avatar.tracking.landmark_correction import (
    LandmarkCorrection,
    landmark_features,
)
from cag_avatar.tracking.landmark_embedding import LandmarkEmbedding

__all__ = ["Examples", "bare_skin", "fit_network", "held_out_figures", "make_examples"]

#: Weight of the codes' squared errors against the error components' (of unit-like scale).
_CODE_WEIGHT = 4.0
#: The largest error component gets this standard deviation.
_ERROR_SCALE = 2.0
#: Standard deviation below which a principal component of the input is not magnified further.
_LEAST_DEVIATION = 0.1
#: Parts of the face whose colour is not the light's, canonical (x, y) and radius, metres: eyes and
#: brows' inner ends, lips.
_COLOURED = (
    ((0.032, 0.0), 0.024), ((-0.032, 0.0), 0.024), ((0.0, -0.068), 0.02), ((0.015, -0.068), 0.02),
    ((-0.015, -0.068), 0.02),
)  # fmt: skip
#: Height of the brows and half their thickness, metres.
_BROWS = (0.024, 0.008)


@dataclass(frozen=True)
class Examples:
    """N pictures of several subjects as the network sees them."""

    features: NDArray[np.float32]
    """Of ``landmark_features``, [N, 1497]."""
    typical: NDArray[np.float32]
    """Median features of each picture's subject, [N, 1497]."""
    codes: NDArray[np.float32]
    """True codes, [N, 52]."""
    errors: NDArray[np.float32]
    """Truth minus detection, upright, metres at the face, [N, 956]."""
    pictures: PictureExamples | None
    """Where the network reads them."""


def bare_skin(model: HeadModel, embedding: LandmarkEmbedding) -> NDArray[np.int64]:
    """Landmarks on skin without brows, lids or lips, whose colours tell the light."""
    points = embedding.points(model.vertices, model.faces)[:FACE_LANDMARKS, :2].numpy()
    region = model.face_region[embedding.faces[:FACE_LANDMARKS]].numpy()
    bare = region == REGIONS.index("face_skin")
    for middle, radius in _COLOURED:
        bare &= np.linalg.norm(points - middle, axis=1) > radius
    bare &= np.abs(points[:, 1] - _BROWS[0]) > _BROWS[1]
    return np.flatnonzero(bare)


def make_examples(
    subjects: Sequence[CorrectionData],
    mean: NDArray[np.float64],
    skin: NDArray[np.int64],
    pictures: bool = False,
) -> Examples:
    """Examples of several subjects; ``mean`` and ``skin`` as in ``landmark_features``."""
    rows: list[tuple[NDArray, ...]] = []
    for data in subjects:
        features, frame = landmark_features(mean, skin, data.landmarks, data.scores, data.colors)
        shift = data.true_px - data.landmarks[..., :2]
        errors = np.einsum("tij,tnj->tni", frame.turn, shift) / frame.scale[:, None, None]
        typical = np.broadcast_to(np.median(features, axis=0), features.shape)
        rows.append((features, typical, data.codes, errors.reshape(len(errors), -1)))
    columns = (np.concatenate(part).astype(np.float32) for part in zip(*rows, strict=True))
    joined = dict(zip(("features", "typical", "codes", "errors"), columns, strict=True))
    return Examples(**joined, pictures=_picture_examples(subjects) if pictures else None)


def _picture_examples(subjects: Sequence[CorrectionData]) -> PictureExamples:
    """Pictures of the subjects' examples; a mirrored subject uses those of its original."""
    planes: list[FacePlanes] = []
    first: dict[int, tuple[int, int]] = {}  # by their planes: person, and its first picture
    count, persons = 0, []
    for data in subjects:
        if id(data.planes) not in first:
            first[id(data.planes)] = len(planes), count
            planes.append(data.planes)
            count += len(data.codes)
        persons.append(first[id(data.planes)])
    sizes = [len(data.codes) for data in subjects]
    return PictureExamples(
        FacePlanes.stack(planes),
        FacePlanes.stack([p.median() for p in planes]),
        np.concatenate(
            [start + np.arange(n) for (_, start), n in zip(persons, sizes, strict=True)]
        ),
        np.repeat([person for person, _ in persons], sizes),
        np.repeat([data.flipped for data in subjects], sizes),
    )


def fit_network(
    examples: Examples,
    mean: NDArray[np.float64],
    skin: NDArray[np.int64],
    config: CorrectionConfig,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, NDArray]:
    """Train on examples; returns the arrays of ``LandmarkCorrection.NAMES`` but "deviation", and
    where the examples have pictures those of ``PictureReader``.

    Args:
        examples: of all subjects.
        mean: landmarks of the mean head, canonical space, [468, 3] metres.
        skin: of :func:`bare_skin`.
        config: of the network and its training.
        progress: called with steps done and their number.
    """
    centre, basis, deviation = _components(examples.features, config.components)
    basis = basis / np.maximum(deviation, _LEAST_DEVIATION)[:, None]
    error_mean, error_basis, error_deviation = _components(examples.errors, config.error_components)
    unit = max(float(error_deviation[0]), 1e-6) / _ERROR_SCALE
    arrays: dict[str, NDArray] = {
        "mean": mean, "skin": skin, "centre": centre, "basis": basis,
        "typical": np.array(min(config.clip_components, len(basis))),
        "error_mean": error_mean, "error_basis": error_basis * unit,
    }  # fmt: skip
    inputs = _network_inputs(examples, arrays)
    errors = (examples.errors - error_mean) @ error_basis.T / unit
    targets = torch.from_numpy(np.concatenate([examples.codes, errors], 1).astype(np.float32))
    loss = _Loss(examples.codes.shape[1])
    if examples.pictures is not None:
        return arrays | train_picture_network(
            inputs, targets, examples.pictures, loss, config, progress
        )
    return arrays | perceptron_arrays(_train(inputs, targets, loss, config, progress))


def held_out_figures(
    correction: LandmarkCorrection,
    subjects: Sequence[CorrectionData],
    reader: PictureReader | None = None,
) -> tuple[dict[str, Any], NDArray[np.float64]]:
    """How well subjects are corrected that were not trained on; ``reader`` of their pictures.

    Returns:
        Plain values: root mean squares of the coordinates' errors of the 468 landmarks of the face
        in percent of the distance between the outer corners of the eyes, before and after; over all
        pictures together, correlation and mean absolute error of the COEFFICIENTS. And the root
        mean square of every coefficient's error, [52].
    """
    before: list[NDArray[Any]] = []
    after: list[NDArray[Any]] = []
    codes: list[NDArray[Any]] = []
    true_codes: list[NDArray[Any]] = []
    for data in subjects:
        looks = None if reader is None else reader.read(data.planes, data.planes.median())
        corrected = correction.correct(data.landmarks, data.scores, data.colors, looks=looks)
        true = data.true_px[:, :FACE_LANDMARKS]
        eyes = np.linalg.norm(true[:, EYE_OUTER_CORNERS[0]] - true[:, EYE_OUTER_CORNERS[1]], axis=1)
        for points, out in ((data.landmarks[..., :2], before), (corrected.landmarks, after)):
            out.append((points[:, :FACE_LANDMARKS] - true) / eyes[:, None, None])
        codes.append(corrected.codes)
        true_codes.append(data.codes)
    found, wanted = np.concatenate(codes), np.concatenate(true_codes)
    coefficients = {}
    for name in COEFFICIENTS:
        a, b = found[:, ARKIT_INDEX[name]], wanted[:, ARKIT_INDEX[name]]
        moving = a.std() > 1e-6 and b.std() > 1e-6
        coefficients[name] = {
            "corr": round(float(np.corrcoef(a, b)[0, 1]), 4) if moving else None,
            "mae": round(float(np.abs(a - b).mean()), 4),
        }
    figures = {
        "landmark_rmse_pct_before": round(100 * _rms(np.concatenate(before)), 4),
        "landmark_rmse_pct_after": round(100 * _rms(np.concatenate(after)), 4),
        "coefficients": coefficients,
    }
    return figures, np.sqrt(((found - wanted).astype(np.float64) ** 2).mean(0))


def _rms(values: NDArray[np.floating]) -> float:
    return float(np.sqrt((values.astype(np.float64) ** 2).mean()))


def _components(
    values: NDArray[np.float32], count: int
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Mean [D], the first principal directions [K, D] and their standard deviations [K]."""
    mean = values.mean(0, dtype=np.float64)
    centred = (values - mean).astype(np.float32)
    if len(values) < values.shape[1]:
        _, singular, rows = np.linalg.svd(centred, full_matrices=False)
        deviation = singular[:count].astype(np.float64) / np.sqrt(len(values))
        return mean, rows[:count].astype(np.float64), deviation
    covariance = (centred.T @ centred).astype(np.float64) / len(values)
    variance, vectors = np.linalg.eigh(covariance)
    order = np.argsort(variance)[::-1][:count]
    return mean, vectors[:, order].T, np.sqrt(np.maximum(variance[order], 0))


def _network_inputs(examples: Examples, arrays: dict[str, NDArray]) -> Tensor:
    """As ``LandmarkCorrection.inputs``, for many subjects at once."""
    basis, kept = arrays["basis"].astype(np.float32), int(arrays["typical"])
    offset = (examples.typical - arrays["centre"]).astype(np.float32)
    deviation = (examples.features - examples.typical) @ basis.T
    clip = [offset @ basis[:kept].T, offset[:, -5:]]
    return torch.from_numpy(np.concatenate([deviation, *clip], 1))


@dataclass(frozen=True)
class _Loss:
    """Mean squared error of outputs whose first ``codes`` are coefficients."""

    codes: int

    def __call__(self, found: Tensor, true: Tensor) -> Tensor:
        miss = (found - true).square()
        return _CODE_WEIGHT * miss[:, : self.codes].mean() + miss[:, self.codes :].mean()


def _train(
    inputs: Tensor,
    targets: Tensor,
    loss: _Loss,
    config: CorrectionConfig,
    progress: Callable[[int, int], None] | None,
) -> nn.Sequential:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        network = perceptron(inputs.shape[1], targets.shape[1], config)

        def miss(index: Tensor) -> Tensor:
            x = inputs[index]
            return loss(network(x + config.input_noise * torch.randn_like(x)), targets[index])

        descend(
            network, torch.optim.lr_scheduler.CosineAnnealingLR, miss, len(inputs), config, progress
        )
    return network
