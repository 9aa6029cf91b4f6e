"""``cag-avatar preprocess``."""

from __future__ import annotations

from cag_avatar_training.matting import MatteConfig
from cag_avatar_training.preprocess import PreprocessConfig, preprocess

from cag_avatar_cli.options import OutputPath, PathArgument

_MATTE = MatteConfig()


def command(
    video: PathArgument, output: OutputPath, size: int = 512, matte: MatteConfig = _MATTE
) -> None:
    """Make a dataset folder from a video of one head.

    Args:
        video: of one person, at least 2 seconds.
        output: dataset folder to write.
        size: width and height of the dataset's images, pixels.
        matte: settings of the matte and of the labels of eyes, lips and mouth.
    """
    dataset = preprocess(video, output, PreprocessConfig(size=size, matte=matte))
    error = dataset.info.tracking["landmark_rmse_interocular"]
    print(
        f"dataset: {output} ({len(dataset)} frames, landmark error {100 * error:.2f} % of the "
        "distance between the eyes)"
    )
