"""Which frames of a clip are held out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

from cag_avatar.errors import InputError

__all__ = ["Split", "split_frames"]

Split = Literal["last", "blocks", "source"]


def split_frames(
    frames: int, split: Split, source: Sequence[int] = ()
) -> tuple[list[int], list[int]]:
    """Training and held-out frame numbers of a clip.

    ``last`` holds out the last 20 %; ``blocks`` the last 9 of every 46 frames, which keeps
    expressions of all kinds on both sides; ``source`` the frames of the argument ``source``.

    Raises:
        InputError: unknown split, or one of the two sides would be empty.
    """
    if split == "last":
        first = frames - round(frames * 0.2)
        held_out = list(range(first, frames))
    elif split == "blocks":
        held_out = [frame for frame in range(frames) if frame % 46 >= 37]
    elif split == "source":
        held_out = sorted(source)
        if not held_out:
            raise InputError(
                "split 'source': the dataset names no held-out frames; choose last or blocks"
            )
    else:
        raise InputError(f"split: unknown '{split}', choose from {', '.join(get_args(Split))}")
    out = set(held_out)
    train = [frame for frame in range(frames) if frame not in out]
    if not train or not held_out:
        raise InputError(f"split '{split}': {frames} frames are too few, record a longer video")
    return train, held_out
