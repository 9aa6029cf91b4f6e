"""Small SVG charts."""

from __future__ import annotations

import base64
import html
import itertools
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

__all__ = ["angle_map", "bar_rows", "curve", "strip"]

Floats = NDArray[np.floating]

#: Points drawn of a curve, at most: two a pixel.
_POINTS = 560
_WIDTH, _HEIGHT = 280, 54
_BLUES = ("#eef2f8", "#c9daf8", "#94b8f2", "#5b91ea", "#2f6fed", "#1747a6", "#0b2a66")


def _thinned(values: Floats) -> tuple[Floats, Floats]:
    """Places and values of a curve: where there are too many, the extremes of each piece."""
    total = len(values)
    if total <= _POINTS:
        return np.arange(total, dtype=float), values
    edges = np.linspace(0, total, _POINTS // 2 + 1).astype(int)
    places = []
    for a, b in itertools.pairwise(edges):
        places += sorted({a + int(values[a:b].argmin()), a + int(values[a:b].argmax())})
    index = np.array(places)
    return index.astype(float), values[index]


def curve(
    title: str, values: Floats, low: float, high: float, line: float | None = None, unit: str = ""
) -> str:
    """A curve over the frames, [T], between ``low`` and ``high``; ``line`` is a dashed level.

    The values travel along in 255 steps, so that the page can say them at the pointer.
    """
    span = max(high - low, 1e-9)
    values = np.nan_to_num(values, nan=low)
    place, shown = _thinned(values)
    x = place / max(1, len(values) - 1) * _WIDTH
    y = _HEIGHT - 2 - (np.clip((shown - low) / span, 0, 1)) * (_HEIGHT - 4)
    points = " ".join(f"{a:.1f},{b:.1f}" for a, b in zip(x, y, strict=True))
    coded = np.round(np.clip((values - low) / span, 0, 1) * 255).astype(np.uint8)
    data = base64.b64encode(coded.tobytes()).decode()
    level = ""
    if line is not None:
        at = _HEIGHT - 2 - min(1.0, max(0.0, (line - low) / span)) * (_HEIGHT - 4)
        level = f"<line class='level' x1='0' x2='{_WIDTH}' y1='{at:.1f}' y2='{at:.1f}'/>"
    name = html.escape(title)
    return (
        f"<figure><figcaption>{name} <output></output></figcaption>"
        f"<svg class='time' viewBox='0 0 {_WIDTH} {_HEIGHT}' preserveAspectRatio='none' "
        f"data-low='{low:g}' data-high='{high:g}' data-unit='{html.escape(unit)}' "
        f"data-values='{data}'>{level}<polyline points='{points}'/>{_cursor()}</svg></figure>"
    )


def _cursor() -> str:
    return f"<line class='cursor' x1='-9' x2='-9' y1='0' y2='{_HEIGHT}'/>"


def strip(title: str, values: Floats) -> str:
    """Values in [0, 1] over the frames as a strip of colour: red 0, green 1."""
    values = np.clip(np.nan_to_num(values), 0, 1)
    total = len(values)
    steps = np.round(values * 10).astype(int)
    edges = np.flatnonzero(np.diff(steps)) + 1
    starts, ends = [0, *edges.tolist()], [*edges.tolist(), total]
    rects = "".join(
        f"<rect x='{a / total * _WIDTH:.2f}' y='0' width='{(b - a) / total * _WIDTH:.2f}' "
        f"height='{_HEIGHT}' fill='hsl({12 * steps[a]},70%,50%)'/>"
        for a, b in zip(starts, ends, strict=True)
    )
    return (
        f"<div class='strip'><span>{html.escape(title)}</span>"
        f"<svg class='time' viewBox='0 0 {_WIDTH} {_HEIGHT}' preserveAspectRatio='none'>{rects}"
        f"{_cursor()}</svg></div>"
    )


def angle_map(yaw: Floats, pitch: Floats, step: float = 5.0) -> str:
    """Frames by yaw (across, to the subject's left) and pitch (downwards), degrees, [T] each."""
    half_x, half_y = (
        max(reach, step * np.ceil(np.abs(v).max() / step))
        for v, reach in ((yaw, 45.0), (pitch, 30.0))
    )
    half_x, half_y = min(half_x, 90.0), min(half_y, 90.0)
    columns, rows = np.arange(-half_x, half_x + 1, step), np.arange(-half_y, half_y + 1, step)
    counts = np.histogram2d(
        np.clip(pitch, -half_y, half_y - 1e-6), np.clip(yaw, -half_x, half_x - 1e-6),
        bins=(rows, columns),
    )[0]  # fmt: skip
    cell, left, top = 22, 40, 8
    most = max(1.0, float(counts.max()))
    parts = []
    for i, row in enumerate(counts):
        for j, count in enumerate(row):
            shade = 0 if count == 0 else 1 + round(5 * np.log1p(count) / np.log1p(most))
            parts.append(
                f"<rect x='{left + j * cell}' y='{top + i * cell}' width='{cell - 1}' "
                f"height='{cell - 1}' fill='{_BLUES[min(shade, 6)]}'><title>yaw {columns[j]:.0f} "
                f"to {columns[j + 1]:.0f}, pitch {rows[i]:.0f} to {rows[i + 1]:.0f} degrees: "
                f"{int(count)} frames</title></rect>"
            )
    for j in range(0, len(columns), 3):
        parts.append(
            f"<text x='{left + j * cell}' y='{top + len(counts) * cell + 14}' "
            f"text-anchor='middle'>{columns[j]:.0f}</text>"
        )
    for i in range(0, len(rows), 3):
        parts.append(
            f"<text x='{left - 6}' y='{top + i * cell + 4}' text-anchor='end'>{rows[i]:.0f}</text>"
        )
    width, height = left + counts.shape[1] * cell + 12, top + counts.shape[0] * cell + 24
    return f"<svg width='{width}' height='{height}'>{''.join(parts)}</svg>"


def bar_rows(rows: Sequence[tuple[str, float, float]], reached: float) -> str:
    """Name, largest value and share of frames above ``reached``: one bar each, in columns."""
    height, width, column = 17, 330, 150
    per = (len(rows) + 2) // 3
    parts = []
    for place, (name, most, shown) in enumerate(rows):
        x, y = (place // per) * (width + 20), (place % per) * height
        room = width - column - 40
        good = "#2f6fed" if most >= reached else "#c2410c"
        parts.append(
            f"<text x='{x + column - 6}' y='{y + 12}' text-anchor='end'>{html.escape(name)}</text>"
            f"<rect x='{x + column}' y='{y + 3}' width='{max(0.0, min(most, 1)) * room:.1f}' "
            f"height='11' fill='{good}' opacity='.3'/>"
            f"<rect x='{x + column}' y='{y + 3}' width='{shown * room:.1f}' height='11' "
            f"fill='{good}'/><text x='{x + column + room + 4}' y='{y + 12}'>{100 * shown:.0f} %"
            f"</text>"
        )
    return f"<svg width='{3 * (width + 20)}' height='{per * height + 6}'>{''.join(parts)}</svg>"
