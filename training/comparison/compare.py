"""The whole comparison: every cell trained and measured, tables and page written."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from cag_avatar_training.comparison.cells import CellMaker, CellResult
from cag_avatar_training.comparison.config import ComparisonConfig, Variant
from cag_avatar_training.comparison.cost import InferenceCost, inference_costs
from cag_avatar_training.comparison.page import write_comparison_page
from cag_avatar_training.comparison.protocol import comparison_protocol
from cag_avatar_training.comparison.table import Cell, Table, make_table, table_csv
from cag_avatar_training.config import TrainConfig
from cag_avatar_training.dataset import Dataset
from cag_avatar_training.synthetic.alignment import find_truth
from cag_avatar_training.synthetic.truth import Truth

from cag_avatar.errors import InputError
from cag_avatar.files import replacing
from cag_avatar.rendering.rasterizer import get_rasterizer

__all__ = ["Comparison", "compare"]

_CLOCK = 60


@dataclass(frozen=True)
class Comparison:
    """What compare() found."""

    table: Table
    costs: dict[str, InferenceCost]
    """By variant, of the first dataset, split and seed."""
    protocol: dict[str, Any]
    """How it was done, as plain JSON values."""
    page: Path
    """The HTML page."""


def compare(
    datasets: Sequence[Path | str],
    out_dir: Path | str,
    config: ComparisonConfig | None = None,
    truths: Sequence[Path] = (),
    announce: Callable[[str], None] | None = None,
    show_progress: bool = True,
) -> Comparison:
    """Train and measure every variant on every dataset, split and seed; write the tables.

    A finished cell is kept in OUT_DIR/cells and never trained again, an unfinished one goes on
    from its checkpoint. Writes OUT_DIR/table.json, table.csv and report.html when all are there.

    Args:
        datasets: folders made by preprocess; their names must differ.
        out_dir: folder to write.
        config: what is compared.
        truths: NAME.truth folders of synthetic videos, see find_truth().
        announce: told what is being done.
        show_progress: bars of the trainings.

    Raises:
        InputError: a dataset or a setting cannot be used.
        KeyboardInterrupt: Ctrl-C; the same call goes on.
    """
    config = config or ComparisonConfig()
    tell = announce or (lambda text: None)
    out_dir = Path(out_dir)
    opened = _opened(datasets)
    for dataset in opened.values():  # before hours of work
        for entry in config.splits:
            dataset.split(entry.split)
    found = {name: find_truth(dataset, truths) for name, dataset in opened.items()}
    _check_truths(truths, found)
    backend = get_rasterizer(config.train.backend).name
    train = replace(config.train, backend=backend)  # type: ignore[arg-type]
    results = _run_cells(opened, found, config, train, out_dir, tell, show_progress)
    first = next(iter(results))
    costs = inference_costs(
        {cell.variant: result.avatar() for cell, result in results.items() if cell[:3] == first[:3]}
    )
    table = make_table({cell: result.metrics for cell, result in results.items()}, config.against)
    protocol = comparison_protocol(config, train, opened, found, results)
    content = {
        "protocol": protocol,
        **table.to_dict(),
        "costs": {name: asdict(cost) for name, cost in costs.items()},
        "cells": [
            {**cell._asdict(), "folder": str(result.folder.relative_to(out_dir))}
            for cell, result in results.items()
        ],
    }
    _write(out_dir / "table.json", json.dumps(content, indent=2, allow_nan=False) + "\n")
    _write(out_dir / "table.csv", table_csv(table))
    page = write_comparison_page(
        out_dir / "report.html", table, costs, protocol, opened, results, config.pictures
    )
    return Comparison(table, costs, protocol, page)


def _opened(paths: Sequence[Path | str]) -> dict[str, Dataset]:
    """Datasets by a short name: that of the folder, or of its parent where it is "dataset"."""
    opened: dict[str, Dataset] = {}
    for path in paths:
        dataset = Dataset.open(path)
        folder = dataset.path.resolve()
        name = folder.parent.name if folder.name == "dataset" else folder.name
        name = name.removesuffix(".dataset").removesuffix(".work").removesuffix(".cag")
        if name in opened:
            raise InputError(f"{path}: a second dataset called '{name}'; rename the folder")
        opened[name] = dataset
    if not opened:
        raise InputError("datasets: none given; name at least one folder")
    return opened


def _check_truths(folders: Sequence[Path], found: dict[str, Truth | None]) -> None:
    used = {truth.folder.resolve() for truth in found.values() if truth is not None}
    for folder in folders:
        if folder.resolve() not in used:
            raise InputError(f"truth: {folder} is missing, or of no video of these datasets")


def _run_cells(
    opened: dict[str, Dataset],
    found: dict[str, Truth | None],
    config: ComparisonConfig,
    train: TrainConfig,
    out_dir: Path,
    tell: Callable[[str], None],
    show_progress: bool,
) -> dict[Cell, CellResult]:
    """In the order dataset, split, seed, variant: the columns of a row are made next to another."""
    makers = {
        name: CellMaker(out_dir / "cells", dataset, found[name]) for name, dataset in opened.items()
    }
    plan: list[tuple[Cell, TrainConfig]] = []
    for name in opened:
        for entry in config.splits:
            for seed in entry.seeds:
                for variant in config.variants:
                    cell = Cell(name, entry.split, seed, variant.name)
                    plan.append((cell, _settings(train, cell, variant)))
    missing = sum(not makers[cell.dataset].is_trained(settings) for cell, settings in plan)
    tell(f"{len(plan)} cells, {missing} of them to be trained")
    results: dict[Cell, CellResult] = {}
    begun, trained = time.monotonic(), 0
    for number, (cell, settings) in enumerate(plan):
        maker = makers[cell.dataset]
        new = not maker.is_trained(settings)
        left = ""
        if new and trained:
            seconds = (time.monotonic() - begun) / trained * (missing - trained)
            left = f", about {max(1, round(seconds / _CLOCK))} min left"
        tell(
            f"cell {number + 1} of {len(plan)}: {cell.dataset}, split {cell.split}, seed "
            f"{cell.seed}, {cell.variant}{left}{'' if new else ' (there already)'}"
        )
        results[cell] = maker.make(
            settings, config.refine, config.refinement, config.every, show_progress=show_progress
        )
        trained += new
    return results


def _settings(train: TrainConfig, cell: Cell, variant: Variant) -> TrainConfig:
    common = replace(train, split=cell.split, seed=cell.seed)  # type: ignore[arg-type]
    return variant.apply(common)


def _write(path: Path, text: str) -> None:
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
