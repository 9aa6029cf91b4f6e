"""``cag-avatar train``."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from cag_avatar_training.config import TrainConfig
from cag_avatar_training.dataset import Dataset, Split
from cag_avatar_training.profiles import Profile, profile_config
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
    """
    config = training_config(profile, fusion, iterations, seed, split, backend)
    folder = workdir or output.with_name(output.name + ".work")
    result = train(Dataset.open(dataset), output, config, folder, resume=resume)
    print(
        f"avatar: {output} ({result.avatar.num_gaussians} Gaussians, {result.seconds:.0f} s, "
        f"{result.iterations_per_second:.1f} iterations/s)"
    )
