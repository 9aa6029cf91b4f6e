"""The page of a comparison: what decides, all figures, costs, and pictures side by side."""

from __future__ import annotations

import html
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from cag_avatar_training.comparison.cells import CellResult
from cag_avatar_training.comparison.cost import InferenceCost
from cag_avatar_training.comparison.protocol import protocol_line
from cag_avatar_training.comparison.table import (
    ALL,
    DECISIVE,
    Cell,
    Change,
    Figure,
    Table,
    change_text,
)
from cag_avatar_training.dataset import Dataset
from cag_avatar_training.regions import REGION_TEXT, RegionMasks
from cag_avatar_training.report import PAGE_STYLE, embedded_picture, read_picture
from numpy.typing import NDArray

from cag_avatar.files import replacing

__all__ = ["figure_label", "write_comparison_page"]

_STYLE = """
body{max-width:none;margin:2rem} td small{color:#5a6475} td.good small{color:#137a3f}
td.bad small{color:#c0262d} tr.key td:first-child{font-weight:600} td.best{font-weight:600}
.strip{display:flex;gap:6px;overflow-x:auto;margin:.3rem 0 .8rem} figure{margin:0}
figcaption{font-size:12px;color:#5a6475} .strip img{max-width:none;border-radius:0;display:block}
.tables{display:flex;gap:3rem;flex-wrap:wrap} details{margin:.6rem 0}
"""
_METRICS = {
    "psnr": "PSNR (dB)",
    "ssim": "SSIM",
    "l1": "L1",
    "stlpips": "ST-LPIPS",
    "lpips": "LPIPS",
}
_MODES = {"as_tracked": "as tracked", "refined": "refined"}
#: Margin round the head, and round the mouth, as a share of its height.
_MARGINS = {"head": 0.15, "mouth": 0.35}
#: How many times larger than its pixels the mouth is shown.
_MOUTH_ZOOM = 3


def figure_label(name: str) -> str:
    """A figure's name in words: ``l1_mouth`` is "L1, mouth"."""
    metric, _, region = name.partition("_")
    label = _METRICS.get(metric, metric)
    return f"{label}, {region}" if region else label


def write_comparison_page(
    path: Path,
    table: Table,
    costs: Mapping[str, InferenceCost],
    protocol: Mapping[str, Any],
    datasets: Mapping[str, Dataset],
    results: Mapping[Cell, CellResult],
    pictures: int,
) -> Path:
    """Write a self-contained HTML page.

    Args:
        path: file to write.
        table: all figures.
        costs: by variant.
        protocol: see comparison_protocol().
        datasets: by name.
        results: of all cells; the pictures are those of each split's first seed.
        pictures: frames shown for each dataset and split.

    Raises:
        InputError: a picture cannot be read.
    """
    groups = "".join(
        f"<h2>{html.escape(dataset)}, split {split}</h2>"
        f"{_figures(table, dataset, split)}"
        f"{_pictures(dataset, split, datasets[dataset], results, pictures)}"
        for dataset, split in table.groups()
    )
    page = (
        '<!doctype html><html lang="en"><meta charset="utf-8"><title>Fusions compared</title>'
        f"<style>{PAGE_STYLE}{_STYLE}</style><h1>Fusions compared</h1>"
        f'<p class="lead">{html.escape(protocol_line(protocol))}</p>'
        f"{_decisive(table)}<h2>Cost of a frame</h2>{_costs(costs)}{groups}"
        f"<h2>Regions</h2>{_regions()}<h2>Protocol</h2><details><summary>all settings</summary>"
        f"<pre>{html.escape(json.dumps(protocol, indent=2))}</pre></details></html>"
    )
    with replacing(path) as temporary:
        temporary.write_text(page, encoding="utf-8")
    return path


def _decisive(table: Table) -> str:
    """Changes against the baseline, over all, then by dataset and split."""
    others = [v for v in table.variants() if v != table.against]
    if not table.changes:
        return ""
    parts = []
    for mode in table.modes():
        rows = []
        for group in [(ALL, ALL), *table.groups()]:
            where = "mean over all" if group == (ALL, ALL) else ", ".join(group)
            for name in DECISIVE:
                found = [table.changes.get((*group, v, mode), {}).get(name) for v in others]
                if any(found):
                    cells = "".join(_change_cell(c, name) for c in found)
                    key = " class='key'" if group == (ALL, ALL) else ""
                    label = f"{html.escape(where)}: {figure_label(name)}"
                    rows.append(f"<tr{key}><td>{label}</td>{cells}</tr>")
        heads = "".join(f"<th>{html.escape(v)}</th>" for v in others)
        parts.append(
            f"<div><h3>{_MODES[mode]}</h3><table><tr><th></th>{heads}</tr>{''.join(rows)}"
            "</table></div>"
        )
    return (
        f"<h2>Change against {html.escape(table.against)}</h2><p>Seed by seed, then averaged; "
        "&plusmn; is the standard deviation, over seeds, or in the mean over all over datasets and "
        "splits. Green is better. L1, ST-LPIPS and LPIPS: less is better.</p>"
        f"<div class='tables'>{''.join(parts)}</div>"
    )


def _change_cell(change: Change | None, name: str) -> str:
    if change is None:
        return "<td></td>"
    return f"<td class='{_judged(change, name)}'><small>{change_text(change)}</small></td>"


def _more_is_better(name: str) -> bool:
    return name.split("_")[0] in ("psnr", "ssim")


def _judged(change: Change, name: str) -> str:
    """Class of a cell; none for what the page shows as zero."""
    if abs(change.mean) < (0.005 if change.unit == "dB" else 0.05):
        return ""
    return "good" if (change.mean > 0) == _more_is_better(name) else "bad"


def _figures(table: Table, dataset: str, split: str) -> str:
    """Rows: figures; columns: variants, with the change against the baseline."""
    parts = []
    for mode in table.modes():
        rows = {v: table.figures.get((dataset, split, v, mode), {}) for v in table.variants()}
        names = sorted(dict.fromkeys(name for found in rows.values() for name in found), key=_order)
        lines = []
        for name in names:
            means = {v: found[name].mean for v, found in rows.items() if name in found}
            best = (max if _more_is_better(name) else min)(means.values())
            cells = "".join(
                _figure_cell(
                    found.get(name),
                    table.changes.get((dataset, split, v, mode), {}).get(name),
                    name,
                    means.get(v) == best,
                )
                for v, found in rows.items()
            )
            key = " class='key'" if name in DECISIVE else ""
            lines.append(f"<tr{key}><td>{figure_label(name)}</td>{cells}</tr>")
        heads = "".join(f"<th>{html.escape(v)}</th>" for v in rows)
        parts.append(
            f"<div><h3>{_MODES[mode]}</h3><table><tr><th></th>{heads}</tr>{''.join(lines)}"
            "</table></div>"
        )
    return f"<div class='tables'>{''.join(parts)}</div>"


def _order(name: str) -> tuple[int, int]:
    metric, _, region = name.partition("_")
    regions = ["", *REGION_TEXT]
    return regions.index(region), list(_METRICS).index(metric)


def _figure_cell(figure: Figure | None, change: Change | None, name: str, best: bool) -> str:
    if figure is None:
        return "<td></td>"
    digits = 2 if name.startswith("psnr") else 4
    spread = "" if figure.spread is None else f" &plusmn; {figure.spread:.{digits}f}"
    classes = " ".join(
        word
        for word in ("best" if best else "", "" if change is None else _judged(change, name))
        if word
    )
    more = "" if change is None else f" <small>{change_text(change)}</small>"
    return f"<td class='{classes}'>{figure.mean:.{digits}f}{spread}{more}</td>"


def _costs(costs: Mapping[str, InferenceCost]) -> str:
    rows = "".join(
        f"<tr><td>{html.escape(name)}</td><td>{cost.network_ms:.2f}</td>"
        f"<td>{cost.multiply_adds:,.0f}</td><td>{cost.parameters:,}</td>"
        f"<td>{cost.gaussians:,}</td><td>{cost.dtype}</td></tr>"
        for name, cost in costs.items()
    )
    return (
        "<table><tr><th></th><th>network, ms</th><th>multiply-adds a Gaussian</th>"
        f"<th>parameters</th><th>Gaussians</th><th>type</th></tr>{rows}</table><p>Fusion and "
        "offset network of an avatar ready to be driven: median of 30 frames on this machine's "
        "CPU, turn by turn.</p>"
    )


def _regions() -> str:
    items = "".join(f"<li>{name}: {html.escape(text)}</li>" for name, text in REGION_TEXT.items())
    return (
        f"<ul>{items}</ul><p>L1 and PSNR: pixels of the region in each frame, then averaged over "
        "the frames that show at least 1/10,000 of the picture of it. SSIM: windows centred in it. "
        "ST-LPIPS: each stage's map weighted with the region's share of its cells.</p>"
    )


def _pictures(
    name: str,
    split: str,
    dataset: Dataset,
    results: Mapping[Cell, CellResult],
    count: int,
) -> str:
    """Truth and all variants, head and mouth, of frames that differ most."""
    cells = [cell for cell in results if cell[:2] == (name, split)]
    shown = {cell.variant: results[cell] for cell in cells if cell.seed == cells[0].seed}
    first = next(iter(shown.values()))
    frames = [int(frame) for frame in first.metrics["frames"]]
    masks = RegionMasks(dataset)
    background = torch.tensor(first.metrics["protocol"]["background"])
    mode = _MODES[first.metrics["protocol"]["pictures"]]
    parts = []
    for index in _different(dataset.tracking.codes, frames, count):
        regions = masks.of(index)
        truth = dataset.frame(index).target(background)
        pictures = {"truth": (truth * 255 + 0.5).to(torch.uint8).numpy()}
        for variant, result in shown.items():
            pictures[variant] = read_picture(result.pictures / "pred" / f"{index:05d}.png")
        strips = [
            _strip(pictures, _box(regions[region].numpy(), margin), region == "mouth")
            for region, margin in _MARGINS.items()
            if regions[region].any()
        ]
        parts.append(f"<h4>frame {index}</h4>{''.join(strips)}")
    return (
        f"<details open><summary>Pictures ({mode}, seed {cells[0].seed}); the head pixel by pixel, "
        f"the mouth {_MOUTH_ZOOM} times as large</summary>{''.join(parts)}</details>"
        if parts
        else ""
    )


def _strip(pictures: Mapping[str, NDArray[np.uint8]], box: tuple[slice, slice], mouth: bool) -> str:
    figures = []
    for caption, picture in pictures.items():
        crop = np.ascontiguousarray(picture[box])
        source = embedded_picture(crop, None if mouth else 92)
        width = crop.shape[1] * (_MOUTH_ZOOM if mouth else 1)
        figures.append(
            f"<figure><img alt='{html.escape(caption)}' width='{width}' src='{source}'>"
            f"<figcaption>{html.escape(caption)}</figcaption></figure>"
        )
    return f"<div class='strip'>{''.join(figures)}</div>"


def _box(mask: NDArray[np.bool_], margin: float) -> tuple[slice, slice]:
    """Rows and columns of a mask's bounding box with a margin, a share of its longer side."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    extra = round(margin * max(np.ptp(rows), np.ptp(columns)))
    return (
        slice(max(0, rows[0] - extra), rows[-1] + extra + 1),
        slice(max(0, columns[0] - extra), columns[-1] + extra + 1),
    )


def _different(codes: NDArray[np.float32], frames: Sequence[int], count: int) -> list[int]:
    """Frames whose codes differ most: first the one farthest from the mean, then always the one
    farthest from those chosen; in order of time."""
    found = codes[list(frames)]
    distance = np.linalg.norm(found - found.mean(0), axis=1)
    chosen: list[int] = []
    for _ in range(min(count, len(frames))):
        place = int(np.argmax(distance))
        apart = np.linalg.norm(found - found[place], axis=1)
        distance = np.minimum(distance if chosen else np.inf, apart)
        distance[place] = -1.0
        chosen.append(frames[place])
    return sorted(chosen)
