"""``cag-avatar evaluate``."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cag_avatar_training.dataset import Dataset
from cag_avatar_training.evaluation import evaluate
from cag_avatar_training.progress import bar
from cag_avatar_training.split import Split
from cag_avatar_training.synthetic.alignment import find_truth
from rich.console import Console
from rich.table import Table

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
    truth: Path | None = None,
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
        truth: NAME.truth folder of the synthetic video NAME.mp4 that the dataset was made from, for
            figures of teeth and skin; found by itself beside the dataset or one level up.
    """
    opened = Dataset.open(dataset)
    with bar("evaluate") as progress:
        result = evaluate(
            load_avatar(avatar), opened, output, split, refine, backend=backend,
            every=every, show=lambda what, done, total: progress(done, total),
            truth=find_truth(opened, [] if truth is None else [truth]),
        )  # fmt: skip
    console = Console()
    for name in ("as_tracked", "refined"):
        if name in result:
            console.print(_table(name.replace("_", " "), result[name], result["protocol"]))
    if "code_error" in result:
        errors = result["code_error"]
        console.print(
            f"mean code error on {errors['frames']} frames: raw scores {errors['raw_scores']}, "
            f"regressor {errors['regressor'] or 'none'}"
        )
    console.print(f"pictures and protocol: {output}")


def _table(title: str, figures: Mapping[str, float | None], protocol: Mapping[str, Any]) -> Table:
    """One row for the whole picture and for each region."""
    names = [name for name in ("psnr", "ssim", "l1", "stlpips", "lpips") if name in figures]
    table = Table("", *names, "frames", title=title)
    rows = {"whole": protocol["held_out_frames"]}
    rows |= {name: region["frames"] for name, region in protocol["regions"].items()}
    for region, frames in rows.items():
        suffix = "" if region == "whole" else f"_{region}"
        values = [figures.get(name + suffix) for name in names]
        cells = ["" if v is None else f"{v:.2f}" if v > 1 else f"{v:.4f}" for v in values]
        table.add_row(region, *cells, str(frames))
    return table
