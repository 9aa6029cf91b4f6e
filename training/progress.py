"""Progress of long work: bars on a terminal, a few lines in the log elsewhere."""

from __future__ import annotations

import logging
import time
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

__all__ = ["Advance", "StageProgress", "bar", "progress_bars"]

_LOG = logging.getLogger(__name__)

#: Told how many items of a stage are done.
Advance = Callable[[int], None]

#: In a log, a stage reports no oftener than every so many seconds, and at whole tenths.
_LINE_SECONDS = 5.0


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


class StageProgress:
    """Progress of work in stages, to be used in a with block.

    On a terminal each stage has a bar with its time left; otherwise it writes log lines: one at
    every tenth, seconds apart, and one at its end.

    Args:
        show: False shows nothing.
        terminal: bars or lines; by default whether the output is a terminal.
    """

    def __init__(self, show: bool = True, terminal: bool | None = None) -> None:
        bars = progress_bars(show)
        self._terminal = bars.console.is_terminal if terminal is None else terminal
        self._show = show
        self._bars = bars if self._terminal else progress_bars(False)

    @contextmanager
    def stage(self, name: str, total: int | None) -> Iterator[Advance]:
        """A stage of ``total`` items, None if nobody knows; yields what tells the count done."""
        start = said = time.perf_counter()
        tenth, begun = 0, 0
        task = self._bars.add_task(name, total=total)

        def advance(done: int) -> None:
            nonlocal said, tenth, begun
            self._bars.update(task, completed=done)
            now = time.perf_counter()
            if self._terminal or not self._show or not total:
                return
            if begun == 0:
                begun = done  # an interrupted stage goes on here
            if now - said >= _LINE_SECONDS and 10 * done // total > tenth and done > begun:
                said, tenth = now, 10 * done // total
                left = (now - start) / (done - begun) * (total - done)
                _LOG.info(
                    "%s: %d of %d (%d %%), about %s left", name, done, total, 100 * done // total,
                    _clock(left),
                )  # fmt: skip

        yield advance
        count = total or self._bars.tasks[task].completed or 1
        self._bars.update(task, total=count, completed=count)
        if self._show and not self._terminal:
            _LOG.info("%s: done in %s", name, _clock(time.perf_counter() - start))

    def __enter__(self) -> StageProgress:
        self._bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bars.stop()


def _clock(seconds: float) -> str:
    whole = round(seconds)
    return f"{whole // 60}:{whole % 60:02d}" if whole >= 60 else f"{seconds:.1f} s"
