"""Families of tokens: the part of the face that a coefficient is named after."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

__all__ = ["FAMILIES", "FAMILY_COLORS", "family_of", "family_order"]

FAMILIES: tuple[str, ...] = ("brows", "eyes", "cheeks and nose", "mouth", "jaw", "neck", "other")

#: RGB of each family, 0 to 1; told apart by people who see few colours, too (after Okabe and Ito).
FAMILY_COLORS: tuple[tuple[float, float, float], ...] = (
    (0.90, 0.62, 0.00),
    (0.00, 0.45, 0.70),
    (0.95, 0.88, 0.26),
    (0.80, 0.24, 0.35),
    (0.00, 0.62, 0.45),
    (0.58, 0.40, 0.72),
    (0.60, 0.60, 0.60),
)

_PREFIXES = {
    "brow": "brows",
    "eye": "eyes",
    "left_eye": "eyes",
    "right_eye": "eyes",
    "cheek": "cheeks and nose",
    "nose": "cheeks and nose",
    "mouth": "mouth",
    "tongue": "mouth",
    "jaw": "jaw",
    "neck": "neck",
}


def family_of(token: str) -> str:
    """Family of a token by its name: "jawOpen" is "jaw"; "other" of a name that tells nothing."""
    return next((f for prefix, f in _PREFIXES.items() if token.startswith(prefix)), "other")


def family_order(tokens: Sequence[str]) -> Tensor:
    """Index into FAMILIES of each token, [T] int64."""
    return torch.tensor([FAMILIES.index(family_of(token)) for token in tokens])
