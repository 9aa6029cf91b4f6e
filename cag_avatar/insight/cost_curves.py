"""A picture of what a live frame costs with more Gaussians and with more pixels."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from cag_avatar.errors import MissingDependencyError
from cag_avatar.files import replacing

__all__ = ["draw_cost_curves"]

#: Stages from the bottom of the stack up.
_ORDER = (
    "drive", "network", "mesh", "gaussians", "sort", "bin", "blend",
    "draw", "read-back", "fill",
)  # fmt: skip


def draw_cost_curves(figures: dict[str, Any], path: Path | str) -> None:
    """Draw the figures of ``bench_live`` as two stacked charts, milliseconds a stage, into a PNG.

    Raises:
        MissingDependencyError: matplotlib is not installed.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ModuleNotFoundError as error:
        raise MissingDependencyError("matplotlib", "drawing cost curves", "attention") from error

    figure = Figure(figsize=(11, 4.2), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2)
    panels = (
        (left, "by_gaussians", "gaussians", "Gaussians"),
        (right, "by_size", "size", "side of the picture, pixels"),
    )
    for axes, curve, key, label in panels:
        points = figures[curve]
        x = [point[key] for point in points]
        stages = [name for name in _ORDER if name in points[0]["stages_ms"]]
        heights = [[p["stages_ms"][name]["median"] for p in points] for name in stages]
        axes.stackplot(x, heights, labels=stages)
        axes.plot(x, [p["frame_ms"]["median"] for p in points], "k.-", label="whole frame")
        axes.set_xlabel(label)
        axes.set_ylabel("ms a frame")
        axes.set_ylim(bottom=0)
        axes.set_xlim(min(x), max(x))
    left.legend(loc="upper left", fontsize=8)
    exponent = figures["cost_exponent"]
    if exponent is not None:
        left.set_title(f"exponent {exponent:.2f} from 13,000 Gaussians on", fontsize=10)
    where = figures.get("device") or f"{figures['threads']} threads"
    right.set_title(f"{figures['gaussians']:,} Gaussians, {where}", fontsize=10)
    with replacing(path) as temporary:
        figure.savefig(temporary, format="png")
