"""``cag-avatar compare``."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import tyro
from cag_avatar_training.comparison import (
    Comparison,
    ComparisonConfig,
    compare,
    parse_splits,
    parse_variant,
)
from cag_avatar_training.comparison.page import figure_label
from cag_avatar_training.comparison.protocol import protocol_line
from cag_avatar_training.comparison.table import ALL, DECISIVE, Figure, change_text
from cag_avatar_training.profiles import Profile, profile_config
from rich.console import Console
from rich.table import Table

from cag_avatar_cli.options import Backend, OutputPath

#: Figures of the table on the terminal; the files have all of them.
_SHOWN = (
    "psnr", "ssim", "l1", "stlpips", "lpips", "l1_head", "l1_mouth", "l1_eyes", "l1_teeth",
    "l1_skin",
)  # fmt: skip


def command(
    datasets: Annotated[tuple[Path, ...], tyro.conf.Positional],
    output: OutputPath,
    fusions: tuple[str, ...] = ("cross-attention", "concat", "one-token"),
    splits: tuple[str, ...] = ("last",),
    seeds: tuple[int, ...] = (0,),
    profile: Profile = "quick",
    iterations: int | None = None,
    every: int = 1,
    refine: bool = True,
    against: str = "concat",
    truth: tuple[Path, ...] = (),
    pictures: int = 4,
    backend: Backend = "auto",
) -> None:
    """Train and measure fusions on the same data, with the same budget and seeds.

    Every dataset is trained on with every split, seed and fusion. A finished training is kept in
    OUTPUT/cells and never repeated, an interrupted one goes on. Writes report.html, table.json and
    table.csv.

    Args:
        datasets: folders made by preprocess.
        output: folder to write.
        fusions: what is compared: cross-attention, concat, one-token; other settings of one of them
            follow a colon: concat:width=128,rates.network=5e-4.
        splits: which frames are held out: last, blocks, source; seeds of its own follow a colon:
            blocks:0,1.
        seeds: of the trainings, for splits that name none.
        profile: settings of all trainings: quick (minutes on two cores), standard, or paper (hours
            without a GPU).
        iterations: frames shown in each training; by default as the profile says.
        every: measure every so many held-out frames only.
        refine: also fit poses and codes of the held-out frames to their images, avatar frozen.
        against: the fusion that the others are related to.
        truth: NAME.truth folders of synthetic videos NAME.mp4, for figures of teeth and skin; those
            that lie beside a dataset or one level up are found by themselves.
        pictures: frames shown in report.html for each dataset and split.
        backend: rasteriser.
    """
    train = profile_config(profile)
    if iterations is not None:
        train = replace(train, iterations=iterations)
    config = ComparisonConfig(
        train=replace(train, backend=backend),
        variants=tuple(parse_variant(word) for word in fusions),
        splits=parse_splits(splits, seeds),
        against=against,
        every=every,
        refine=refine,
        pictures=pictures,
    )
    console = Console()
    found = compare(datasets, output, config, truth, console.print)
    for mode in found.table.modes():
        console.print(_figures(found, mode))
        if found.table.changes:
            console.print(_changes(found, mode))
    console.print(_costs(found))
    console.print(f"protocol: {protocol_line(found.protocol)}")
    console.print(f"pictures and all figures: {found.page}")


def _figures(found: Comparison, mode: str) -> Table:
    rows = {row: figures for row, figures in found.table.figures.items() if row[3] == mode}
    names = [name for name in _SHOWN if any(name in figures for figures in rows.values())]
    table = Table(title=f"held-out frames, {mode.replace('_', ' ')}; all but PSNR times 1000")
    for head in ("dataset", "split", "fusion"):
        table.add_column(head)
    for name in names:
        table.add_column(figure_label(name).replace(", ", "\n"), justify="right")
    last = None
    for (dataset, split, variant, _), figures in rows.items():
        if last not in (None, (dataset, split)):
            table.add_section()
        last = (dataset, split)
        cells = [_short(figures.get(name), name.startswith("psnr")) for name in names]
        table.add_row(dataset, split, variant, *cells)
    return table


def _short(figure: Figure | None, decibels: bool) -> str:
    if figure is None:
        return ""
    digits, factor = (2, 1) if decibels else (1, 1000)
    text = f"{factor * figure.mean:.{digits}f}"
    return text if figure.spread is None else f"{text}±{factor * figure.spread:.{digits}f}"


def _changes(found: Comparison, mode: str) -> Table:
    title = f"change against {found.table.against}, {mode.replace('_', ' ')}"
    table = Table("dataset", "split", "fusion", title=title)
    for name in DECISIVE:
        table.add_column(figure_label(name), justify="right")
    for (dataset, split, variant, how), changes in found.table.changes.items():
        if how != mode:
            continue
        found_changes = [changes.get(name) for name in DECISIVE]
        cells = ["" if change is None else change_text(change) for change in found_changes]
        style = "bold" if dataset == ALL else None
        table.add_row(dataset, split, variant, *cells, style=style)
    return table


def _costs(found: Comparison) -> Table:
    table = Table(title="cost of a frame: fusion and network")
    table.add_column("fusion")
    for head in ("ms", "multiply-adds a Gaussian", "parameters"):
        table.add_column(head, justify="right")
    for name, cost in found.costs.items():
        table.add_row(
            name, f"{cost.network_ms:.2f}", f"{cost.multiply_adds:,.0f}", f"{cost.parameters:,}"
        )
    return table
