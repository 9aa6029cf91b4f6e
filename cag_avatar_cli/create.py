"""``cag-avatar create``."""

from __future__ import annotations

from pathlib import Path

from cag_avatar_training.create import CreateConfig, create
from cag_avatar_training.preprocess import PreprocessConfig
from cag_avatar_training.profiles import Profile
from cag_avatar_training.split import Split

from cag_avatar_cli.options import Backend, Fusion, OutputPath, PathArgument
from cag_avatar_cli.train import training_config


def command(
    video: PathArgument,
    output: OutputPath,
    workdir: Path | None = None,
    head_model: str = "anny",
    profile: Profile = "standard",
    fusion: Fusion | None = None,
    iterations: int | None = None,
    seed: int = 0,
    split: Split = "last",
    backend: Backend = "auto",
    resume: bool = True,
) -> None:
    """Make an avatar from a video: preprocess, then train.

    Args:
        video: of one person, a minute is good.
        output: avatar file (*.cag) to write.
        workdir: folder for the dataset (WORKDIR/dataset) and checkpoints; default OUTPUT + ".work".
        head_model: the head model that is fitted: "anny", or one that import-flame made.
        profile: settings that the options below change: quick (minutes on two cores), standard, or
            paper (the paper's sizes and schedule: hours without a GPU).
        fusion: how a Gaussian meets the expression code; by default as the profile says.
        iterations: frames shown in training; by default as the profile says.
        seed: of the weights and the order of the frames.
        split: which frames are held out of training.
        backend: rasteriser.
        resume: keep what an interrupted run left in the working folder.
    """
    folder = workdir or output.with_name(output.name + ".work")
    config = CreateConfig(
        PreprocessConfig(head_model=head_model),
        training_config(profile, fusion, iterations, seed, split, backend),
    )
    result = create(video, output, folder, config, resume)
    print(
        f"avatar:  {output} ({result.training.avatar.num_gaussians} Gaussians)\n"
        f"dataset: {result.dataset.path}\n"
        f"next:    cag-avatar evaluate {output} {result.dataset.path} -o {folder / 'evaluation'}"
    )
