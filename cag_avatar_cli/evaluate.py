"""``cag-avatar evaluate``."""

from __future__ import annotations

from cag_avatar_training.dataset import Dataset, Split
from cag_avatar_training.evaluation import evaluate
from cag_avatar_training.progress import bar

from cag_avatar.avatar.file import load_avatar
from cag_avatar_cli.options import Backend, OutputPath, PathArgument


def command(
    avatar: PathArgument,
    dataset: PathArgument,
    output: OutputPath,
    split: Split | None = None,
    refine: bool = True,
    every: int = 1,
    backend: Backend = "auto",
) -> None:
    """Measure an avatar on held-out frames; writes metrics.json, pred/, truth/ and side by sides.

    Args:
        avatar: *.cag file.
        dataset: folder made by preprocess.
        output: folder to write.
        split: held-out frames; by default those of the training.
        refine: also fit poses and codes of the held-out frames to their images, avatar frozen.
        every: measure every so many held-out frames only.
        backend: rasteriser.
    """
    with bar("evaluate") as progress:
        result = evaluate(
            load_avatar(avatar), Dataset.open(dataset), output, split, refine, backend=backend,
            every=every, show=lambda what, done, total: progress(done, total),
        )  # fmt: skip
    for name in ("as_tracked", "refined"):
        if name in result:
            figures = "  ".join(f"{k} {v:.4f}" for k, v in result[name].items())
            print(f"{name:<11} {figures}")
    print(f"pictures and protocol: {output}")
