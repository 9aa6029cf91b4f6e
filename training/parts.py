"""The parts of a face that a dataset's parsing plane tells apart."""

from __future__ import annotations

__all__ = ["MOUTH_LABELS", "PARSING_LABELS"]

#: Names of the values of a parsing plane; ``person`` is the rest of the person, the eyes are the
#: subject's left and right, each the opening between the lids.
PARSING_LABELS: tuple[str, ...] = (
    "background",
    "person",
    "eye_left",
    "eye_right",
    "lips",
    "mouth_interior",
    "teeth",
)
#: The values that make up the mouth.
MOUTH_LABELS: tuple[int, ...] = tuple(
    PARSING_LABELS.index(name) for name in ("lips", "mouth_interior", "teeth")
)
