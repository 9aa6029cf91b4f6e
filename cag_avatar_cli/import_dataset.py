"""``cag-avatar import``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import tyro
from cag_avatar_training.importers import Format, ImportConfig, import_dataset

from cag_avatar_cli.options import OutputPath, PathArgument

_DEFAULT = ImportConfig()


def command(
    format: Annotated[Format, tyro.conf.Positional],
    source: PathArgument,
    output: OutputPath,
    head_model: str | None = None,
    fps: float = _DEFAULT.fps,
    checkpoints: Path | None = None,
    camera: int | None = None,
    test_frames: int | None = None,
    size: int | None = None,
) -> None:
    """Open another project's dataset as one of ours.

    Args:
        format: layout of the source; imavatar also for PointAvatar and SplattingAvatar, vhap also
            for GaussianAvatars, STAvatar and RGBAvatar.
        source: folder of the capture.
        output: dataset folder to write.
        head_model: name or file of the FLAME model that the capture was tracked with; for nerface
            the head model to track with.
        fps: frames per second of the capture; no format tells.
        checkpoints: folder of metrical-tracker's .frame files (flashavatar, insta).
        camera: camera to import of several (vhap).
        test_frames: frames held out at the end (flashavatar, insta, imavatar); by default 500, 350,
            350, as their authors do.
        size: width and height of the dataset's images, pixels (nerface).
    """
    dataset = import_dataset(
        format,
        source,
        output,
        ImportConfig(
            head_model=head_model,
            fps=fps,
            checkpoints=checkpoints,
            camera=camera,
            test_frames=test_frames,
            size=size,
        ),
    )
    missing = ", ".join(dataset.info.imported["missing"])
    print(
        f"dataset: {output} ({len(dataset)} frames, {len(dataset.info.held_out)} held out by the "
        f"source, head model {dataset.info.head_model})"
        + (f"\nmissing: {missing} (neutral values)" if missing else "")
    )
