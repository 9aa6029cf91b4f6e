"""What is compared."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field, fields, is_dataclass, replace
from typing import Any, get_args

from cag_avatar_training.config import RefinementConfig, TrainConfig
from cag_avatar_training.split import Split

from cag_avatar.avatar.config import AvatarConfig
from cag_avatar.errors import InputError
from cag_avatar.fusion.factory import FusionName

__all__ = ["BASELINE", "ComparisonConfig", "SplitSeeds", "Variant", "parse_splits", "parse_variant"]

#: What the others are related to, by default: FlashAvatar's conditioning.
BASELINE = "concat"


@dataclass(frozen=True)
class Variant:
    """One column of the comparison: a fusion, and settings that differ from the common ones."""

    name: str
    """As it was asked for; heads the column."""
    fusion: FusionName
    """How the code reaches the Gaussians."""
    changes: tuple[tuple[str, Any], ...] = ()
    """Settings by name: of AvatarConfig, or of TrainConfig with a dot where it is nested."""

    def apply(self, config: TrainConfig) -> TrainConfig:
        """The common settings as this variant has them. Raises InputError on a wrong one."""
        config = replace(config, avatar=replace(config.avatar, fusion=self.fusion))
        own = {f.name for f in fields(AvatarConfig)}
        for name, value in self.changes:
            path = ["avatar", name] if name in own else name.split(".")
            config = _changed(config, path, value, self.name)
        return config


@dataclass(frozen=True)
class SplitSeeds:
    """A split and the seeds trained on it."""

    split: Split
    seeds: tuple[int, ...]


@dataclass(frozen=True)
class ComparisonConfig:
    """What is trained and how it is measured."""

    train: TrainConfig = field(default_factory=TrainConfig)
    """Common settings; their fusion, split and seed are replaced."""
    variants: tuple[Variant, ...] = tuple(Variant(name, name) for name in get_args(FusionName))
    """The columns."""
    splits: tuple[SplitSeeds, ...] = (SplitSeeds("last", (0,)),)
    """Splits and their seeds."""
    against: str = BASELINE
    """Variant that the others are related to; without it no relative changes are given."""
    every: int = 1
    """Measure every so many held-out frames only."""
    refine: bool = True
    """Also fit codes and poses of the held-out frames to their images."""
    refinement: RefinementConfig = field(default_factory=RefinementConfig.for_held_out)
    """Settings of that."""
    pictures: int = 4
    """Frames shown on the page for each dataset and split."""

    def __post_init__(self) -> None:
        """Raise InputError on something that cannot be compared."""
        names = [variant.name for variant in self.variants]
        if not names or len(set(names)) != len(names):
            raise InputError(f"fusions: {names or 'none'}; name each once, and at least one")
        if not self.splits or not all(entry.seeds for entry in self.splits):
            raise InputError("splits: name at least one, and a seed for each")
        entries = [(e.split, seed) for e in self.splits for seed in e.seeds]
        if len(set(entries)) != len(entries):
            raise InputError("splits: a split or a seed is named twice")
        for name, value, low in (("every", self.every, 1), ("pictures", self.pictures, 0)):
            if value < low:
                raise InputError(f"{name}: {value} must be at least {low}")
        for variant in self.variants:
            variant.apply(self.train)


def parse_splits(words: Sequence[str], seeds: Sequence[int]) -> tuple[SplitSeeds, ...]:
    """Splits as a command line names them: ``blocks``, or ``last:0,1`` with seeds of its own.

    Raises:
        InputError: no such split, or a seed is not a number.
    """
    entries = []
    for word in words:
        name, _, own = word.partition(":")
        if name not in get_args(Split):
            raise InputError(f"splits: unknown '{name}', choose from {', '.join(get_args(Split))}")
        try:
            chosen = tuple(int(seed) for seed in own.split(",")) if own else tuple(seeds)
        except ValueError:
            raise InputError(f"splits: '{word}' is not of the form {name}:0,1") from None
        entries.append(SplitSeeds(name, chosen))  # type: ignore[arg-type]
    return tuple(entries)


def parse_variant(word: str) -> Variant:
    """A variant as a command line names it: ``concat``, or ``concat:width=128,rates.network=5e-4``.

    Raises:
        InputError: no such fusion, or something else than NAME=VALUE follows it.
    """
    fusion, _, rest = word.partition(":")
    if fusion not in get_args(FusionName):
        raise InputError(
            f"fusions: unknown '{fusion}', choose from {', '.join(get_args(FusionName))}"
        )
    changes = []
    for part in rest.split(",") if rest else []:
        name, equals, text = part.partition("=")
        if not equals or not name:
            raise InputError(f"fusions: '{word}' is not of the form {fusion}:name=value,...")
        try:
            value = json.loads(text)
        except ValueError:
            value = text
        changes.append((name, value))
    return Variant(word, fusion, tuple(changes))  # type: ignore[arg-type]


def _changed(config: Any, path: Sequence[str], value: Any, where: str) -> Any:
    """A copy of nested dataclasses with one field replaced by a value of its type."""
    name = path[0]
    if not is_dataclass(config) or name not in {f.name for f in fields(config)}:
        raise InputError(f"fusions: '{where}': no setting '{'.'.join(path)}'")
    old = getattr(config, name)
    if len(path) > 1:
        return replace(config, **{name: _changed(old, path[1:], value, where)})  # type: ignore[type-var]
    kind = type(old)
    if kind is float and type(value) is int:
        value = float(value)
    if type(value) is not kind or kind not in (bool, int, float, str):
        raise InputError(f"fusions: '{where}': {name} cannot be {value!r}")
    return replace(config, **{name: value})  # type: ignore[type-var]
