"""``cag-avatar synthesize``."""

from __future__ import annotations

from cag_avatar_training.progress import bar
from cag_avatar_training.synthetic import SynthesisConfig, synthesize

from cag_avatar_cli.options import PathArgument


def command(
    out: PathArgument, seed: int = 0, seconds: float = 20.0, size: int = 512, fps: float = 25.0
) -> None:
    """Render a synthetic person to a video, with the truth in a folder beside it.

    Args:
        out: MP4 to write; the truth goes to OUT without suffix + ".truth".
        seed: decides the person, the light and the motion.
        seconds: length of the video.
        size: width and height, pixels.
        fps: frames per second.
    """
    config = SynthesisConfig(out=out, seed=seed, seconds=seconds, size=size, fps=fps)
    with bar("synthesize") as progress:
        result = synthesize(config, progress)
    print(f"video: {result.video} ({result.frames} frames)\ntruth: {result.truth}")
