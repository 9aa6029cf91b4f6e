"""``cag-avatar train``."""

from __future__ import annotations

from pathlib import Path

from cag_avatar_training.config import TrainConfig
from cag_avatar_training.dataset import Dataset, Split
from cag_avatar_training.trainer import train

from cag_avatar_cli.options import Backend, Fusion, OutputPath, PathArgument

_DEFAULT = TrainConfig()


def training_config(
    fusion: Fusion, iterations: int, seed: int, split: Split, backend: Backend
) -> TrainConfig:
    """The default training with the settings that commands offer."""
    from dataclasses import replace

    avatar = replace(_DEFAULT.avatar, fusion=fusion)
    return replace(
        _DEFAULT, avatar=avatar, iterations=iterations, seed=seed, split=split, backend=backend
    )


def command(
    dataset: PathArgument,
    output: OutputPath,
    fusion: Fusion = "cross-attention",
    iterations: int = _DEFAULT.iterations,
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
        fusion: how a Gaussian meets the expression code.
        iterations: frames shown.
        seed: of the weights and the order of the frames.
        split: which frames are held out.
        backend: rasteriser.
        workdir: folder for checkpoints; by default OUTPUT + ".work".
        resume: go on from a checkpoint in the working folder.
    """
    config = training_config(fusion, iterations, seed, split, backend)
    folder = workdir or output.with_name(output.name + ".work")
    result = train(Dataset.open(dataset), output, config, folder, resume=resume)
    print(
        f"avatar: {output} ({result.avatar.num_gaussians} Gaussians, {result.seconds:.0f} s, "
        f"{result.iterations_per_second:.1f} iterations/s)"
    )
