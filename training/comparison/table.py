"""The figures of a comparison: means and spreads over seeds, and changes against the baseline."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

__all__ = [
    "ALL",
    "DECISIVE",
    "MODES",
    "Cell",
    "Change",
    "Figure",
    "Table",
    "change_text",
    "change_unit",
    "make_table",
    "table_csv",
]

#: How the held-out frames were driven; the keys of evaluate()'s figures.
MODES = ("as_tracked", "refined")
#: The figures that decide which fusion is better.
DECISIVE = ("l1_mouth", "l1_teeth", "stlpips", "psnr")
#: "Dataset" and "split" of what is averaged over all of them.
ALL = "all"


class Cell(NamedTuple):
    """Names one training."""

    dataset: str
    split: str
    seed: int
    variant: str


class Figure(NamedTuple):
    """A figure over the seeds."""

    mean: float
    spread: float | None
    """Sample standard deviation; None of a single seed."""
    values: tuple[float, ...]
    """Of each seed."""


class Change(NamedTuple):
    """How a variant differs from the baseline."""

    mean: float
    spread: float | None
    """Of one dataset and split: over the seeds; over all: over datasets and splits."""
    unit: str
    """"%" or, of PSNR, "dB"."""


@dataclass(frozen=True)
class Table:
    """All figures. Rows are (dataset, split, variant, mode)."""

    figures: dict[tuple[str, str, str, str], dict[str, Figure]]
    """By row, then by name as evaluate() has them ("l1_mouth"); those that could be measured."""
    changes: dict[tuple[str, str, str, str], dict[str, Change]]
    """The same against the baseline, seed by seed; with ``ALL`` as dataset and split, the mean over
    datasets and splits, each of them counting once."""
    against: str
    """The baseline."""

    def groups(self) -> list[tuple[str, str]]:
        """Dataset and split, in the order of the rows."""
        return list(dict.fromkeys(row[:2] for row in self.figures))

    def variants(self) -> list[str]:
        """Names of the variants, in the order of the rows."""
        return list(dict.fromkeys(row[2] for row in self.figures))

    def modes(self) -> list[str]:
        """The modes there are."""
        return [mode for mode in MODES if any(row[3] == mode for row in self.figures)]

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""

        def rows(values: Mapping[tuple[str, str, str, str], Mapping[str, Any]]) -> list[Any]:
            return [
                {
                    **dict(zip(("dataset", "split", "fusion", "mode"), row, strict=True)),
                    "figures": {name: figure._asdict() for name, figure in found.items()},
                }
                for row, found in values.items()
            ]

        return {
            "figures": rows(self.figures),
            "against": self.against,
            "changes": rows(self.changes),
        }


def make_table(metrics: Mapping[Cell, Mapping[str, Any]], against: str) -> Table:
    """Collect what evaluate() returned for each cell.

    Args:
        metrics: by cell.
        against: variant that the changes are relative to; if it is not among the cells, there are
            no changes.
    """
    figures: dict[tuple[str, str, str, str], dict[str, Figure]] = {}
    changes: dict[tuple[str, str, str, str], dict[str, Change]] = {}
    groups = list(dict.fromkeys((c.dataset, c.split) for c in metrics))
    variants = list(dict.fromkeys(c.variant for c in metrics))
    for dataset, split in groups:
        for variant in variants:
            own = _of(metrics, dataset, split, variant)
            base = _of(metrics, dataset, split, against)
            for mode in MODES:
                found = _by_seed(own, mode)
                if not found:
                    continue
                row = (dataset, split, variant, mode)
                figures[row] = {
                    name: Figure(*_mean_and_spread(list(v.values())), tuple(v.values()))
                    for name, v in found.items()
                }
                if variant != against and base:
                    changes[row] = _changes(found, _by_seed(base, mode))
    changes |= _over_all(changes, variants)
    return Table(figures, changes, against)


def change_unit(name: str) -> str:
    """Whether a figure's change is a difference in decibels or a ratio in percent."""
    return "dB" if name.split("_")[0] == "psnr" else "%"


def change_text(change: Change) -> str:
    """Such as "+1.5 ± 0.3 %"."""
    digits = 2 if change.unit == "dB" else 1
    spread = "" if change.spread is None else f" ± {change.spread:.{digits}f}"
    return f"{change.mean:+.{digits}f}{spread} {change.unit}"


def table_csv(table: Table) -> str:
    """One line a figure: dataset, split, fusion, mode, metric, region, mean, spread, seeds, change,
    unit; the region of the whole picture is "whole"."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(
        ["dataset", "split", "fusion", "mode", "metric", "region", "mean", "spread", "seeds",
         "change", "unit"]
    )  # fmt: skip
    rows = [*table.figures, *(row for row in table.changes if row not in table.figures)]
    for row in rows:
        found, changed = table.figures.get(row, {}), table.changes.get(row, {})
        for name in found or changed:
            metric, _, region = name.partition("_")
            figure, change = found.get(name), changed.get(name)
            writer.writerow(
                [*row, metric, region or "whole"]
                + (["", "", ""] if figure is None else
                   [f"{figure.mean:.6g}", _text(figure.spread), len(figure.values)])
                + (["", ""] if change is None else [f"{change.mean:.4g}", change.unit])
            )  # fmt: skip
    return out.getvalue()


def _text(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"


def _of(
    metrics: Mapping[Cell, Mapping[str, Any]], dataset: str, split: str, variant: str
) -> dict[int, Mapping[str, Any]]:
    """Metrics by seed."""
    return {
        cell.seed: found
        for cell, found in metrics.items()
        if (cell.dataset, cell.split, cell.variant) == (dataset, split, variant)
    }


def _by_seed(own: Mapping[int, Mapping[str, Any]], mode: str) -> dict[str, dict[int, float]]:
    """Figures by name and seed; without those that could not be measured."""
    result: dict[str, dict[int, float]] = {}
    for seed, metrics in own.items():
        for name, value in metrics.get(mode, {}).items():
            if value is not None and math.isfinite(value):
                result.setdefault(name, {})[seed] = float(value)
    return result


def _changes(
    own: Mapping[str, Mapping[int, float]], base: Mapping[str, Mapping[int, float]]
) -> dict[str, Change]:
    result = {}
    for name, values in own.items():
        unit = change_unit(name)
        pairs = [(value, base.get(name, {}).get(seed)) for seed, value in values.items()]
        steps = [
            a - b if unit == "dB" else 100 * (a / b - 1)
            for a, b in pairs
            if b is not None and (b or unit == "dB")
        ]
        if steps:
            result[name] = Change(*_mean_and_spread(steps), unit)
    return result


def _over_all(
    changes: Mapping[tuple[str, str, str, str], Mapping[str, Change]], variants: Sequence[str]
) -> dict[tuple[str, str, str, str], dict[str, Change]]:
    result: dict[tuple[str, str, str, str], dict[str, Change]] = {}
    for variant in variants:
        for mode in MODES:
            rows = [found for row, found in changes.items() if row[2:] == (variant, mode)]
            for name in dict.fromkeys(name for found in rows for name in found):
                means = [found[name].mean for found in rows if name in found]
                mean, spread = _mean_and_spread(means)
                row = (ALL, ALL, variant, mode)
                result.setdefault(row, {})[name] = Change(mean, spread, change_unit(name))
    return result


def _mean_and_spread(values: Sequence[float]) -> tuple[float, float | None]:
    spread = float(np.std(values, ddof=1)) if len(values) > 1 else None
    return float(np.mean(values)), spread
