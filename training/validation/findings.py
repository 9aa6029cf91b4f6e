"""What a check says."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any, Literal

__all__ = ["Finding", "NotChecked", "Severity", "counted", "frame_ranges", "frames_in_words"]

Severity = Literal["error", "warning", "note"]


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong, or worth knowing."""

    check: str
    """Name of the fault, fixed: e.g. ``shifted`` or ``missing-jaw``."""
    severity: Severity
    """error: training on it makes a bad avatar; warning: the avatar will lack something; note."""
    what: str
    """One plain sentence, with the figure."""
    advice: str
    """What to do about it."""
    frames: tuple[tuple[int, int], ...] = ()
    """Frames concerned as ranges, both ends included; empty: the whole clip."""

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {**asdict(self), "frames": [list(pair) for pair in self.frames]}


@dataclass(frozen=True)
class NotChecked:
    """A check that could not be made."""

    check: str
    """As in Finding."""
    why: str
    """Plain words: "needs ARKit names"."""


def counted(count: int, word: str) -> str:
    """``1 frame``, ``2 frames``."""
    return f"{count} {word}{'' if count == 1 else 's'}"


def frame_ranges(frames: Iterable[int], join: int = 1) -> tuple[tuple[int, int], ...]:
    """Frame numbers as ranges, both ends included; gaps of up to ``join`` - 1 frames are closed."""
    ranges: list[list[int]] = []
    for frame in sorted({int(f) for f in frames}):
        if ranges and frame - ranges[-1][1] <= join:
            ranges[-1][1] = frame
        else:
            ranges.append([frame, frame])
    return tuple((a, b) for a, b in ranges)


def frames_in_words(ranges: tuple[tuple[int, int], ...], most: int = 6) -> str:
    """``frames 3-17, 40`` and so on; "all frames" of no ranges."""
    if not ranges:
        return "all frames"
    parts = [f"{a}" if a == b else f"{a}-{b}" for a, b in ranges[:most]]
    more = f" and {counted(len(ranges) - most, 'more place')}" if len(ranges) > most else ""
    one = len(ranges) == 1 and ranges[0][0] == ranges[0][1]
    return f"frame{'' if one else 's'} {', '.join(parts)}{more}"
