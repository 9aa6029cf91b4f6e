"""Video to avatar in one go: preprocess, then train."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from cag_avatar_training.config import TrainConfig
from cag_avatar_training.dataset import Dataset
from cag_avatar_training.preprocess import PreprocessConfig, preprocess
from cag_avatar_training.trainer import TrainResult, train

from cag_avatar.head_models import load_head_model

__all__ = ["CreateConfig", "CreateResult", "create"]


@dataclass(frozen=True)
class CreateConfig:
    """Settings of both steps."""

    preprocess: PreprocessConfig = field(default_factory=PreprocessConfig)
    """Video to dataset."""
    train: TrainConfig = field(default_factory=TrainConfig)
    """Dataset to avatar."""


@dataclass(frozen=True)
class CreateResult:
    """What was made."""

    dataset: Dataset
    """Lies at WORKDIR/dataset."""
    training: TrainResult
    """With the avatar and where it was written."""


def create(
    video: Path | str,
    output: Path | str,
    workdir: Path | str,
    config: CreateConfig | None = None,
    resume: bool = True,
) -> CreateResult:
    """Make an avatar file from a video.

    Args:
        video: of one head.
        output: *.cag file to write.
        workdir: folder for the dataset (WORKDIR/dataset) and the training's checkpoints.
        config: settings.
        resume: keep a whole dataset that is already there and was made from a video of this name
            with this head model, and go on from a checkpoint.

    Raises:
        InputError: as :func:`preprocess` and :func:`train`.
    """
    settings = config or CreateConfig()
    workdir = Path(workdir)
    folder = workdir / "dataset"
    dataset = None
    wanted = load_head_model(settings.preprocess.head_model).name
    if resume and (folder / "dataset.json").is_file():
        found = Dataset.open(folder)
        same = found.info.source == Path(video).name and found.info.head_model == wanted
        if same and Path(video).is_file():
            dataset = found
    if dataset is None:
        dataset = preprocess(video, folder, settings.preprocess)
    checkpoints = workdir / "training"
    training = train(dataset, output, settings.train, checkpoints, resume=resume)
    return CreateResult(dataset, training)
