"""Fusions compared: the same data, budget and seeds, trained and measured side by side."""

from __future__ import annotations

from cag_avatar_training.comparison.compare import Comparison, compare
from cag_avatar_training.comparison.config import ComparisonConfig, parse_splits, parse_variant

__all__ = ["Comparison", "ComparisonConfig", "compare", "parse_splits", "parse_variant"]
