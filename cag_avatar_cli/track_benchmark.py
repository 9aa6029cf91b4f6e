"""``cag-avatar track-benchmark``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import tyro
from cag_avatar_training.preprocess import PreprocessConfig
from cag_avatar_training.tracking_benchmark import TrackingScore, track_subjects
from rich.console import Console
from rich.table import Table

from cag_avatar.errors import InputError
from cag_avatar.files import replacing
from cag_avatar.tracking.fit_config import Correction, FitConfig
from cag_avatar_cli.options import OutputPath


def command(
    seeds: tuple[int, ...] = (101, 102, 103, 104, 105),
    seconds: float = 20.0,
    json_file: Annotated[Path | None, tyro.conf.arg(name="json")] = None,
    correction: Correction = "auto",
    output: OutputPath = Path("out/track_benchmark"),
) -> None:
    """Track synthetic subjects and compare with their truth.

    Args:
        seeds: of the subjects.
        seconds: length of each clip.
        correction: what of the landmarker's known errors is taken away, see docs/tracking.md.
        json_file: also write the scores as JSON, by seed.
        output: folder for clips and datasets; clips already there are used again.
    """
    if not seeds:
        raise InputError("seeds: none given; name at least one")
    console = Console()
    config = PreprocessConfig(fit=FitConfig(correction=correction))
    scores = track_subjects(seeds, seconds, output, config, announce=console.print)
    console.print(_figures(scores))
    console.print(_coefficients(scores))
    if json_file is not None:
        content = {str(seed): score.to_dict() for seed, score in scores.items()}
        json_file.parent.mkdir(parents=True, exist_ok=True)
        with replacing(json_file) as temporary:
            temporary.write_text(json.dumps(content, indent=2) + "\n")


def _figures(scores: dict[int, TrackingScore]) -> Table:
    table = Table(title="tracking against truth")
    rows = {
        "head rotation, median, degrees": "rotation_deg",
        "head translation, median, % of depth": "translation_pct",
        "landmarks, RMSE, % of the eyes' distance": "landmark_rmse_pct",
        "matte IoU": "matte_iou",
        "mouth IoU": "mouth_iou",
        "frames": "frames",
        "lost frames": "lost_frames",
    }
    table.add_column("")
    for seed in scores:
        table.add_column(f"seed {seed}", justify="right")
    for text, name in rows.items():
        values = [getattr(score, name) for score in scores.values()]
        table.add_row(text, *(str(v) if isinstance(v, int) else f"{v:.3f}" for v in values))
    return table


def _coefficients(scores: dict[int, TrackingScore]) -> Table:
    table = Table(title="coefficients: correlation / mean absolute error")
    table.add_column("")
    for seed in scores:
        table.add_column(f"seed {seed}", justify="right")
    for name in next(iter(scores.values())).coefficients:
        cells = []
        for score in scores.values():
            found = score.coefficients[name]
            corr = "still" if found.corr is None else f"{found.corr:.2f}"
            cells.append(f"{corr} / {found.mae:.3f}")
        table.add_row(name, *cells)
    return table
