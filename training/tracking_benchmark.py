"""How far the tracking of synthetic subjects is from their truth."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from cag_avatar_training.dataset import Dataset
from cag_avatar_training.preprocess import PreprocessConfig, preprocess
from cag_avatar_training.synthetic import SynthesisConfig, synthesize
from cag_avatar_training.synthetic.alignment import in_crop, video_frames
from cag_avatar_training.synthetic.truth import Truth, load_truth, truth_folder
from numpy.typing import NDArray

from cag_avatar.errors import InputError
from cag_avatar.head_models import ARKIT_INDEX, REGIONS, load_head_model
from cag_avatar.tracking.face_landmarker import EYE_OUTER_CORNERS, FACE_LANDMARKS
from cag_avatar.tracking.landmark_embedding import load_landmark_embedding

__all__ = ["COEFFICIENTS", "Agreement", "TrackingScore", "score_tracking", "track_subjects"]

#: Coefficients that are scored: those that a talking face uses.
COEFFICIENTS = (
    "jawOpen",
    "mouthSmileLeft",
    "mouthSmileRight",
    "mouthPucker",
    "mouthFunnel",
    "eyeBlinkLeft",
    "eyeBlinkRight",
    "browInnerUp",
    *(f"eyeLook{way}{side}" for way in ("In", "Out", "Up", "Down") for side in ("Left", "Right")),
)
_MOUTH = ("lips", "teeth_upper", "teeth_lower", "tongue", "mouth_cavity")


@dataclass(frozen=True)
class Agreement:
    """One coefficient over a clip."""

    corr: float | None
    """Pearson's correlation with the truth; None where either side never moves."""
    mae: float
    """Mean absolute error."""


@dataclass(frozen=True)
class TrackingScore:
    """A tracked clip against its truth."""

    rotation_deg: float
    """Median over frames of the angle between the two head rotations, degrees."""
    translation_pct: float
    """Median over frames of the distance between the two heads, percent of the depth."""
    landmark_rmse_pct: float
    """Root mean square of the coordinates' errors of 468 surface points in the picture, percent of
    the distance between the outer corners of the eyes."""
    coefficients: dict[str, Agreement]
    """By ARKit name, see COEFFICIENTS."""
    matte_iou: float
    """Mean over frames; both mattes cut at one half."""
    mouth_iou: float
    """Mean over frames in which lips or mouth interior show."""
    frames: int
    """Frames tracked."""
    lost_frames: int
    """Frames of the video that the dataset leaves out."""

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self)


def score_tracking(dataset: Dataset, truth: Truth) -> TrackingScore:
    """Compare a dataset with the truth of the synthetic video that it was made from.

    Raises:
        InputError: they are not of the same video or head model.
    """
    tracking, info = dataset.tracking, dataset.info
    frames = video_frames(dataset, truth)
    if info.head_model != truth.head_model:
        raise InputError(f"{dataset.path}: was not made from the video that {truth.folder} is of")
    head_pose = truth.head_pose.numpy()[frames]
    turn = tracking.head_pose[:, :3, :3] @ head_pose[:, :3, :3].transpose(0, 2, 1)
    cosine = (np.trace(turn, axis1=1, axis2=2) - 1) / 2
    angle = np.degrees(np.arccos(np.clip(cosine, -1, 1)))
    shift = np.linalg.norm(tracking.head_pose[:, :3, 3] - head_pose[:, :3, 3], axis=1)
    codes = truth.codes.numpy()[frames]
    return TrackingScore(
        rotation_deg=float(np.median(angle)),
        translation_pct=float(100 * np.median(shift / head_pose[:, 2, 3])),
        landmark_rmse_pct=100 * _landmark_rmse(dataset, truth, frames),
        coefficients={
            name: _agreement(tracking.codes[:, ARKIT_INDEX[name]], codes[:, ARKIT_INDEX[name]])
            for name in COEFFICIENTS
        },
        matte_iou=_mean_iou(
            [
                (dataset.frame(i).alpha.numpy() > 0.5, in_crop(truth.alpha(t), dataset) > 127)
                for i, t in enumerate(frames)
            ]
        ),
        mouth_iou=_mean_iou(
            [
                (dataset.frame(i).mouth.numpy() > 0.5, _true_mouth(truth.regions(t), dataset))
                for i, t in enumerate(frames)
            ]
        ),
        frames=len(frames),
        lost_frames=len(truth.codes) - len(frames),
    )


def track_subjects(
    seeds: Sequence[int],
    seconds: float,
    folder: Path,
    config: PreprocessConfig | None = None,
    announce: Callable[[str], None] | None = None,
) -> dict[int, TrackingScore]:
    """Synthesize a talking subject for each seed, track it and score it.

    Args:
        seeds: of the subjects.
        seconds: length of each clip.
        folder: for clips and datasets; clips that are there already are used again.
        config: of the preprocessing.
        announce: told what is being done.

    Raises:
        InputError: a clip cannot be written or tracked.
    """
    scores = {}
    tell = announce or (lambda text: None)
    for seed in seeds:
        clip = folder / f"seed{seed}_{seconds:g}s.mp4"
        clip.parent.mkdir(parents=True, exist_ok=True)
        if not clip.is_file():
            tell(f"seed {seed}: synthesizing {seconds:g} s")
            synthesize(SynthesisConfig(out=clip, seed=seed, seconds=seconds))
        tell(f"seed {seed}: tracking")
        dataset = preprocess(clip, clip.with_suffix(".dataset"), config)
        scores[seed] = score_tracking(dataset, load_truth(truth_folder(clip)))
    return scores


def _agreement(found: NDArray[np.float32], true: NDArray[np.float32]) -> Agreement:
    moving = found.std() > 1e-6 and true.std() > 1e-6
    corr = float(np.corrcoef(found, true)[0, 1]) if moving else None
    return Agreement(corr, float(np.abs(found - true).mean()))


def _landmark_rmse(dataset: Dataset, truth: Truth, frames: NDArray[np.int64]) -> float:
    """In distances between the outer corners of the eyes; both heads carry the same points."""
    model = load_head_model(truth.head_model)
    embedding = load_landmark_embedding(model)
    tracking = dataset.tracking

    def points(identity: Any, offsets: Any, codes: Any, head: Any, torso: Any) -> torch.Tensor:
        tensors = [torch.as_tensor(value).float() for value in (identity, offsets)]
        rest = model.rest_vertices(*tensors)
        motion = [torch.as_tensor(value).float() for value in (codes, head, torso)]
        return embedding.points(model.posed_vertices(rest, *motion), model.faces)

    crop = dataset.info.crop
    scale = dataset.info.camera.width / crop["size"]
    corner = torch.tensor([crop["x"], crop["y"]], dtype=torch.float32)
    square, count = 0.0, 0
    for start in range(0, len(frames), 32):
        part = slice(start, start + 32)
        found = dataset.info.camera.project(
            points(
                tracking.identity, tracking.vertex_offsets, tracking.codes[part],
                tracking.head_pose[part], tracking.torso_pose[part],
            )
        )  # fmt: skip
        at = frames[part]
        true = truth.camera.project(
            points(
                truth.identity, truth.offsets, truth.codes[at], truth.head_pose[at],
                truth.torso_pose[at],
            )
        )  # fmt: skip
        true = (true - corner) * scale
        eyes = (true[:, EYE_OUTER_CORNERS[0]] - true[:, EYE_OUTER_CORNERS[1]]).norm(dim=-1)
        error = (found - true)[:, :FACE_LANDMARKS] / eyes[:, None, None]
        square += float(error.square().sum())
        count += error.numel()
    return float((square / count) ** 0.5)


def _true_mouth(regions: NDArray[np.uint8], dataset: Dataset) -> NDArray[np.bool_]:
    wanted = [REGIONS.index(name) for name in _MOUTH]
    return np.isin(in_crop(regions, dataset, 255), wanted)


def _mean_iou(pairs: Sequence[tuple[NDArray[np.bool_], NDArray[np.bool_]]]) -> float:
    values = [float((a & b).sum() / (a | b).sum()) for a, b in pairs if (a | b).any()]
    return float(np.mean(values)) if values else float("nan")
