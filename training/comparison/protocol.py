"""How a comparison was made, for its files and as one line."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cag_avatar_training.comparison.cells import CellResult
from cag_avatar_training.comparison.config import ComparisonConfig
from cag_avatar_training.comparison.table import Cell
from cag_avatar_training.config import TrainConfig
from cag_avatar_training.dataset import Dataset
from cag_avatar_training.synthetic.truth import Truth

from cag_avatar import __version__

__all__ = ["comparison_protocol", "protocol_line"]


def comparison_protocol(
    config: ComparisonConfig,
    train: TrainConfig,
    opened: Mapping[str, Dataset],
    found: Mapping[str, Truth | None],
    results: Mapping[Cell, CellResult],
) -> dict[str, Any]:
    """As plain JSON values.

    Args:
        config: what was compared.
        train: the common settings, with the backend that was used.
        opened: datasets by name.
        found: their truths.
        results: of all cells.
    """
    any_metrics = next(iter(results.values())).metrics["protocol"]
    same = ("mask", "averaging", "background", "perceptual", "lpips", "refined", "every", "device")
    datasets = {}
    for name, dataset in opened.items():
        truth = found[name]
        measured = {
            cell.split: result.metrics["protocol"]
            for cell, result in results.items()
            if cell.dataset == name
        }
        datasets[name] = {
            "path": str(dataset.path),
            "video": dataset.info.source,
            "frames": len(dataset),
            "resolution": [dataset.info.camera.width, dataset.info.camera.height],
            "truth": None if truth is None else str(truth.folder),
            "measured_frames": {split: p["held_out_frames"] for split, p in measured.items()},
            "regions": {split: p["regions"] for split, p in measured.items()},
        }
    seconds = [r.metrics["protocol"]["training"].get("seconds") for r in results.values()]
    return {
        "datasets": datasets,
        "splits": {entry.split: list(entry.seeds) for entry in config.splits},
        "fusions": [variant.name for variant in config.variants],
        "against": config.against,
        "spread": "sample standard deviation over seeds",
        **{name: any_metrics[name] for name in same},
        "iterations": train.iterations,
        "training_seconds": [s for s in seconds if s is not None],
        "profile": train.profile,
        "version": __version__,
        "training": dict(train.to_dict()),
    }


def protocol_line(protocol: Mapping[str, Any]) -> str:
    """One line: what a figure is worth depends on it."""
    datasets = "; ".join(
        f"{name} ({entry['frames']} frames, {entry['resolution'][0]} x {entry['resolution'][1]}, "
        "held out "
        + ", ".join(f"{split} {count}" for split, count in entry["measured_frames"].items())
        + ")"
        for name, entry in protocol["datasets"].items()
    )
    splits = ", ".join(
        f"{split} (seeds {', '.join(map(str, seeds))})"
        for split, seeds in protocol["splits"].items()
    )
    every = f", 1 in {protocol['every']} held-out frames" if protocol["every"] > 1 else ""
    rates = protocol["training"]["rates"]
    refined = protocol["refined"]
    return (
        f"data: {datasets}. Splits: {splits}{every}. Profile {protocol['profile']}, "
        f"{protocol['iterations']} iterations, learning rates of network {rates['network']:g} and "
        f"own matrices {rates['local']:g}, mask: {protocol['mask']}, "
        f"perceptual: {protocol['perceptual']}. Device {protocol['device']}. "
        + ("As tracked only." if refined == "no" else f"Refined: {refined}; as tracked beside it.")
    )
