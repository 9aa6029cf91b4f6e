"""Progress bars: one look for all long work."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

__all__ = ["bar", "progress_bars"]


def progress_bars(show: bool = True) -> Progress:
    """A display of bars with counts, time spent and time left; to be used in a with block."""
    return Progress(
        TextColumn("{task.description:<12}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        disable=not show,
    )


@contextmanager
def bar(name: str) -> Iterator[Callable[[int, int], None]]:
    """One bar: yields a function of (done, total)."""
    with progress_bars() as progress:
        task = progress.add_task(name, total=None)
        yield lambda done, total: progress.update(task, completed=done, total=total)
