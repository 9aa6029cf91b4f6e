"""``cag-avatar train``."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from cag_avatar_training.config import TrainConfig
from cag_avatar_training.dataset import Dataset
from cag_avatar_training.monitoring import Preview, TensorBoardScalars, TrainingObserver
from cag_avatar_training.profiles import Profile, profile_config
from cag_avatar_training.split import Split
from cag_avatar_training.trainer import train

from cag_avatar_cli.options import Backend, Fusion, OutputPath, PathArgument


def training_config(
    profile: Profile,
    fusion: Fusion | None,
    iterations: int | None,
    seed: int,
    split: Split,
    backend: Backend,
) -> TrainConfig:
    """A profile's training with the settings that commands offer; None keeps the profile's."""
    config = profile_config(profile)
    return replace(
        config,
        avatar=replace(config.avatar, fusion=fusion or config.avatar.fusion),
        iterations=config.iterations if iterations is None else iterations,
        seed=seed,
        split=split,
        backend=backend,
    )


def command(
    dataset: PathArgument,
    output: OutputPath,
    profile: Profile = "standard",
    fusion: Fusion | None = None,
    iterations: int | None = None,
    seed: int = 0,
    split: Split = "last",
    backend: Backend = "auto",
    workdir: Path | None = None,
    resume: bool = True,
    patience: int = 0,
    preview: bool = False,
    preview_every: int = 100,
    tensorboard: Path | None = None,
) -> None:
    """Train an avatar on a dataset.

    Args:
        dataset: folder made by preprocess.
        output: avatar file (*.cag) to write.
        profile: settings that the options below change: quick (minutes on two cores), standard, or
            paper (the paper's sizes and schedule: hours without a GPU).
        fusion: how a Gaussian meets the expression code; by default as the profile says.
        iterations: frames shown; by default as the profile says.
        seed: of the weights and the order of the frames.
        split: which frames are held out.
        backend: rasteriser.
        workdir: folder for checkpoints; by default OUTPUT + ".work".
        resume: go on from a checkpoint in the working folder.
        patience: stop when 8 frames, taken out of the training frames for it, have not gained in so
            many measurements (one every 100 iterations, from the last resolution on); 0: never.
        preview: keep WORKDIR/preview.png up to date: truth left, avatar right.
        preview_every: iterations between two previews.
        tensorboard: folder for TensorBoard's event files; needs pip install
            'cag_avatar[tensorboard]'.
    """
    config = training_config(profile, fusion, iterations, seed, split, backend)
    config = replace(config, early_stop=replace(config.early_stop, patience=patience))
    folder = workdir or output.with_name(output.name + ".work")
    observers: list[TrainingObserver] = []
    if preview:
        observers.append(Preview(folder / "preview.png", preview_every))
    if tensorboard is not None:
        observers.append(TensorBoardScalars(tensorboard))
    result = train(
        Dataset.open(dataset), output, config, folder, resume=resume, observers=observers
    )
    print(
        f"avatar: {output} ({result.avatar.num_gaussians} Gaussians, {result.seconds:.0f} s, "
        f"{result.iterations_per_second:.1f} iterations/s)"
    )
