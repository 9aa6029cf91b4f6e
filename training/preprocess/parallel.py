"""Work in other threads, in order and with a bounded number of items under way."""

from __future__ import annotations

import os
import queue
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

__all__ = ["cores", "ordered_map", "prefetched"]

_T = TypeVar("_T")
_R = TypeVar("_R")


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0))


def ordered_map(
    function: Callable[[_T], _R], items: Iterable[_T], workers: int | None = None
) -> Iterator[_R]:
    """Results in the order of the items; at most two items a worker are under way.

    Unlike Executor.map, which starts on all items at once and keeps all results.
    """
    count = max(1, workers or cores())
    under_way: deque[Future[_R]] = deque()
    with ThreadPoolExecutor(count) as pool:
        try:
            for item in items:
                under_way.append(pool.submit(function, item))
                if len(under_way) >= 2 * count:
                    yield under_way.popleft().result()
            while under_way:
                yield under_way.popleft().result()
        finally:
            for future in under_way:
                future.cancel()


@contextmanager
def prefetched(items: Iterator[_T], ahead: int = 4) -> Iterator[Iterator[_T]]:
    """Draw items in another thread, a few ahead of their use; an error arrives in its place."""
    box: queue.Queue[tuple[str, object]] = queue.Queue(ahead)
    stop = threading.Event()

    def put(kind: str, value: object) -> bool:
        while not stop.is_set():
            try:
                box.put((kind, value), timeout=0.1)
                return True
            except queue.Full:
                continue
        return False

    def work() -> None:
        try:
            for item in items:
                if not put("item", item):
                    return
            put("end", None)
        except BaseException as error:
            put("error", error)

    def drawn() -> Iterator[_T]:
        while True:
            kind, value = box.get()
            if kind == "end":
                return
            if kind == "error":
                assert isinstance(value, BaseException)
                raise value
            yield value  # type: ignore[misc]

    thread = threading.Thread(target=work, name="prefetch", daemon=True)
    thread.start()
    try:
        yield drawn()
    finally:
        stop.set()
        thread.join()
