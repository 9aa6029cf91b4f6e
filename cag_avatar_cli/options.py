"""Types of the options that several commands share."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Literal

import tyro
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

__all__ = ["Backend", "Fusion", "OutputPath", "PathArgument", "bar"]

#: A path given by position.
PathArgument = Annotated[Path, tyro.conf.Positional]
#: A path given as ``--output`` or ``-o``.
OutputPath = Annotated[Path, tyro.conf.arg(aliases=["-o"])]

Fusion = Literal["cross-attention", "concat", "one-token"]
Backend = Literal["auto", "cpu", "cuda", "torch"]


@contextmanager
def bar(name: str) -> Iterator[Callable[[int, int], None]]:
    """A progress bar: yields a function of (done, total)."""
    columns = (
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(),
        TextColumn("left"), TimeRemainingColumn(),
    )  # fmt: skip
    with Progress(*columns) as progress:
        task = progress.add_task(name, total=None)
        yield lambda done, total: progress.update(task, completed=done, total=total)
